package trust

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// TestWhoIsLetIn walks the kinds of connections with every kind of caller.
func TestWhoIsLetIn(t *testing.T) {
	m1 := found(t, Options{})
	m2, gone := join(t, m1, "m2", Options{}), join(t, m1, "gone", Options{})
	other := found(t, Options{})
	ended := time.Now().Add(-10 * 24 * time.Hour)
	late := join(t, m1, "late", Options{})
	expireTo(t, m1, late, ended)
	m := members(t, m1, m2, late)
	if err := m.Live(table(m1, m2, late), map[machine.ID]time.Time{gone.ID(): time.Now()}); err != nil {
		t.Fatal(err)
	}
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: m})
	for k, says := range map[Kind]string{Machines: "machines", Join: "join", Renew: "renew", Plain: "plain"} {
		echo(t, l, k, says)
	}
	mine := members(t, m1, m2, late, gone)
	no := func(c *tls.Config) *tls.Config { // shows no certificate
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		return c
	}
	blind := func(c *tls.Config) *tls.Config { // does not care who answers
		c.VerifyConnection = nil
		return c
	}
	old := func(c *tls.Config) *tls.Config {
		c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		return c
	}
	joiner, err := JoinConfig(m1.CAHash(), "127.0.0.1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		want   string // "" for nothing
	}{
		{"a member", m2.Client(mine, m1.ID()), "machines:hello"},
		{"a member, HTTP/1.1", m2.Client(mine, "", HTTP1), "machines:hello"},
		{"a member, HTTP/2", m2.Client(mine, "", HTTP2), "machines:hello"},
		{"a member renews", m2.Client(mine, "", RenewProtocol), "renew:hello"},
		{"a joiner", joiner, "join:hello"},
		{"a stranger without certificate", no(m2.Client(mine, "")), ""},
		{"a stranger renews without certificate", no(m2.Client(mine, "", RenewProtocol)), ""},
		{"another cluster", blind(other.Client(mine, "")), ""},
		{"another cluster renews", blind(other.Client(mine, "", RenewProtocol)), ""},
		{"a removed machine", gone.Client(mine, ""), ""},
		{"a removed machine renews", gone.Client(mine, "", RenewProtocol), ""},
		{"an expired leaf", late.Client(mine, ""), ""},
		{"an expired leaf, HTTP/1.1", late.Client(mine, "", HTTP1), ""},
		{"an expired leaf renews", late.Client(mine, "", RenewProtocol), "renew:hello"},
		{"TLS 1.2", old(m2.Client(mine, "")), ""},
		{"an unknown protocol", m2.Client(mine, "", "smtp"), ""},
		{"join among others", m2.Client(mine, "", JoinProtocol, HTTP1), ""},
		{"renewal among others", late.Client(mine, "", HTTP1, RenewProtocol), ""},
	} {
		got, err := ask(addr, c.config)
		if got != c.want {
			t.Errorf("%s: got %q, want %q (%v)", c.name, got, c.want, err)
		}
		if c.want == "" && err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}

// expireTo gives i a leaf that ended at end.
func expireTo(t *testing.T, by, i *Identity, end time.Time) {
	t.Helper()
	a, err := by.Authority()
	if err != nil {
		t.Fatal(err)
	}
	s := i.now.Load().subject
	csr, err := s.request(i.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(csr, s, time.Hour, end.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.disk.path(leafFile), cert, 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := Open(i.o) // an expired identity opens
	if err != nil {
		t.Fatal(err)
	}
	i.now.Store(again.now.Load())
}

// TestBackAfterItsLife: a machine whose certificate ended gets another over the wire, and is let in with it.
func TestBackAfterItsLife(t *testing.T) {
	m1 := found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	expireTo(t, m1, m2, time.Now().Add(-40*24*time.Hour))
	server, mine := members(t, m1, m2), NewMembers(Options{Dir: t.TempDir()}) // m2 has not reached the store
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: server})
	echo(t, l, Machines, "x")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Of(Renew).Accept()
			if err != nil {
				return
			}
			csr, err := io.ReadAll(c)
			p, ok := PeerOf(c)
			if s, key, bad := ReadRequest(csr); err == nil && bad == nil && ok && p.ID == s.ID && p.Key == key && server.Check(p.ID, p.Key) == nil {
				if g, err := tryGrant(m1, csr); err == nil {
					_ = json.NewEncoder(c).Encode(g)
				}
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Of(Renew).Close(); <-done })
	err := m2.Renew(t.Context(), func(ctx context.Context, csr []byte) (g Grant, err error) {
		c, err := m2.Dial(ctx, mine, addr, "", RenewProtocol)
		if err != nil {
			return g, err
		}
		defer c.Close()
		if _, err = c.Write(csr); err == nil {
			err = c.(interface{ CloseWrite() error }).CloseWrite()
		}
		return g, errors.Join(err, json.NewDecoder(c).Decode(&g))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(addr, m2.Client(mine, m1.ID(), HTTP1)); got != "x:hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestPlain: HTTP without TLS works on loopback, and gets nothing elsewhere.
func TestPlain(t *testing.T) {
	m1 := found(t, Options{})
	m := members(t, m1)
	serve := func(off bool, kinds ...Kind) string {
		l, addr := open(t, off, ListenOptions{Identity: m1, Members: m, Kinds: kinds})
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p, ok := PeerOfRequest(r); ok {
				t.Errorf("a plain request has a peer: %+v", p)
			}
			fmt.Fprint(w, "fine")
		}), ConnContext: ConnContext}
		run(t, func(ctx context.Context) error {
			defer context.AfterFunc(ctx, func() { srv.Close() })()
			if err := srv.Serve(l.Of(Plain)); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		return addr
	}
	get := func(addr string) (string, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			return "", err
		}
		b, err := io.ReadAll(c)
		return string(b), err
	}
	if got, err := get(serve(false, Machines, Plain)); !strings.HasSuffix(got, "fine") {
		t.Errorf("loopback: %q, %v", got, err)
	}
	for name, addr := range map[string]string{"elsewhere": serve(true, Machines, Plain), "not wanted": serve(false, Machines)} {
		if got, _ := get(addr); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestHTTPServer: package net/http serves what comes out as its own, with the peer, over both protocols.
func TestHTTPServer(t *testing.T) {
	m1 := found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	m := members(t, m1, m2)
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: m})
	srv := &http.Server{ReadHeaderTimeout: 200 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := PeerOfRequest(r)
		fmt.Fprint(w, r.Proto, " ", p.Name, " ", ok)
	})}
	run(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { srv.Close() })()
		_ = srv.Serve(l.Of(Machines))
		return nil
	})
	for proto, alpn := range map[string][]string{"HTTP/1.1": {HTTP1}, "HTTP/2.0": {HTTP2, HTTP1}} {
		tr := &http.Transport{TLSClientConfig: m2.Client(m, m1.ID(), alpn...), ForceAttemptHTTP2: len(alpn) == 2}
		res, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Get("https://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		tr.CloseIdleConnections()
		if got := string(b); got != proto+" m2 true" {
			t.Errorf("%q, %v", got, err)
		}
	}
	c, err := m2.Dial(t.Context(), m, addr, m1.ID(), HTTP1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p, ok := PeerOf(c); !ok || p.ID != m1.ID() || p.Key != m1.KeyHash() {
		t.Errorf("peer %+v", p)
	}
	if _, err := io.WriteString(c, "GET / HT"); err != nil { // and nothing more: a slow client is the server's to end
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || strings.Contains(string(b), "m2") {
		t.Errorf("a request that never ends got %q, %v", b, err)
	}
}

// TestRemovalCutsOpenConnections on both sides.
func TestRemovalCutsOpenConnections(t *testing.T) {
	m1 := found(t, Options{})
	m2, m3 := join(t, m1, "m2", Options{}), join(t, m1, "m3", Options{})
	server, client := members(t, m1, m2, m3), members(t, m1, m2, m3)
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: server})
	echo(t, l, Machines, "x")
	dial := func(i *Identity, m *Members) net.Conn {
		c, err := i.Dial(t.Context(), m, addr, m1.ID(), HTTP1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if got, err := talk(c); got != "x:hello" {
			t.Fatal(got, err)
		}
		return c
	}
	c2, c3 := dial(m2, client), dial(m3, client)
	if err := server.Live(table(m1, m3), map[machine.ID]time.Time{m2.ID(): time.Now()}); err != nil {
		t.Fatal(err)
	}
	if n, err := c2.Read(make([]byte, 1)); err == nil {
		t.Errorf("the removed machine's connection goes on: %d", n)
	}
	if got, err := talk(c3); got != "x:hello" {
		t.Errorf("another machine's connection: %q, %v", got, err)
	}
	for range 20 { // the verdict comes with the first answer, though something was sent before
		c, err := m2.Dial(t.Context(), client, addr, "", HTTP1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := talk(c); !fault.Is(err, fault.Unavailable) || fault.Hint(err) == "" {
			t.Errorf("the removed machine got %q, %v", got, err)
		}
		c.Close()
	}
	if !m2.unwanted() {
		t.Error("a machine whose certificate is refused does not ask for another")
	}
	if err := client.Live(table(m2, m3), map[machine.ID]time.Time{m1.ID(): time.Now()}); err != nil { // now the dialled side
		t.Fatal(err)
	}
	if _, err := c3.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to a removed machine goes on")
	}
	if _, err := m3.Dial(t.Context(), client, addr, "", HTTP1); !fault.Is(err, fault.Denied) {
		t.Errorf("dial a removed machine: %v", err)
	}
}

// TestWantsItsMachine: who answers has to be the machine that was asked for, and of this cluster.
func TestWantsItsMachine(t *testing.T) {
	m1 := found(t, Options{})
	m2, other := join(t, m1, "m2", Options{}), found(t, Options{})
	m := members(t, m1, m2)
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: m})
	echo(t, l, Machines, "x")
	if _, err := m2.Dial(t.Context(), m, addr, idOf("m3"), HTTP1); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "was expected") {
		t.Errorf("m1 passes for m3: %v", err)
	}
	if _, err := other.Dial(t.Context(), m, addr, "", HTTP1); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("m1 passes for another cluster's: %v", err)
	}
	if _, err := m2.Dial(t.Context(), m, addr, m1.ID(), "smtp"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a protocol that is not there: %v", err)
	}
	l.Close()
	if _, err := m2.Dial(t.Context(), m, addr, m1.ID(), HTTP1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestJoinConfig(t *testing.T) {
	m1, other := found(t, Options{}), found(t, Options{})
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: members(t, m1)})
	echo(t, l, Join, "join")
	late := func() time.Time { return time.Now().Add(9 * 24 * time.Hour) }
	for _, c := range []struct {
		name, hash, host, want string
		now                    func() time.Time
	}{
		{"right", m1.CAHash(), "127.0.0.1", "", nil},
		{"without the mark", strings.TrimPrefix(m1.CAHash(), "sha256:"), "127.0.0.1", "", nil},
		{"another cluster's hash", other.CAHash(), "127.0.0.1", "does not belong", nil},
		{"the leaf's own hash", m1.KeyHash(), "127.0.0.1", "does not belong", nil},
		{"another address", m1.CAHash(), "127.0.0.9", "127.0.0.9", nil},
		{"a wrong clock", m1.CAHash(), "127.0.0.1", "valid from", late},
	} {
		cfg, err := JoinConfig(c.hash, c.host, Options{Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(addr, cfg)
		if c.want == "" && got != "join:hello" {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if c.want != "" && (!fault.Is(err, fault.Denied) || fault.Hint(err) == "" || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	for _, bad := range [][2]string{{"", "127.0.0.1"}, {"sha256:12", "127.0.0.1"}, {m1.CAHash() + "00", "127.0.0.1"}, {m1.CAHash(), "m1"}} {
		if _, err := JoinConfig(bad[0], bad[1], Options{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// pipes is a listener in memory.
type pipes struct {
	elsewhere
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

// from is a connection that says where it comes from.
type from struct {
	net.Conn
	ip string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 1} }

// TestSlowHandshakes: whoever says nothing, or little, is cut off after 5 s, and no more than the allowed number are listened to; one address
// cannot take all places.
func TestSlowHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m1 := found(t, Options{})
		m2 := join(t, m1, "m2", Options{})
		m := members(t, m1, m2)
		p := pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		l := Listen(p, ListenOptions{Identity: m1, Members: m, Kinds: []Kind{Machines}, Handshakes: 8})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		enter := func(ip string) net.Conn {
			a, b := net.Pipe()
			p.conns <- from{b, ip}
			return a
		}
		began := time.Now()
		var silent []net.Conn
		for n := range 8 { // two of one address are a quarter
			silent = append(silent, enter(fmt.Sprintf("192.0.2.%d", n/2)))
		}
		if _, err := silent[0].Write([]byte{handshakeByte, 3, 1}); err != nil { // slowloris: half a record, and no more
			t.Error(err)
		}
		good := make(chan error)
		go func() {
			_, err := m2.Secure(ctx, enter("192.0.2.200"), m, m1.ID(), HTTP1) // waits for a place
			good <- err
		}()
		c, err := l.Of(Machines).Accept()
		if err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("a machine gets in after %s, %v", time.Since(began), err)
		}
		if err := <-good; err != nil {
			t.Error(err)
		}
		c.Close()
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a silent connection ends with %v", err)
			}
		}
		began = time.Now()
		a, b := enter("192.0.2.1"), enter("192.0.2.1")
		synctest.Wait()
		third := enter("192.0.2.1")
		if _, err := third.Read(make([]byte, 1)); err != io.EOF || time.Since(began) > 0 {
			t.Errorf("a third connection of one address ends with %v after %s", err, time.Since(began))
		}
		cancel()
		for _, c := range []net.Conn{a, b} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF || time.Since(began) > 0 {
				t.Errorf("at the end of Run: %v after %s", err, time.Since(began))
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := l.Of(Machines).Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after the end: %v", err)
		}
	})
}

// TestNobodyAccepts: connections of a kind that nobody accepts are bounded, closed at the end, and hold up no other kind.
func TestNobodyAccepts(t *testing.T) {
	m1 := found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	m := members(t, m1, m2)
	l, addr := open(t, false, ListenOptions{Identity: m1, Members: m})
	echo(t, l, Machines, "x")
	var open []net.Conn
	for range queued + 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET")); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	closed := make(chan struct{}, len(open))
	for _, c := range open {
		go func() {
			_, _ = c.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	for range 3 {
		<-closed
	}
	if got, err := ask(addr, m2.Client(m, "")); got != "x:hello" {
		t.Errorf("another kind: %q, %v", got, err)
	}
	l.Of(Plain).Close()
	for range queued {
		<-closed
	}
}
