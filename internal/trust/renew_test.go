package trust

import (
	"context"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
)

// cluster is a founder that answers renewals, or not.
type cluster struct {
	*Identity
	asked atomic.Int64
	err   atomic.Pointer[error] // nil: it answers
	slow  time.Duration
}

// answer is the Ask of the cluster's machines.
func (c *cluster) answer(ctx context.Context, csr []byte) (Grant, error) {
	c.asked.Add(1)
	select {
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	case <-time.After(c.slow):
	}
	if err := c.err.Load(); err != nil {
		return Grant{}, *err
	}
	return tryGrant(c.Identity, csr)
}

// fail makes it refuse with err; nil makes it answer again.
func (c *cluster) fail(err error) {
	if err == nil {
		c.err.Store(nil)
		return
	}
	c.err.Store(&err)
}

// renewing runs f with a cluster and a machine of it on virtual time; the machine's Run ends after f.
func renewing(t *testing.T, life time.Duration, f func(t *testing.T, c *cluster, i *Identity, start func() (stop func()))) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Identity: found(t, Options{Life: life})}
		i := join(t, c.Identity, "m2", Options{Life: life})
		f(t, c, i, func() func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- i.Run(ctx, c.answer) }()
			synctest.Wait()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	})
}

func TestRenewsAtHalfLife(t *testing.T) {
	renewing(t, 0, func(t *testing.T, c *cluster, i *Identity, start func() func()) {
		defer start()()
		time.Sleep(Life * 44 / 100)
		if n := c.asked.Load(); n != 0 {
			t.Errorf("%d renewals too early", n)
		}
		time.Sleep(Life*6/100 + lookEvery)
		if n, left := c.asked.Load(), time.Until(i.Expires()); n != 1 || left < Life*94/100 {
			t.Errorf("%d renewals, %s left", n, left)
		}
		time.Sleep(4 * Life)
		if n := c.asked.Load(); n < 8 || n > 10 {
			t.Errorf("%d renewals in four and a half lives", n)
		}
		if j, err := Open(i.o); err != nil || !j.Expires().Equal(i.Expires()) {
			t.Errorf("on disk until %s, %v", j.Expires(), err)
		}
	})
}

// TestShortLife: 30 s, as the hidden flag for tests sets it, with a cluster that takes its time; never less than a third is left.
func TestShortLife(t *testing.T) {
	const life = 30 * time.Second
	renewing(t, life, func(t *testing.T, c *cluster, i *Identity, start func() func()) {
		c.slow = 2 * time.Second
		defer start()()
		for range 600 {
			time.Sleep(time.Second / 2)
			if left := time.Until(i.Expires()); left < life/3 {
				t.Fatalf("%s left", left)
			}
		}
	})
}

func TestRenewalIsTriedAgain(t *testing.T) {
	renewing(t, 0, func(t *testing.T, c *cluster, i *Identity, start func() func()) {
		c.fail(fault.New(fault.Unavailable, "no quorum"))
		defer start()()
		time.Sleep(Life + time.Hour)
		if time.Until(i.Expires()) > 0 {
			t.Fatal("renewed by nobody")
		}
		if n, most := c.asked.Load(), int64(Life/2/retryLast); n < most || n > most*5/4 {
			t.Errorf("asked %d times", n)
		}
		c.fail(nil)
		time.Sleep(retryLast + time.Second)
		if left := time.Until(i.Expires()); left < Life-retryLast-time.Second {
			t.Errorf("%s left", left)
		}
	})
}

// TestOffForLongerThanItsLife: the machine renews first thing when it is back.
func TestOffForLongerThanItsLife(t *testing.T) {
	renewing(t, 0, func(t *testing.T, c *cluster, i *Identity, start func() func()) {
		time.Sleep(3 * Life)
		stop := start()
		if n := c.asked.Load(); n != 1 || time.Until(i.Expires()) != Life {
			t.Errorf("%d renewals, %s left", n, time.Until(i.Expires()))
		}
		stop()
		start()() // begun again within a minute: it is fresh
		if n := c.asked.Load(); n != 1 {
			t.Errorf("%d renewals", n)
		}
	})
}

// TestVoterRenewsByItself when nobody else is there: all voters were off.
func TestVoterRenewsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := found(t, Options{})
		time.Sleep(2 * Life)
		if err := i.Renew(t.Context(), i.Self); err != nil || time.Until(i.Expires()) != Life {
			t.Errorf("%s left, %v", time.Until(i.Expires()), err)
		}
		m2 := join(t, i, "m2", Options{})
		if err := m2.Renew(t.Context(), m2.Self); !fault.Is(err, fault.NotFound) {
			t.Errorf("a client renews by itself: %v", err)
		}
		if err := m2.Renew(t.Context(), i.Self); !fault.Is(err, fault.Denied) {
			t.Errorf("a voter grants another machine's certificate to itself: %v", err)
		}
	})
}

func TestOrSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Identity: found(t, Options{})}
		v := c.Identity
		client := join(t, v, "m2", Options{})
		c.fail(fault.New(fault.Unavailable, "no quorum"))
		if err := v.Renew(t.Context(), v.OrSelf(c.answer)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("with much time left: %v", err)
		}
		time.Sleep(Life * 95 / 100)
		c.fail(fault.New(fault.Denied, "removed"))
		if err := v.Renew(t.Context(), v.OrSelf(c.answer)); !fault.Is(err, fault.Denied) {
			t.Errorf("denied: %v", err)
		}
		c.fail(nil)
		c.slow = time.Hour
		began := time.Now()
		if err := v.Renew(t.Context(), v.OrSelf(c.answer)); err != nil || time.Since(began) != selfAfter || time.Until(v.Expires()) != Life {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if err := client.Renew(t.Context(), client.OrSelf(c.answer)); !fault.Is(err, fault.TimedOut) {
			t.Errorf("without the key: %v", err)
		}
	})
}

func TestRenewsWhatIsNotWanted(t *testing.T) {
	renewing(t, 0, func(t *testing.T, c *cluster, i *Identity, start func() func()) {
		defer start()()
		wants := func(what string, n int64) {
			t.Helper()
			synctest.Wait()
			if got := c.asked.Load(); got != n {
				t.Errorf("%s: asked %d times, want %d", what, got, n)
			}
		}
		i.Wake()
		i.Wake()
		wants("woken twice", 1)
		time.Sleep(wakeEvery)
		i.Wake()
		wants("woken a minute later", 2)
		ips := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
		if err := i.Describe("m2", ips); err != nil {
			t.Fatal(err)
		}
		wants("another address", 3)
		if err := i.Describe("m2", ips); err != nil || len(i.now.Load().leaf.IPAddresses) != 2 {
			t.Error(err, i.now.Load().leaf.IPAddresses)
		}
		wants("the same address", 3)
		if err := i.Describe("M 2", nil); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		next, err := c.Successor()
		if err != nil {
			t.Fatal(err)
		}
		bundle := append(next.Certificate(), c.Bundle()...)
		if err := i.SetBundle(bundle); err != nil { // the cluster is late: it still issues by the old one
			t.Fatal(err)
		}
		wants("another authority", 4)
		if err := c.SetBundle(bundle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryFirst)
		wants("a moment later", 5)
		if i.unwanted() {
			t.Error("still of the old authority")
		}
		time.Sleep(Life / 4)
		wants("a long time later", 5)
	})
}

// TestClockIsSetBack while a renewal waits to be tried again, and before one is due.
func TestClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shift atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
		c := &cluster{Identity: found(t, Options{Now: now})}
		i := join(t, c.Identity, "m2", Options{Now: now})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- i.Run(ctx, c.answer) }()
		synctest.Wait()
		shift.Store(int64(Life)) // ahead
		time.Sleep(lookEvery + time.Second)
		if n := c.asked.Load(); n != 1 {
			t.Errorf("asked %d times when the clock went ahead", n)
		}
		c.fail(fault.New(fault.Unavailable, "no"))
		shift.Add(int64(Life))
		time.Sleep(time.Hour)
		before := c.asked.Load()
		shift.Add(-int64(24 * time.Hour))
		time.Sleep(time.Hour)
		if n := c.asked.Load() - before; n < 10 {
			t.Errorf("asked %d times in an hour after the clock went back", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestAnswersThatDoNotFit change nothing.
func TestAnswersThatDoNotFit(t *testing.T) {
	m1, other := found(t, Options{}), found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	csr3, err := Request(Options{Dir: filepath.Join(t.TempDir(), "trust")}, subject("m3"))
	if err != nil {
		t.Fatal(err)
	}
	had := m2.now.Load()
	for name, f := range map[string]Ask{
		"another key":     func(context.Context, []byte) (Grant, error) { return tryGrant(m1, csr3) },
		"another cluster": func(_ context.Context, csr []byte) (Grant, error) { return tryGrant(other, csr) },
		"nothing":         func(context.Context, []byte) (Grant, error) { return Grant{}, nil },
		"another machine": func(_ context.Context, csr []byte) (Grant, error) {
			a, err := m1.Authority()
			if err != nil {
				return Grant{}, err
			}
			s := subject("m3")
			s.Cluster = m1.Cluster()
			cert, err := a.Issue(csr, s, 0, time.Now())
			return Grant{Certificate: cert, Bundle: m1.Bundle(), Cluster: m1.Cluster()}, err
		},
	} {
		if err := m2.Renew(t.Context(), f); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if m2.now.Load() != had {
			t.Errorf("%s changed something", name)
		}
	}
}

// TestLateVoter: a voter that is behind in a change of the authority does not take others back.
func TestLateVoter(t *testing.T) {
	m1 := found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	next, err := m1.Successor()
	if err != nil {
		t.Fatal(err)
	}
	if err := m2.SetBundle(append(next.Certificate(), m1.Bundle()...)); err != nil {
		t.Fatal(err)
	}
	if err := m2.Renew(t.Context(), func(_ context.Context, csr []byte) (Grant, error) { return tryGrant(m1, csr) }); err != nil {
		t.Fatal(err)
	}
	if m2.CAHash() != next.Hash() || !m2.unwanted() {
		t.Error("m2 went back")
	}
}
