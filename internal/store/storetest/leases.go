package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

func leases() []test {
	return []test{
		{"keys vanish with their lease", leaseExpires},
		{"a lease that is renewed lives", leaseRenewed},
		{"a lease that is revoked", leaseRevoked},
		{"a key leaves its lease", leaseDetached},
		{"put under a lease that has ended", leaseGone},
	}
}

func leaseExpires(t *testing.T, b *bench) {
	id := b.grant(t, time.Second)
	b.must(t, store.Txn{Then: []store.Op{b.op("b", "1", id), b.op("a", "1", id), b.op("stays", "1", 0)}})
	if it, _ := b.get(t, "a"); it.Lease != id {
		t.Errorf("the key is under lease %d, want %d", it.Lease, id)
	}
	s := b.watch(b.now(t))
	defer s.end()
	u := s.change(t)
	want := []store.Event{
		{Item: store.Item{Key: b.prefix + "a", Rev: u.Rev}, Deleted: true},
		{Item: store.Item{Key: b.prefix + "b", Rev: u.Rev}, Deleted: true},
	}
	if fmt.Sprint(u.Events) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", u.Events, want)
	}
	if items, _ := b.list(t); len(items) != 1 {
		t.Errorf("left over: %+v", items)
	}
	if err := b.kv.Renew(b.ctx, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("renew gives %v", err)
	}
	if err := b.kv.Revoke(b.ctx, id); err != nil {
		t.Errorf("revoke gives %v", err)
	}
}

// leaseRenewed sees a lease outlive a longer one because it is renewed.
func leaseRenewed(t *testing.T, b *bench) {
	kept := b.grant(t, 2*time.Second)
	b.must(t, store.Txn{Then: []store.Op{b.op("kept", "1", kept)}})
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(300 * time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				if err := b.kv.Renew(ctx, kept); err != nil && ctx.Err() == nil {
					t.Errorf("renew: %v", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	s := b.watch(b.now(t))
	defer s.end()
	b.must(t, store.Txn{Then: []store.Op{b.op("other", "1", b.grant(t, 3*time.Second))}})
	s.change(t)
	if u := s.change(t); len(u.Events) != 1 || u.Events[0].Key != b.prefix+"other" || !u.Events[0].Deleted {
		t.Errorf("got %+v, want the end of the other lease", u)
	}
	if _, ok := b.get(t, "kept"); !ok {
		t.Error("the renewed lease has ended")
	}
	cancel()
	<-done
	if u := s.change(t); len(u.Events) != 1 || u.Events[0].Key != b.prefix+"kept" || !u.Events[0].Deleted {
		t.Errorf("got %+v, want the end of the lease that is no longer renewed", u)
	}
}

func leaseRevoked(t *testing.T, b *bench) {
	id := b.grant(t, time.Hour)
	empty := b.grant(t, time.Hour)
	b.must(t, store.Txn{Then: []store.Op{b.op("b", "1", id), b.op("a", "1", id)}})
	rev := b.now(t)
	if err := b.kv.Revoke(b.ctx, empty); err != nil || b.now(t) != rev {
		t.Errorf("a lease without keys: %v, revision %d, want %d", err, b.now(t), rev)
	}
	if err := b.kv.Revoke(b.ctx, id); err != nil || b.now(t) != rev+1 {
		t.Errorf("a lease with keys: %v, revision %d, want %d", err, b.now(t), rev+1)
	}
	s := b.watch(rev)
	defer s.end()
	if u := s.change(t); u.Rev != rev+1 || len(u.Events) != 2 {
		t.Errorf("got %+v", u)
	}
	if err := b.kv.Revoke(b.ctx, id); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := b.kv.Renew(b.ctx, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("renew gives %v", err)
	}
}

func leaseDetached(t *testing.T, b *bench) {
	one, two := b.grant(t, time.Hour), b.grant(t, time.Hour)
	b.must(t, store.Txn{Then: []store.Op{b.op("freed", "1", one), b.op("moved", "1", one), b.op("remade", "1", one), b.op("held", "1", one)}})
	b.put(t, "freed", "2")
	b.drop(t, "remade")
	b.put(t, "remade", "2")
	b.must(t, store.Txn{Then: []store.Op{b.op("moved", "2", two)}})
	left := func(want ...string) {
		t.Helper()
		items, _ := b.list(t)
		var got []string
		for _, it := range items {
			got = append(got, it.Key[len(b.prefix):])
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("left are %v, want %v", got, want)
		}
	}
	if err := b.kv.Revoke(b.ctx, one); err != nil {
		t.Fatal(err)
	}
	left("freed", "moved", "remade")
	if err := b.kv.Revoke(b.ctx, two); err != nil {
		t.Fatal(err)
	}
	left("freed", "remade")
	if it, _ := b.get(t, "freed"); it.Lease != 0 {
		t.Errorf("the freed key is under lease %d", it.Lease)
	}
}

func leaseGone(t *testing.T, b *bench) {
	id := b.grant(t, time.Hour)
	if err := b.kv.Revoke(b.ctx, id); err != nil {
		t.Fatal(err)
	}
	rev := b.put(t, "a", "1")
	ops := []store.Op{b.op("b", "1", 0), b.op("c", "1", id)}
	if _, ok, err := b.kv.Commit(b.ctx, store.Txn{Then: ops}); ok || !fault.Is(err, fault.NotFound) {
		t.Errorf("commit gives %v, %v", ok, err)
	}
	if _, ok, err := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{{Key: b.prefix + "a"}}, Then: ops}); ok || err != nil {
		t.Errorf("commit whose condition fails gives %v, %v", ok, err)
	}
	if items, now := b.list(t); len(items) != 1 || now != rev {
		t.Errorf("something was written: %+v at %d", items, now)
	}
}
