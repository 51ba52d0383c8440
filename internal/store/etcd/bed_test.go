package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.crt")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate for host, an IP, that serves and dials.
func (a *authority) issue(t testing.TB, name, host string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(host)}, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "machine.crt"), filepath.Join(dir, "machine.key")
	writePEM(t, cert, "CERTIFICATE", der)
	writePEM(t, key, "PRIVATE KEY", raw)
	return cert, key
}

// client is the TLS of somebody who dials with a certificate of a.
func (a *authority) client(t testing.TB, trusts *authority) *tls.Config {
	t.Helper()
	cert, key := a.issue(t, "client", "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(trusts.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// box is one machine whose member knows the others by TLS.
type box struct {
	t    testing.TB
	ca   *authority
	o    Options
	tls  PeerTLS
	node *Node
}

// newBox gives a machine that has not started.
func newBox(t testing.TB, ca *authority, name string) *box {
	t.Helper()
	b := &box{t: t, ca: ca}
	b.o = Options{Dir: filepath.Join(socketDir(t), name), Name: name, PeerAddr: freeAddrs(t, 1)[0], Log: loud(t), Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond}
	b.o.Socket = b.o.Dir + ".sock"
	b.tls.Cert, b.tls.Key = ca.issue(t, name, "127.0.0.1")
	b.tls.CA = ca.file
	t.Cleanup(b.halt)
	return b
}

// listen is what room trust does: TLS 1.3, and who dials shows a certificate of ours.
func (b *box) listen() net.Listener {
	b.t.Helper()
	pair, err := tls.LoadX509KeyPair(b.tls.Cert, b.tls.Key)
	if err != nil {
		b.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(b.ca.cert)
	ln, err := net.Listen("tcp", b.o.PeerAddr)
	if err != nil {
		b.t.Fatal(err)
	}
	return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13})
}

// try starts the member with a listener of its own.
func (b *box) try() error {
	b.t.Helper()
	o, p := b.o, b.tls
	p.Listener = b.listen()
	o.PeerTLS = &p
	n, err := Start(context.Background(), o)
	if err == nil {
		b.node = n
	}
	return err
}

func (b *box) start() {
	b.t.Helper()
	if err := b.try(); err != nil {
		b.t.Fatalf("start %s: %v", b.o.Name, err)
	}
}

func (b *box) ready() {
	b.t.Helper()
	if err := b.node.Ready(patient(b.t)); err != nil {
		b.t.Fatalf("%s: %v", b.o.Name, err)
	}
}

// found starts the first member.
func (b *box) found() {
	b.t.Helper()
	b.start()
	b.ready()
}

func (b *box) halt() {
	if b.node != nil {
		b.node.halt()
	}
}

// join has by add this machine's member as a learner, and starts it.
func (b *box) join(by *box) {
	b.t.Helper()
	var id uint64
	var all []Member
	again(b.t, func(ctx context.Context) (err error) {
		id, all, err = by.node.AddLearner(ctx, b.o.PeerAddr)
		return err
	})
	b.o.Existing, b.o.Peers = true, PeersOf(all, id, b.o.Name)
	b.start()
	b.ready()
	if b.node.MemberID() != id {
		b.t.Errorf("%s runs as %x, want %x", b.o.Name, b.node.MemberID(), id)
	}
}

// promote makes the machine's learner a voter as soon as it has caught up.
func (b *box) promote(by *box) {
	b.t.Helper()
	again(b.t, func(ctx context.Context) error { return by.node.Promote(ctx, b.node.MemberID()) })
	wait(b.t, b.o.Name+" votes", b.node.Votes)
}

// again calls until there is no error; only fault.Unavailable may be repeated.
func again(t testing.TB, call func(context.Context) error) {
	t.Helper()
	ctx := patient(t)
	for {
		err := call(ctx)
		if err == nil {
			return
		}
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			t.Fatal(err)
		}
		pause(ctx)
	}
}

// wait looks until ok says so: etcd tells nobody of what is waited for.
func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx := patient(t)
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("%s: it never was so", what)
		}
		pause(ctx)
	}
}

func pause(ctx context.Context) {
	tick := time.NewTimer(20 * time.Millisecond)
	defer tick.Stop()
	select {
	case <-tick.C:
	case <-ctx.Done():
	}
}

// client dials the members' sockets.
func client(t testing.TB, all ...*box) *Client {
	t.Helper()
	var ends []string
	for _, b := range all {
		ends = append(ends, b.o.Socket)
	}
	c, err := Dial(context.Background(), DialOptions{Endpoints: ends, Log: loud(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// write puts one key, as often as it takes.
func write(t testing.TB, kv store.KV, key, value string) (rev int64) {
	t.Helper()
	again(t, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		rev, _, err = kv.Commit(ctx, put(key, value))
		return err
	})
	return rev
}
