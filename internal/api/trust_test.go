package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/admit"
	"flota/internal/driver/fake"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
)

// house is a cluster of machines with certificates and TLS between them, over a store in memory; m1 founded it and is the one voter.
type house struct {
	t     *testing.T
	ctx   context.Context
	wg    *sync.WaitGroup
	mem   *mem.Mem
	st    *store.Store
	rooms []*room
}

// room is one machine of a house.
type room struct {
	id      *trust.Identity
	members *trust.Members
	srv     *Server
	desk    *admit.Desk
	addr    string
	stop    context.CancelFunc
	dir     string
}

// newHouse founds one.
func newHouse(t *testing.T) *house {
	t.Helper()
	m := mem.New()
	t.Cleanup(func() { _ = m.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	h := &house{t: t, ctx: ctx, wg: &sync.WaitGroup{}, mem: m, st: store.New(m)}
	t.Cleanup(func() { cancel(); h.wg.Wait() })
	dir := t.TempDir()
	i, err := trust.Found(trust.Options{Dir: dir}, h.subject(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.st.Voters.Put(ctx, string(idOf(1)), machine.Vote{Machine: idOf(1), Role: machine.Voter}, 0); err != nil {
		t.Fatal(err)
	}
	h.open(1, i, dir)
	if err := h.rooms[0].desk.Found(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

// subject is machine n's.
func (h *house) subject(n int) trust.Subject {
	return trust.Subject{ID: idOf(n), Name: fmt.Sprintf("m%d", n), IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
}

// open starts the API of machine n.
func (h *house) open(n int, i *trust.Identity, dir string) *room {
	h.t.Helper()
	r := &room{id: i, dir: dir, members: trust.NewMembers(trust.Options{Dir: dir})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	name := fmt.Sprintf("m%d", n)
	r.desk = admit.New(admit.Options{Store: h.st, Identity: i, ID: idOf(n), Name: name, Addrs: func() []string { return []string{r.addr} }})
	r.srv = New(Options{ID: idOf(n), Name: name, Version: "test", Store: h.st, Driver: fake.New(fake.Options{}), Desk: r.desk,
		Log: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return i.Dial(ctx, r.members, addr, "", trust.HTTP1)
		}})
	p := machine.Presence{ID: idOf(n), Name: name, Addr: "127.0.0.1", API: r.addr, Version: "test"}
	if err := h.st.Alive.Put(h.ctx, string(p.ID), p, 0); err != nil {
		h.t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(h.ctx)
	port := trust.Listen(l, trust.ListenOptions{Identity: i, Members: r.members, Kinds: []trust.Kind{trust.Machines, trust.Join, trust.Renew, trust.Plain}})
	h.wg.Go(func() { _ = port.Run(ctx) })
	h.wg.Go(func() { _ = r.members.Run(ctx, h.st) })
	for k, kind := range map[trust.Kind]Kind{trust.Machines: Machines, trust.Join: Joiners, trust.Renew: Renewers, trust.Plain: Plain} {
		h.wg.Go(func() { _ = r.srv.Serve(ctx, port.Of(k), kind) })
	}
	h.rooms = append(h.rooms, r)
	return r
}

// root asks machine n as root does on its socket.
func (h *house) root(n int, method, path, body string) (int, string) {
	w := ask(h.rooms[n-1].srv.Handler(Local), method, path, body)
	return w.Code, w.Body.String()
}

// socket gives a client of machine n as root on it has one.
func (h *house) socket(n int) *Client {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.wg.Go(func() { _ = h.rooms[n-1].srv.Serve(h.ctx, l, Local) })
	c, err := NewClient([]string{"http://" + l.Addr().String()}, ClientOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// token makes a join token at machine n.
func (h *house) token(n int) admit.Created {
	h.t.Helper()
	w := ask(h.rooms[n-1].srv.Handler(Local), "POST", "/v1/tokens", `{"uses":9}`)
	if w.Code != http.StatusCreated {
		h.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return decode[admit.Created](h.t, w.Body)
}

// join lets machine n in by the machine at addr.
func (h *house) join(n int, tok admit.Created, addr string) *room {
	h.t.Helper()
	o := trust.Options{Dir: h.t.TempDir()}
	a, err := h.ask(n, o, tok, addr, tok.CAHash)
	if err != nil {
		h.t.Fatal(err)
	}
	i, err := trust.Install(o, a.Grant)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.open(n, i, o.Dir)
}

// ask sends machine n's join request.
func (h *house) ask(n int, o trust.Options, tok admit.Created, addr, hash string) (admit.JoinAnswer, error) {
	s := h.subject(n)
	csr, err := trust.Request(o, s)
	if err != nil {
		h.t.Fatal(err)
	}
	cfg, err := trust.JoinConfig(hash, "127.0.0.1", o)
	if err != nil {
		h.t.Fatal(err)
	}
	return Join(h.ctx, addr, cfg, admit.JoinRequest{Token: tok.Text, ID: s.ID, Name: s.Name, Addr: "127.0.0.1", Clock: time.Now(), CSR: csr})
}

// client speaks as machine n to the one at addr.
func (h *house) client(n int, addr string) *Client {
	h.t.Helper()
	r := h.rooms[n-1]
	c, err := NewClient([]string{"https://" + addr}, ClientOptions{TLS: r.id.Client(r.members, "", trust.HTTP1)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// A machine joins by a machine that holds no authority's key, which passes the request on; then it speaks to all.
func TestJoinOverTheWire(t *testing.T) {
	h := newHouse(t)
	h.join(2, h.token(1), h.rooms[0].addr)
	tok := h.token(2) // any machine makes tokens
	if !strings.Contains(tok.Command, h.rooms[1].addr) || !strings.Contains(tok.Command, h.rooms[0].addr) {
		t.Errorf("command %q", tok.Command)
	}
	three := h.join(3, tok, h.rooms[1].addr)
	ms, err := h.client(3, h.rooms[0].addr).Machines(t.Context())
	if err != nil || len(ms) != 3 || !ms[0].Voter || ms[1].Voter {
		t.Errorf("%+v, %v", ms, err)
	}
	i, err := h.client(3, h.rooms[1].addr).Cluster(t.Context())
	if err != nil || i.ID != three.id.Cluster() || i.CAHash != tok.CAHash || len(i.Voters) != 1 || i.Voters[0] != h.rooms[0].addr {
		t.Errorf("%+v, %v", i, err)
	}
	o := trust.Options{Dir: t.TempDir()}
	bad := tok
	bad.Text = tok.Text[:len(tok.Text)-2] + "zz"
	if _, err := h.ask(4, o, bad, h.rooms[0].addr, tok.CAHash); !fault.Is(err, fault.Denied) || fault.Hint(err) == "" {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := h.ask(4, o, tok, h.rooms[0].addr, "sha256:"+strings.Repeat("0", 64)); !fault.Is(err, fault.Denied) || fault.Hint(err) == "" {
		t.Errorf("a wrong hash: %v", err)
	}
}

func TestRenewalOverTheWire(t *testing.T) {
	h := newHouse(t)
	two := h.join(2, h.token(1), h.rooms[0].addr)
	three := h.join(3, h.token(1), h.rooms[0].addr)
	before := three.id.Expires()
	err := three.id.Renew(t.Context(), func(ctx context.Context, csr []byte) (trust.Grant, error) {
		return RenewCertificate(ctx, two.addr, three.id.Client(three.members, "", trust.RenewProtocol), csr)
	})
	if err != nil || three.id.Expires().Before(before) {
		t.Errorf("by a client machine: %v", err)
	}
	if err := two.id.Renew(t.Context(), h.client(3, two.addr).Renew); err == nil { // not its own
		t.Error("a machine got the certificate of another over its own connection")
	}
	if _, err := h.client(2, h.rooms[0].addr).Authority(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("the key for a client machine: %v", err)
	}
	if err := h.st.Voters.Put(t.Context(), string(idOf(2)), machine.Vote{Machine: idOf(2), Role: machine.Learner}, 0); err != nil {
		t.Fatal(err)
	}
	keys, err := h.client(2, h.rooms[0].addr).Authority(t.Context())
	if err == nil {
		err = two.id.KeepAuthority(keys)
	}
	if err != nil || !two.desk.Holds() {
		t.Error(err)
	}
}

// What each kind of connection may ask for.
func TestWhoMayAskForWhat(t *testing.T) {
	h := newHouse(t)
	h.join(2, h.token(1), h.rooms[0].addr)
	addr := h.rooms[0].addr
	over := func(cfg *tls.Config) func(method, path string) int {
		tr := &http.Transport{TLSClientConfig: cfg}
		t.Cleanup(tr.CloseIdleConnections)
		return func(method, path string) int {
			scheme := "https://"
			if cfg == nil {
				scheme = "http://"
			}
			req, _ := http.NewRequestWithContext(t.Context(), method, scheme+addr+path, strings.NewReader("{}"))
			req.Header.Set("Content-Type", "application/json")
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return 0
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp.StatusCode
		}
	}
	join, err := trust.JoinConfig(h.rooms[0].id.CAHash(), "127.0.0.1", trust.Options{})
	if err != nil {
		t.Fatal(err)
	}
	two := h.rooms[1]
	for name, c := range map[string]struct {
		ask  func(string, string) int
		want map[string]int
	}{
		"plain":    {over(nil), map[string]int{"GET /v1/units": 200, "POST /v1/join": 403, "GET /v1/store": 403, "GET /v1/tokens": 403, "GET /v1/cluster": 403}},
		"machine":  {over(two.id.Client(two.members, "", trust.HTTP1)), map[string]int{"GET /v1/units": 200, "GET /v1/store": 426, "GET /v1/tokens": 403, "GET /v1/cluster": 200, "POST /v1/leave": 403, "POST /v1/join": 403}},
		"joiner":   {over(join), map[string]int{"POST /v1/join": 403, "GET /v1/units": 404, "GET /v1/health": 404, "POST /v1/trust/renew": 404, "GET /metrics": 404, "GET /fleet/v1/units": 404}},
		"renewer":  {over(two.id.Client(two.members, "", trust.RenewProtocol)), map[string]int{"POST /v1/trust/renew": 400, "POST /v1/join": 404, "GET /v1/units": 404, "GET /v1/trust/authority": 404}},
		"stranger": {over(&tls.Config{InsecureSkipVerify: true}), map[string]int{"GET /v1/health": 0, "POST /v1/join": 0}},
	} {
		for what, want := range c.want {
			method, path, _ := strings.Cut(what, " ")
			if got := c.ask(method, path); got != want {
				t.Errorf("%s: %s: %d, want %d", name, what, got, want)
			}
		}
	}
	req := []string{forwardedHeader, "m2", rootHeader, "true"}
	if w := ask(h.rooms[0].srv.Handler(Plain), "GET", "/v1/tokens", "", req...); w.Code != http.StatusForbidden {
		t.Errorf("anybody is root by a header: %d", w.Code)
	}
	if w := ask(h.rooms[0].srv.Handler(Machines), "GET", "/v1/tokens", "", req...); w.Code != http.StatusOK {
		t.Errorf("root's request that a machine passes on: %d", w.Code)
	}
}

func TestRemoveOverTheWire(t *testing.T) {
	h := newHouse(t)
	two := h.join(2, h.token(1), h.rooms[0].addr)
	c := h.client(1, h.rooms[0].addr)
	mine := h.client(2, h.rooms[0].addr)
	if _, err := mine.Machines(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveMachine(t.Context(), "m9", Remove{}, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("none: %v", err)
	}
	var mu sync.Mutex
	var steps []string
	done := make(chan error, 1)
	go func() {
		done <- c.RemoveMachine(h.ctx, "m2", Remove{Reason: "sold"}, func(s string) {
			mu.Lock()
			defer mu.Unlock()
			steps = append(steps, s)
		})
	}()
	until(t, "it is shut out", func() bool {
		_, err := mine.Machines(t.Context())
		return err != nil
	})
	two.stop()
	if _, err := h.st.Alive.Delete(t.Context(), string(idOf(2))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || len(steps) != 2 {
		t.Errorf("%q, %v", steps, err)
	}
	if _, err := c.Machine(t.Context(), "m2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after that: %v", err)
	}
	if code, text := h.root(1, "POST", "/v1/leave", "{}"); !strings.Contains(text, "only machine") {
		t.Errorf("the last machine leaves: %d %s", code, text)
	}
}

func TestRecoverOverTheWire(t *testing.T) {
	h := newHouse(t)
	h.rooms[0].srv.Recover = func(_ context.Context, _ Recover, tell func(string)) error {
		tell("alone now")
		return nil
	}
	if code, text := h.root(1, "POST", "/v1/recover", "{}"); code != 200 || !strings.Contains(text, "alone now") {
		t.Errorf("%d %q", code, text)
	}
	if code, text := h.root(1, "POST", "/v1/recover", `{"force":true}`); code != 400 {
		t.Errorf("%d %q", code, text)
	}
}

func TestRotateOverTheWire(t *testing.T) {
	h := newHouse(t)
	s := h.rooms[0].srv
	s.Certificate = h.rooms[0].id.Valid
	c := h.socket(1)
	tr, err := c.RotateTrust(t.Context())
	if err != nil || tr.Rotation != trust.Spread || len(tr.Authorities) != 2 {
		t.Errorf("%+v, %v", tr, err)
	}
	now, err := c.Trust(t.Context())
	made, ends := h.rooms[0].id.Valid()
	if want := (Certificate{Machine: "m1", Made: made, Ends: ends}); err != nil || now.Rotation != trust.Spread || now.Certificate == nil || *now.Certificate != want {
		t.Errorf("%+v, %v", now, err)
	}
	if _, err := c.RotateTrust(t.Context()); !fault.Is(err, fault.Conflict) {
		t.Errorf("again: %v", err)
	}
	if err := c.RevokeToken(t.Context(), "0123456789"); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such token: %v", err)
	}
}
