package etcd

import (
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"

	"flota/internal/fault"
)

// PeerTLS is how members know each other. All of it is needed. Cert, Key and CA are PEM files. Cert and Key are read anew for each connection; CA is read
// once, when the member starts, because etcd does: after a change of the authorities close the member and start it again.
type PeerTLS struct {
	Cert, Key string // what this member shows when it dials another
	CA        string // the authorities that another member's certificate, valid for its address, has to come from
	// Listener gives the connections of other members, whose certificates it has verified.
	Listener net.Listener
}

// apply has etcd dial as t says, and listen nowhere.
func (t *PeerTLS) apply(cfg *embed.Config) error {
	if t.Listener == nil || t.Cert == "" || t.Key == "" || t.CA == "" {
		return fault.New(fault.Invalid, "start the store: a certificate, its key, the authorities and a listener are needed for TLS")
	}
	cfg.ListenPeerUrls = nil
	cfg.TlsMinVersion = string(tlsutil.TLSVersion13) // embed puts it into PeerTLSInfo
	cfg.PeerTLSInfo = transport.TLSInfo{CertFile: t.Cert, KeyFile: t.Key, TrustedCAFile: t.CA, ClientCertAuth: true}
	return nil
}

// peerServer answers other members. It stands in for embed's own listeners.
type peerServer struct {
	http *http.Server
	done sync.WaitGroup
}

// Source of the 5 min: embed gives a peer that long for one request, which may be a snapshot of the whole database.
const peerRequestMax = 5 * time.Minute

// servePeers starts it; stopped by stop.
func servePeers(ln net.Listener, e *embed.Etcd) *peerServer {
	p := &peerServer{http: &http.Server{
		Handler:     etcdhttp.NewPeerHandler(e.GetLogger(), e.Server),
		ReadTimeout: peerRequestMax,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // what strangers do
	}}
	p.done.Go(func() { _ = p.http.Serve(peerListener{ln}) }) // its error only ever says that the listener was closed
	return p
}

// stop closes the listener and all connections.
func (p *peerServer) stop() {
	_ = p.http.Close()
	p.done.Wait()
}

// peerListener gives connections on which a write that gets nowhere ends, as rafthttp expects: the other member has stopped reading.
type peerListener struct{ net.Listener }

// Accept implements net.Listener.
func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	_ = Tune(c) // a connection that broke meanwhile shows with the first read
	return peerConn{c}, nil
}

type peerConn struct{ net.Conn }

// Write implements net.Conn.
func (c peerConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(rafthttp.ConnWriteTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// neverRan asks the running members whether the member that is to start without data has run before: it would have forgotten what it promised.
// fault.Conflict if so; nobody who answers is left for etcd to complain of.
func (o Options) neverRan(cfg *embed.Config) error {
	rt, err := rafthttp.NewRoundTripper(cfg.PeerTLSInfo, time.Second)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "start the store")
	}
	if t, ok := rt.(*http.Transport); ok {
		defer t.CloseIdleConnections()
	}
	var others []string
	own := cfg.AdvertisePeerUrls[0].String()
	for _, addr := range o.Peers {
		if u, err := peerURL(addr, o.PeerTLS != nil); err == nil && u.String() != own {
			others = append(others, u.String())
		}
	}
	cluster, err := etcdserver.GetClusterFromRemotePeers(zapOver(o.Log, newDoom()), others, rt)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "start the store: no other member answers")
	}
	for _, m := range cluster.Members() {
		if slices.Contains(m.PeerURLs, own) && m.Name != "" {
			return fault.WithHint(fault.New(fault.Conflict, "start the store: this machine's member %s has run before, but its data is gone from %s", m.ID, o.Dir),
				"the member has to be removed and added anew")
		}
	}
	return nil
}

// startKind classifies why etcd did not start.
func startKind(err error) fault.Kind {
	switch text := err.Error(); {
	case strings.Contains(text, "cannot fetch cluster info"):
		return fault.Unavailable
	case strings.Contains(text, "error validating peerURLs"), strings.Contains(text, "incompatible with current running cluster"):
		return fault.Conflict
	}
	return fault.Internal
}
