package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"flota/internal/fault"
	"flota/internal/store"
)

// ExternalOptions say how a user's own etcd is reached, version 3.4 or later, with --max-request-bytes=2097152 so that the largest transactions
// (store.MaxBytes) fit. Endpoints and Log are needed.
type ExternalOptions struct {
	Endpoints []string // https://host:port; http:// on loopback only
	// Cert and Key are PEM files of what this machine shows, read anew for each connection; empty: nothing.
	Cert, Key string
	CA        string // PEM file of the authorities that the servers' certificates come from; empty: the system's
	User      string // of etcd's own users; empty: none. It needs to read and write everything under Prefix
	Password  string
	// Prefix stands before all of the cluster's keys there, as it is; empty: none. Two clusters need two of them, neither the beginning of the other.
	Prefix string
	Log    *slog.Logger
}

// External is the store on a user's own etcd, whose members Flota does not manage. Revisions are those of the whole etcd. Without a User it returns at once,
// as Dial does; with one it signs in first: fault.Unavailable when no server answers within 5 s, and fault.Denied when User or Password is wrong.
// fault.Invalid for options that cannot work.
func External(ctx context.Context, o ExternalOptions) (store.KV, error) {
	const what = "connect to the external store"
	if o.Log == nil || len(o.Endpoints) == 0 || (o.Cert == "") != (o.Key == "") {
		return nil, fault.New(fault.Invalid, what+": endpoints and a log are needed, and a certificate needs its key")
	}
	encrypted, err := schemes(o.Endpoints)
	if err != nil {
		return nil, err
	}
	cfg := clientv3.Config{
		Endpoints: o.Endpoints, Username: o.User, Password: o.Password,
		DialKeepAliveTime: pingAfter, DialKeepAliveTimeout: pingWait, DialTimeout: signInWait,
		MaxCallSendMsgSize: requestBytes, Logger: zapOver(o.Log, zapcore.WriteThenPanic),
		DialOptions: append(connecting(), grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return NetDialer().DialContext(ctx, "tcp", addr)
		})),
	}
	if encrypted {
		if cfg.TLS, err = o.tls(); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, what)
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		if errors.Is(err, rpctypes.ErrAuthFailed) {
			return nil, fault.WithHint(fault.Wrap(fault.Denied, err, what), "check the user and the password")
		}
		return nil, problem(what, err)
	}
	out := outside(c)
	out.forgets = true
	if o.Prefix != "" {
		c.KV = namespace.NewKV(c.KV, o.Prefix)
		c.Watcher = namespace.NewWatcher(c.Watcher, o.Prefix)
	}
	return out, nil
}

// signInWait bounds how long External waits for the first server. 5 s: etcd makes a guess at a password slow on purpose, about 0.1 s of a processor.
const signInWait = 5 * time.Second

// schemes says whether the endpoints speak TLS. fault.Denied for those that do not and are not on loopback.
func schemes(endpoints []string) (encrypted bool, err error) {
	seen := map[string]bool{}
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Port() == "" || (u.Path != "" && u.Path != "/") || (u.Scheme != "https" && u.Scheme != "http") {
			return false, fault.New(fault.Invalid, "external store: %q is not of the form https://host:port", e)
		}
		if u.Scheme == "http" {
			ip, err := netip.ParseAddr(u.Hostname())
			if (err != nil || !ip.IsLoopback()) && u.Hostname() != "localhost" {
				return false, fault.WithHint(fault.New(fault.Denied, "external store: %s would send everything unencrypted", e), "use https")
			}
		}
		seen[u.Scheme] = true
	}
	if len(seen) > 1 {
		return false, fault.New(fault.Invalid, "external store: all endpoints must be https, or all http on loopback")
	}
	return seen["https"], nil
}

// tls is the client's side. TLS 1.2 is the least, because an etcd of the user's may know no more.
func (o ExternalOptions) tls() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "external store: authorities")
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "external store: %s holds no certificate in PEM", o.CA)
		}
	}
	if o.Cert != "" {
		if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "external store: certificate")
		}
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
			return &pair, err
		}
	}
	return out, nil
}
