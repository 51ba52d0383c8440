package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

func failovers() []test {
	return []test{{"the engine's leader dies", engineLeaderDies}}
}

// engineLeaderDies writes keys one after the other, each as often as it takes, while the leading member dies. Every
// acknowledged write must be there, and a watch must have each of them once and in order.
func engineLeaderDies(t *testing.T, b *bench) {
	if b.KillLeader == nil {
		return // one member, which may not die; the test has nothing to say of it
	}
	watcher := b.open(t)
	s := watchOf(b.ctx, watcher, b.prefix, b.now(t))
	defer s.end()
	acked := map[string]int64{}
	write := func(i int) {
		key := fmt.Sprintf("k%04d", i)
		for b.ctx.Err() == nil {
			ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
			rev, ok, err := b.kv.Commit(ctx, store.Txn{If: []store.Cond{{Key: b.prefix + key}}, Then: []store.Op{b.op(key, key, 0)}})
			cancel()
			switch {
			case err == nil && ok:
				acked[b.prefix+key] = rev
				return
			case err == nil:
				acked[b.prefix+key] = 0 // an earlier attempt had happened
				return
			case !fault.Is(err, fault.Unavailable):
				t.Fatalf("commit gives %v", err)
			}
		}
		t.Fatal("no write went through any more")
	}
	for i := range 100 {
		write(i)
	}
	b.KillLeader(t)
	for i := range 100 {
		write(100 + i)
	}
	items, _ := b.list(t)
	if len(items) != len(acked) {
		t.Errorf("%d keys are there, %d were acknowledged", len(items), len(acked))
	}
	for _, it := range items {
		if rev, ok := acked[it.Key]; !ok || rev != 0 && rev != it.Rev {
			t.Errorf("%s is there at %d, acknowledged at %d (%v)", it.Key, it.Rev, rev, ok)
		}
	}
	last := int64(0)
	for i := range items {
		u := s.change(t)
		if u.Rev <= last || len(u.Events) != 1 || u.Events[0].Key != items[i].Key || u.Rev != items[i].Rev {
			t.Fatalf("the watch gives %+v after %d, want %s at %d", u, last, items[i].Key, items[i].Rev)
		}
		last = u.Rev
	}
	if h := b.kv.Health(b.ctx); !h.Quorum || h.Leader == "" {
		t.Errorf("health is %+v", h)
	}
}
