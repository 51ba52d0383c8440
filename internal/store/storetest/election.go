package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
)

func elections() []test {
	return []test{
		{"one leader at a time", oneLeader},
		{"resigning hands over at once", resign},
		{"a leader whose lease has ended is told and writes nothing", deposed},
		{"a leader that is cut off steps down", cutOff},
		{"a campaign whose answer was lost does not block the next", lostAnswer},
		{"a campaign ends with its context", campaignEnds},
	}
}

// long is a lease that does not end by itself during a test.
const long = 20 * time.Minute

func lead(t *testing.T, b *bench, kv store.KV, id string, ttl time.Duration) *store.Leadership {
	t.Helper()
	l, err := store.New(kv).Campaign(b.ctx, machine.ID(id), ttl)
	if err != nil {
		t.Fatalf("campaign of %s: %v", id, err)
	}
	return l
}

// lost waits for the end of a leadership.
func lost(t *testing.T, b *bench, l *store.Leadership) {
	t.Helper()
	select {
	case <-l.Lost():
	case <-b.ctx.Done():
		t.Fatal("the leadership was not lost")
	}
}

func oneLeader(t *testing.T, b *bench) {
	const candidates, turns = 4, 3
	var leading, led atomic.Int32
	done := make(chan error, candidates)
	for i := range candidates {
		s := store.New(b.open(t))
		id := machine.ID(fmt.Sprint("m", i))
		go func() {
			for range turns {
				l, err := s.Campaign(b.ctx, id, long)
				if err != nil {
					done <- err
					return
				}
				if n := leading.Add(1); n != 1 {
					done <- fmt.Errorf("%d leaders at once", n)
				}
				if who, err := s.Leader(b.ctx, store.Read{}); who != id || err != nil {
					done <- fmt.Errorf("%s leads, but the store says %q, %v", id, who, err)
				}
				if _, ok, err := s.KV.Commit(b.ctx, store.Txn{If: []store.Cond{l.Guard()}, Then: []store.Op{b.op("by", string(id), 0)}}); !ok || err != nil {
					done <- fmt.Errorf("the leader's write gives %v, %v", ok, err)
				}
				led.Add(1)
				leading.Add(-1)
				l.Resign(b.ctx)
			}
			done <- nil
		}()
	}
	for range candidates {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if led.Load() != candidates*turns {
		t.Errorf("%d terms, want %d", led.Load(), candidates*turns)
	}
	if who, err := store.New(b.kv).Leader(b.ctx, store.Read{}); who != "" || err != nil {
		t.Errorf("after all have resigned %q leads, %v", who, err)
	}
}

func resign(t *testing.T, b *bench) {
	one := lead(t, b, b.kv, "m1", long)
	other := b.open(t)
	next := make(chan *store.Leadership, 1)
	go func() {
		l, _ := store.New(other).Campaign(b.ctx, "m2", long)
		next <- l
	}()
	guard := one.Guard()
	one.Resign(b.ctx)
	lost(t, b, one)
	two := <-next // before the lease of the first would have ended
	if two == nil {
		t.Fatal("the campaign failed")
	}
	if _, ok, err := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{guard}, Then: []store.Op{b.op("a", "old", 0)}}); ok || err != nil {
		t.Errorf("a write of the old leader gives %v, %v", ok, err)
	}
	two.Resign(b.ctx)
}

func deposed(t *testing.T, b *bench) {
	one := lead(t, b, b.kv, "m1", 3*time.Second)
	key := store.Prefix + "leader"
	it, ok, err := b.kv.Get(b.ctx, key, store.Read{})
	if !ok || err != nil || it.Lease == 0 || it.Created != one.Guard().Created {
		t.Fatalf("the leader's key is %+v, %v, %v", it, ok, err)
	}
	if err := b.kv.Revoke(b.ctx, it.Lease); err != nil {
		t.Fatal(err)
	}
	two := lead(t, b, b.kv, "m1", long) // the same machine again: still another leadership
	for guard, want := range map[store.Cond]bool{one.Guard(): false, two.Guard(): true} {
		if _, ok, err := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{guard}, Then: []store.Op{b.op("a", "1", 0)}}); ok != want || err != nil {
			t.Errorf("a write under %+v gives %v, %v", guard, ok, err)
		}
	}
	lost(t, b, one)
	select {
	case <-two.Lost():
		t.Error("the new leadership is lost")
	default:
	}
	one.Resign(b.ctx) // of one that is lost: harmless
	if who, _ := store.New(b.kv).Leader(b.ctx, store.Read{}); who != "m1" {
		t.Errorf("%q leads", who)
	}
	two.Resign(b.ctx)
}

func cutOff(t *testing.T, b *bench) {
	f := mem.NewFaulty(b.open(t))
	t.Cleanup(func() { _ = f.Close() })
	one := lead(t, b, f, "m1", 2*time.Second)
	f.Cut(mem.Hanging)
	two := lead(t, b, b.kv, "m2", long)
	lost(t, b, one)
	f.Cut(mem.None)
	if _, ok, err := f.Commit(b.ctx, store.Txn{If: []store.Cond{one.Guard()}, Then: []store.Op{b.op("a", "old", 0)}}); ok || err != nil {
		t.Errorf("a write of the old leader gives %v, %v", ok, err)
	}
	two.Resign(b.ctx)
}

func lostAnswer(t *testing.T, b *bench) {
	f := mem.NewFaulty(b.open(t))
	t.Cleanup(func() { _ = f.Close() })
	f.LoseNext(1)
	one := lead(t, b, f, "m1", long)
	if who, err := store.New(b.kv).Leader(b.ctx, store.Read{}); who != "m1" || err != nil {
		t.Errorf("%q leads, %v", who, err)
	}
	one.Resign(b.ctx)
}

func campaignEnds(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	one, err := store.New(b.kv).Campaign(ctx, "m1", long)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() {
		_, err := store.New(b.kv).Campaign(run, "m2", long)
		done <- err
	}()
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a campaign that was called off gives %v", err)
	}
	cancel()
	lost(t, b, one)
	if who, err := store.New(b.kv).Leader(b.ctx, store.Read{}); who != "m1" || err != nil {
		t.Errorf("without resigning the key stays until its lease ends; now %q, %v", who, err)
	}
	one.Resign(b.ctx)
	if _, ok, err := b.kv.Get(b.ctx, store.Prefix+"leader", store.Read{}); ok || fault.Is(err, fault.Unavailable) {
		t.Errorf("after resigning: %v, %v", ok, err)
	}
}
