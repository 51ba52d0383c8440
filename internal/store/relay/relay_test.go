package relay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/store/relay"
	"flota/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// owner is a relay that closes its backends with itself, as the suite expects of a client.
type owner struct {
	*relay.Relay
	behind []store.KV
	end    func()
	once   sync.Once
}

func (o *owner) Close() error {
	o.once.Do(func() {
		if o.end != nil {
			o.end()
		}
		_ = o.Relay.Close()
		for _, kv := range o.behind {
			_ = kv.Close()
		}
	})
	return nil
}

// TestConformance puts the suite to a relay with one backend.
func TestConformance(t *testing.T) {
	storetest.RunVirtual(t, func(t *testing.T) storetest.Bed {
		m := mem.New()
		t.Cleanup(func() { _ = m.Close() })
		return storetest.Bed{Compact: m.Compact, Open: func(*testing.T) store.KV {
			r, c := relay.New(quiet()), m.Client()
			r.Use(c)
			return &owner{Relay: r, behind: []store.KV{c}}
		}}
	})
}

// TestConformanceSwitched puts it to one that is switched all the time, in real time so that switches meet calls. No call may fail for it; a watch that ends
// is begun again where it stopped, by patientKV.
func TestConformanceSwitched(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Bed {
		m := mem.New()
		t.Cleanup(func() { _ = m.Close() })
		return storetest.Bed{Compact: m.Compact, Open: func(t *testing.T) store.KV { return patient(switched(m)) }}
	})
}

// switched gives a relay that goes back and forth between two clients of m until it is closed.
func switched(m *mem.Mem) *owner {
	r, both := relay.New(quiet()), []store.KV{m.Client(), m.Client()}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	r.Use(both[0])
	run.Go(func() {
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for i := 1; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			switch i % 10 {
			case 0:
				r.Use(nil)
			default:
				r.Use(both[i%2])
			}
		}
	})
	return &owner{Relay: r, behind: both, end: func() { cancel(); run.Wait() }}
}

// patientKV resumes watches, as store.Follow does, but at once.
type patientKV struct {
	*owner
	quit context.Context
	stop context.CancelFunc
	run  sync.WaitGroup
}

func patient(o *owner) *patientKV {
	p := &patientKV{owner: o}
	p.quit, p.stop = context.WithCancel(context.Background())
	return p
}

func (p *patientKV) Close() error {
	p.stop()
	p.run.Wait()
	return p.owner.Close()
}

func (p *patientKV) Watch(ctx context.Context, prefix string, after int64) <-chan store.Update {
	out := make(chan store.Update)
	p.run.Go(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(p.quit, cancel)()
		stood, last := false, after
		for ctx.Err() == nil {
			for u := range p.owner.Watch(ctx, prefix, last) {
				if fault.Is(u.Err, fault.Unavailable) {
					break
				}
				if u.Err == nil && u.Rev == last && len(u.Events) == 0 && stood {
					continue
				}
				select {
				case out <- u:
				case <-ctx.Done():
					return
				}
				if u.Err != nil {
					return
				}
				stood, last = true, u.Rev
			}
		}
	})
	return out
}

// seen is a Follower that remembers what it was given.
type seen struct {
	t      *testing.T
	resets int
	last   int64
	got    []string
}

func (s *seen) Reset(items []store.Item, rev int64) {
	s.resets++
	s.last = rev
	for _, it := range items {
		s.got = append(s.got, string(it.Value))
	}
}

func (s *seen) Apply(u store.Update) {
	if u.Rev <= s.last {
		s.t.Errorf("revision %d comes after %d", u.Rev, s.last)
	}
	s.last = u.Rev
	for _, e := range u.Events {
		s.got = append(s.got, string(e.Value))
	}
}

// TestFollow has followers on a relay that is switched between two clients, one of which lags, and to none. Each change reaches each of them once, and nobody lists again.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		one, two := m.Client(), m.Client()
		two.Lag(30 * time.Millisecond)
		r := relay.New(quiet())
		r.Use(one)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		var all []*seen
		for range 3 {
			s := &seen{t: t}
			all = append(all, s)
			run.Go(func() { _ = store.Follow(ctx, r, "a/", s, nil) })
		}
		synctest.Wait()
		const writes = 500
		for i := range writes {
			if _, ok, err := r.Commit(ctx, store.Txn{Then: []store.Op{{Key: "a/x", Value: fmt.Append(nil, i)}}}); !ok || err != nil {
				t.Fatalf("write %d: %v, %v", i, ok, err)
			}
			time.Sleep(7 * time.Millisecond) // of the bubble
			switch {
			case i%50 == 49:
				r.Use(nil)
				time.Sleep(time.Second)
				r.Use(one)
			case i%17 == 0:
				r.Use(two)
			case i%17 == 8:
				r.Use(one)
			}
		}
		time.Sleep(5 * time.Second)
		cancel()
		run.Wait()
		for _, s := range all {
			if s.resets != 1 || len(s.got) != writes {
				t.Errorf("a follower listed %d times and saw %d changes, want 1 and %d", s.resets, len(s.got), writes)
			}
			for i, v := range s.got {
				if v != fmt.Sprint(i) {
					t.Fatalf("change %d is %q", i, v)
				}
			}
		}
		for _, c := range []store.KV{r, one, two} {
			_ = c.Close()
		}
	})
}

// slow is a backend whose calls wait until they are let go or it is closed.
type slow struct {
	store.KV
	began chan string
	go1   chan struct{}
	shut  chan struct{}
}

func newSlow(kv store.KV) *slow {
	return &slow{KV: kv, began: make(chan string, 10), go1: make(chan struct{}), shut: make(chan struct{})}
}

func (s *slow) wait(what string) error {
	s.began <- what
	select {
	case <-s.go1:
		return nil
	case <-s.shut:
		return fault.New(fault.Unavailable, "closed")
	}
}

func (s *slow) Commit(ctx context.Context, t store.Txn) (int64, bool, error) {
	if err := s.wait("commit"); err != nil {
		return 0, false, err
	}
	return s.KV.Commit(ctx, t)
}

func (s *slow) Get(ctx context.Context, key string, o store.Read) (store.Item, bool, error) {
	if err := s.wait("get"); err != nil {
		return store.Item{}, false, err
	}
	return s.KV.Get(ctx, key, o)
}

func put(v string) store.Txn {
	return store.Txn{Then: []store.Op{{Key: "k", Value: []byte(v)}}}
}

// TestSwitchWaitsForCalls has a write under way on the old backend: it finishes there, and Use returns after it. New calls see the new one.
func TestSwitchWaitsForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		old, r := newSlow(m), relay.New(quiet())
		r.Use(old)
		var run sync.WaitGroup
		run.Go(func() {
			if _, ok, err := r.Commit(context.Background(), put("old")); !ok || err != nil {
				t.Errorf("the write under way: %v, %v", ok, err)
			}
		})
		<-old.began
		switched := make(chan struct{})
		run.Go(func() { r.Use(m); close(switched) })
		synctest.Wait()
		select {
		case <-switched:
			t.Error("Use did not wait for the write")
		default:
		}
		if _, ok, err := r.Get(t.Context(), "k", store.Read{}); ok || err != nil {
			t.Errorf("a new call gives %v, %v", ok, err)
		}
		close(old.go1)
		run.Wait()
		if it, ok, _ := m.Get(t.Context(), "k", store.Read{}); !ok || string(it.Value) != "old" {
			t.Errorf("there is %+v", it)
		}
	})
}

// TestOldBackendCloses has calls hang on the old backend beyond what Use waits for. When it is closed the read is answered by the new one; the write fails, and is not made twice.
func TestOldBackendCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		old, r := newSlow(m), relay.New(quiet())
		r.Use(old)
		var run sync.WaitGroup
		run.Go(func() {
			if _, _, err := r.Commit(context.Background(), put("old")); !fault.Is(err, fault.Unavailable) {
				t.Errorf("the write under way gives %v", err)
			}
		})
		run.Go(func() {
			if _, ok, err := r.Get(context.Background(), "k", store.Read{}); ok || err != nil {
				t.Errorf("the read under way gives %v, %v", ok, err)
			}
		})
		<-old.began
		<-old.began
		start := time.Now()
		r.Use(m)
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("Use waited for %v", d)
		}
		close(old.shut)
		run.Wait()
	})
}

// TestWithoutBackend: calls wait for one, until their deadline.
func TestWithoutBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		r := relay.New(quiet())
		calls := map[string]func(context.Context) error{
			"commit": func(ctx context.Context) error { _, _, err := r.Commit(ctx, put("1")); return err },
			"get":    func(ctx context.Context) error { _, _, err := r.Get(ctx, "k", store.Read{Stale: true}); return err },
			"list":   func(ctx context.Context) error { _, _, err := r.List(ctx, "k", store.Read{}); return err },
			"grant":  func(ctx context.Context) error { _, err := r.Grant(ctx, time.Minute); return err },
			"revoke": func(ctx context.Context) error { return r.Revoke(ctx, 1) },
			"watch":  func(ctx context.Context) error { return (<-r.Watch(ctx, "", 0)).Err },
		}
		all := func(ctx context.Context, check func(what string, took time.Duration, err error)) {
			var run sync.WaitGroup
			for what, call := range calls {
				run.Go(func() {
					start := time.Now()
					err := call(ctx)
					check(what, time.Since(start), err)
				})
			}
			run.Wait()
		}
		all(context.Background(), func(what string, took time.Duration, err error) {
			if !fault.Is(err, fault.Unavailable) || took != 3*time.Second {
				t.Errorf("%s gives %v after %v", what, err, took)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		time.AfterFunc(5*time.Second, func() { r.Use(m) })
		all(ctx, func(what string, took time.Duration, err error) {
			if err != nil || took != 5*time.Second {
				t.Errorf("%s gives %v after %v", what, err, took)
			}
		})
		if h := r.Health(ctx); !h.Quorum {
			t.Errorf("health is %+v", h)
		}
		r.Use(nil)
		if h := r.Health(ctx); h.Quorum {
			t.Errorf("health without a backend is %+v", h)
		}
		if _, _, err := r.Commit(ctx, store.Txn{Then: []store.Op{{}}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("an empty key gives %v", err)
		}
	})
}

// TestWatchEnds: a watch ends with Unavailable when the backend is switched, and after Close; what the backend says of its own end is passed on.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		r := relay.New(quiet())
		end := func(ch <-chan store.Update) (err error) {
			for u := range ch {
				err = u.Err
			}
			return err
		}
		for what, cut := range map[string]func(){
			"switch": func() { r.Use(m.Client()) },
			"none":   func() { r.Use(nil) },
		} {
			r.Use(m)
			w := r.Watch(t.Context(), "", 1)
			<-w
			cut()
			if err := end(w); !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s: the watch ends with %v", what, err)
			}
		}
		r.Use(m)
		rev, _, _ := r.Commit(t.Context(), put("1"))
		if err := m.Compact(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if err := end(r.Watch(t.Context(), "", 0)); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a compacted watch ends with %v", err)
		}
		f := m.Client()
		r.Use(f)
		w := r.Watch(t.Context(), "", rev)
		<-w
		f.EndWatches(fault.New(fault.Unavailable, "broke"))
		if err := end(w); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a broken watch ends with %v", err)
		}
		w = r.Watch(t.Context(), "", rev)
		<-w
		_ = r.Close()
		if err := end(w); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a watch at Close ends with %v", err)
		}
		r.Use(m)
		if _, _, err := r.Get(t.Context(), "k", store.Read{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a closed relay gives %v", err)
		}
		_ = f.Close()
	})
}
