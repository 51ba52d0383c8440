// Package storetest is the conformance suite of store.KV: what every sentence of its contract means, as tests. Each
// implementation runs it from its own tests, with Run in real time or RunVirtual inside synctest bubbles; Model
// compares two implementations under the same random operations.
//
// The invariant: a KV that passes may stand in for any other that passes; the simulation rests on that.
// The suite never sleeps to wait for something and never measures time: it waits on watches.
//
// Start reading at Bed and Run.
package storetest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/store"
)

// Bed is one store under test. Several tests may use one store one after the other: each keeps to keys of its own.
type Bed struct {
	// Open gives a client of the store. The suite closes it.
	Open func(t *testing.T) store.KV
	// Compact forgets the changes before rev.
	Compact func(ctx context.Context, rev int64) error
	// KillLeader ends the engine's leading member without a goodbye. May be nil; clients that were opened
	// before it was called must go on working.
	KillLeader func(t *testing.T)
}

// patience bounds every wait of the suite; only a failing test gets there. One minute, for loaded machines.
const patience = time.Minute

// test is one test of the suite.
type test struct {
	name string
	run  func(t *testing.T, b *bench)
}

// Run puts every test to the stores that open makes, in real time. open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Bed) {
	for _, c := range suite() {
		t.Run(c.name, func(t *testing.T) { c.run(t, newBench(t, open(t))) })
	}
}

// RunVirtual is Run with each test in a synctest bubble; open is called inside of it.
func RunVirtual(t *testing.T, open func(t *testing.T) Bed) {
	for _, c := range suite() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.run(t, newBench(t, open(t))) })
		})
	}
}

func suite() []test {
	var all []test
	for _, part := range [][]test{reads(), commits(), watches(), leases(), tables(), follows(), elections(), failovers()} {
		all = append(all, part...)
	}
	return all
}

// bench is what a test works with.
type bench struct {
	Bed
	kv     store.KV
	ctx    context.Context
	prefix string // of this test's own keys
}

func newBench(t *testing.T, b Bed) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w := &bench{Bed: b, ctx: ctx, prefix: t.Name() + "/"}
	w.kv = w.open(t)
	t.Cleanup(cancel)
	return w
}

// open gives a further client.
func (b *bench) open(t *testing.T) store.KV {
	t.Helper()
	kv := &lender{KV: b.Open(t)}
	t.Cleanup(func() {
		kv.takeBack()
		if err := kv.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return kv
}

// lender is a client that remembers the leases it made, so that none of them ends, and changes the revision, during a later test on
// the same engine.
type lender struct {
	store.KV
	mu   sync.Mutex // guards the field below
	lent []store.LeaseID
}

// Grant implements store.KV.
func (l *lender) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	id, err := l.KV.Grant(ctx, ttl)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.lent = append(l.lent, id)
	}
	return id, err
}

// takeBack ends the leases that were made here, if they have not ended and the engine still answers.
func (l *lender) takeBack() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.lent {
		_ = l.KV.Revoke(ctx, id)
	}
}

// must does a commit that has to succeed.
func (b *bench) must(t *testing.T, txn store.Txn) int64 {
	t.Helper()
	rev, ok, err := b.kv.Commit(b.ctx, txn)
	if err != nil || !ok {
		t.Fatalf("commit: ok %v, %v", ok, err)
	}
	return rev
}

// put stores value at prefix+key.
func (b *bench) put(t *testing.T, key, value string) int64 {
	t.Helper()
	return b.must(t, store.Txn{Then: []store.Op{b.op(key, value, 0)}})
}

func (b *bench) op(key, value string, lease store.LeaseID) store.Op {
	return store.Op{Key: b.prefix + key, Value: []byte(value), Lease: lease}
}

func (b *bench) drop(t *testing.T, key string) int64 {
	t.Helper()
	return b.must(t, store.Txn{Then: []store.Op{{Key: b.prefix + key}}})
}

// get gives the item at prefix+key.
func (b *bench) get(t *testing.T, key string) (store.Item, bool) {
	t.Helper()
	it, ok, err := b.kv.Get(b.ctx, b.prefix+key, store.Read{})
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return it, ok
}

// list gives all of the test's own items.
func (b *bench) list(t *testing.T) ([]store.Item, int64) {
	t.Helper()
	items, rev, err := b.kv.List(b.ctx, b.prefix, store.Read{})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return items, rev
}

// now gives the newest revision.
func (b *bench) now(t *testing.T) int64 {
	t.Helper()
	_, rev := b.list(t)
	return rev
}

// grant makes a lease.
func (b *bench) grant(t *testing.T, ttl time.Duration) store.LeaseID {
	t.Helper()
	id, err := b.kv.Grant(b.ctx, ttl)
	if err != nil {
		t.Fatalf("grant: %v", err)
	}
	return id
}

// stream is a watch that a test reads step by step.
type stream struct {
	ctx context.Context
	ch  <-chan store.Update
	end context.CancelFunc
}

// watch starts a watch over the test's own keys.
func (b *bench) watch(after int64) *stream { return watchOf(b.ctx, b.kv, b.prefix, after) }

func watchOf(ctx context.Context, kv store.KV, prefix string, after int64) *stream {
	run, end := context.WithCancel(ctx)
	return &stream{ctx: ctx, ch: kv.Watch(run, prefix, after), end: end}
}

// next gives the next update, progress included; ok is false when the stream is closed.
func (s *stream) next(t *testing.T) (store.Update, bool) {
	t.Helper()
	select {
	case u, ok := <-s.ch:
		return u, ok
	case <-s.ctx.Done():
		t.Fatal("nothing came from the watch")
		return store.Update{}, false
	}
}

// change gives the next update with events.
func (s *stream) change(t *testing.T) store.Update {
	t.Helper()
	for {
		u, ok := s.next(t)
		if !ok || u.Err != nil {
			t.Fatalf("watch ended: %v", u.Err)
		}
		if len(u.Events) > 0 {
			return u
		}
	}
}

// ended reads until the stream is closed and gives the error it ended with, or nil.
func (s *stream) ended(t *testing.T) error {
	t.Helper()
	for {
		u, ok := s.next(t)
		if !ok {
			return nil
		}
		if u.Err != nil {
			if _, more := s.next(t); more {
				t.Error("the stream went on after its error")
			}
			return u.Err
		}
	}
}
