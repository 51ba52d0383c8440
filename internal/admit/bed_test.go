package admit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
	"flota/internal/unit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a cluster of one founded machine, m1, over a store in memory.
type bed struct {
	t    *testing.T
	mem  *mem.Mem
	st   *store.Store
	desk *Desk
	kv   *mem.Faulty // the desk's way to the store

	made time.Time // when it was

	mu  sync.Mutex // guards the field below
	now time.Time  // what the clock showed then, and what was added since
}

// idOf gives machine n an ID.
func idOf(n int) machine.ID { return machine.ID(fmt.Sprintf("%04x%s", n, strings.Repeat("0", 28))) }

// newBed makes one.
func newBed(t *testing.T) *bed {
	t.Helper()
	m := mem.New()
	t.Cleanup(func() { _ = m.Close() })
	b := &bed{t: t, mem: m, st: store.New(m), made: time.Now(), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	b.kv = m.Client()
	t.Cleanup(func() { _ = b.kv.Close() })
	i, err := trust.Found(trust.Options{Dir: t.TempDir(), Now: b.clock}, trust.Subject{ID: idOf(1), Name: "m1", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	b.desk = b.newDesk(i, b.kv, 1)
	if err := b.desk.Found(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.alive(1)
	b.vote(1, machine.Voter)
	return b
}

// newDesk gives machine n a desk.
func (b *bed) newDesk(i *trust.Identity, kv store.KV, n int) *Desk {
	return New(Options{Store: store.New(kv), Identity: i, ID: idOf(n), Name: fmt.Sprintf("m%d", n), Now: b.clock,
		Addrs: func() []string { return []string{fmt.Sprintf("10.0.0.%d:7700", n)} }})
}

// clock is the bed's.
func (b *bed) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now.Add(time.Since(b.made))
}

// pass lets time pass.
func (b *bed) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// alive makes machine n show signs of life.
func (b *bed) alive(n int) {
	b.t.Helper()
	p := machine.Presence{ID: idOf(n), Name: fmt.Sprintf("m%d", n), API: fmt.Sprintf("10.0.0.%d:7700", n)}
	if err := b.st.Alive.Put(b.t.Context(), string(p.ID), p, 0); err != nil {
		b.t.Fatal(err)
	}
}

// dead makes machine n show none.
func (b *bed) dead(n int) {
	b.t.Helper()
	if _, err := b.st.Alive.Delete(b.t.Context(), string(idOf(n))); err != nil {
		b.t.Fatal(err)
	}
}

// vote gives machine n a role, as the steward does.
func (b *bed) vote(n int, r machine.Role) {
	b.t.Helper()
	err := b.st.Voters.Put(b.t.Context(), string(idOf(n)), machine.Vote{Machine: idOf(n), Role: r}, 0)
	if err != nil {
		b.t.Fatal(err)
	}
}

// place puts a unit on machine n, as the leader does.
func (b *bed) place(n int, name unit.Name) {
	b.t.Helper()
	p := unit.Place{Machine: idOf(n), Unit: unit.Unit{Name: name}}
	if err := b.st.Places.Put(b.t.Context(), store.PlaceKey(idOf(n), name), p, 0); err != nil {
		b.t.Fatal(err)
	}
}

// token makes a join token.
func (b *bed) token(n NewToken) Created {
	b.t.Helper()
	c, err := b.desk.CreateToken(b.t.Context(), n)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// joiner is a machine that is not in yet.
type joiner struct {
	q JoinRequest
	o trust.Options
}

// joiner makes machine n ask with a token.
func (b *bed) joiner(n int, tok string) *joiner {
	b.t.Helper()
	j := &joiner{o: trust.Options{Dir: b.t.TempDir(), Now: b.clock}}
	j.q = JoinRequest{Token: tok, ID: idOf(n), Name: fmt.Sprintf("m%d", n), Addr: fmt.Sprintf("10.0.%d.%d", n/250, n%250+1), Clock: b.clock()}
	j.sign(b.t)
	return j
}

// sign makes the request for the certificate anew.
func (j *joiner) sign(t *testing.T) {
	t.Helper()
	var err error
	s := trust.Subject{ID: j.q.ID, Name: j.q.Name, IPs: []netip.Addr{netip.MustParseAddr(j.q.Addr)}}
	if j.q.CSR, err = trust.Request(j.o, s); err != nil {
		t.Fatal(err)
	}
}

// in lets the machine in at a desk and gives it its identity.
func (b *bed) in(d *Desk, j *joiner) *trust.Identity {
	b.t.Helper()
	a, err := d.Admit(b.t.Context(), j.q)
	if err != nil {
		b.t.Fatal(err)
	}
	i, err := trust.Install(j.o, a.Grant)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// refused wants an error of a kind with a hint, whose message has text in it.
func refused(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if !fault.Is(err, kind) || fault.Hint(err) == "" || !strings.Contains(err.Error(), text) {
		t.Errorf("%v (%q, hint %q), want %q with a hint and %q", err, fault.KindOf(err), fault.Hint(err), kind, text)
	}
}

// background runs f until the test ends.
func background(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// until waits for what f says, at most 10 s.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	limit, tick := time.NewTimer(10*time.Second), time.NewTicker(2*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
