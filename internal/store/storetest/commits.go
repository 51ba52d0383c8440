package storetest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"flota/internal/fault"
	"flota/internal/store"
)

func commits() []test {
	return []test{
		{"each change is one revision", oneRevision},
		{"conditions", conditions},
		{"all or nothing", allOrNothing},
		{"limits", limits},
		{"concurrent updates are counted", contention},
		{"a call after its end does nothing", endedCall},
	}
}

func oneRevision(t *testing.T, b *bench) {
	at := b.now(t)
	step := func(what string, grow int64, txn store.Txn) {
		t.Helper()
		rev, _, err := b.kv.Commit(b.ctx, txn)
		if at += grow; err != nil || rev != at || b.now(t) != at {
			t.Errorf("%s gives revision %d, %v; then %d; want %d", what, rev, err, b.now(t), at)
		}
	}
	a, c := b.op("a", "1", 0), b.op("c", "1", 0)
	step("a put", 1, store.Txn{Then: []store.Op{a}})
	step("two puts", 1, store.Txn{Then: []store.Op{a, c}})
	step("the same value", 1, store.Txn{Then: []store.Op{a}})
	step("a condition that fails", 0, store.Txn{If: []store.Cond{{Key: a.Key}}, Then: []store.Op{a}})
	step("deleting nothing", 0, store.Txn{Then: []store.Op{{Key: b.prefix + "x"}}})
	step("deleting nothing and something", 1, store.Txn{Then: []store.Op{{Key: b.prefix + "x"}, {Key: c.Key}}})
	step("only asking", 0, store.Txn{If: []store.Cond{{Key: c.Key}}})
	step("nothing at all", 0, store.Txn{})
}

func conditions(t *testing.T, b *bench) {
	made := b.put(t, "a", "1")
	rev := b.put(t, "a", "2")
	a, none := b.prefix+"a", b.prefix+"none"
	for _, c := range []struct {
		name string
		cond store.Cond
		want bool
	}{
		{"at its revision", store.Cond{Key: a, Rev: rev}, true},
		{"at an older revision", store.Cond{Key: a, Rev: made}, false},
		{"at a later revision", store.Cond{Key: a, Rev: rev + 1}, false},
		{"absent, but there", store.Cond{Key: a}, false},
		{"absent", store.Cond{Key: none}, true},
		{"at a revision, but absent", store.Cond{Key: none, Rev: rev}, false},
		{"made then", store.Cond{Key: a, Created: made}, true},
		{"made then, whatever Rev", store.Cond{Key: a, Created: made, Rev: 1}, true},
		{"made at another time", store.Cond{Key: a, Created: rev}, false},
		{"made, but absent", store.Cond{Key: none, Created: made}, false},
	} {
		// Asked alone, and with an op that would be done.
		_, asked, err1 := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{c.cond}})
		_, done, err2 := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{c.cond}, Then: []store.Op{b.op("done", "", 0)}})
		if asked != c.want || done != c.want || err1 != nil || err2 != nil {
			t.Errorf("%s: asked %v, done %v, want %v; %v, %v", c.name, asked, done, c.want, err1, err2)
		}
	}
	b.drop(t, "a")
	b.put(t, "a", "3")
	if _, ok, _ := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{{Key: a, Created: made}}}); ok {
		t.Error("a key made anew passes for the old one")
	}
}

func allOrNothing(t *testing.T, b *bench) {
	rev := b.put(t, "a", "1")
	fresh, stale := store.Cond{Key: b.prefix + "a", Rev: rev}, store.Cond{Key: b.prefix + "b", Rev: rev}
	if _, ok, err := b.kv.Commit(b.ctx, store.Txn{If: []store.Cond{fresh, stale}, Then: []store.Op{b.op("a", "2", 0), b.op("c", "2", 0)}}); ok || err != nil {
		t.Errorf("commit gives %v, %v", ok, err)
	}
	if items, _ := b.list(t); len(items) != 1 || items[0].Rev != rev {
		t.Errorf("something was written: %+v", items)
	}
	now := b.must(t, store.Txn{If: []store.Cond{fresh}, Then: []store.Op{b.op("c", "2", 0), {Key: b.prefix + "a"}}})
	if items, _ := b.list(t); len(items) != 1 || items[0].Rev != now || items[0].Key != b.prefix+"c" {
		t.Errorf("not all was written: %+v", items)
	}
}

func limits(t *testing.T, b *bench) {
	many := func(n int) (txn store.Txn) {
		for i := range n {
			txn.Then = append(txn.Then, b.op(fmt.Sprint("k", i), "v", 0))
			txn.If = append(txn.If, store.Cond{Key: b.prefix + fmt.Sprint("k", i)})
		}
		return txn
	}
	big := func(n int) []byte { return bytes.Repeat([]byte{'x'}, n) }
	a := b.prefix + "a"
	for _, c := range []struct {
		name string
		txn  store.Txn
		ok   bool
	}{
		{"101 ops", store.Txn{Then: many(101).Then}, false},
		{"101 conditions", store.Txn{If: many(101).If}, false},
		{"100 of both", many(100), true},
		{"value of 1.5 MiB and more", store.Txn{Then: []store.Op{{Key: a, Value: big(store.MaxBytes)}}}, false},
		{"values of 1.5 MiB together", store.Txn{Then: []store.Op{{Key: a, Value: big(store.MaxBytes / 2)}, {Key: a + "b", Value: big(store.MaxBytes / 2)}}}, false},
		{"key and value of just 1.5 MiB", store.Txn{Then: []store.Op{{Key: a, Value: big(store.MaxBytes - len(a))}}}, true},
		{"a key twice", store.Txn{Then: []store.Op{b.op("a", "1", 0), b.op("a", "2", 0)}}, false},
		{"put and deleted", store.Txn{Then: []store.Op{b.op("a", "1", 0), {Key: a}}}, false},
		{"empty key", store.Txn{Then: []store.Op{{Value: []byte("v")}}}, false},
		{"empty key in a condition", store.Txn{If: []store.Cond{{}}}, false},
	} {
		before := b.now(t)
		_, ok, err := b.kv.Commit(b.ctx, c.txn)
		if ok != c.ok || fault.Is(err, fault.Invalid) == c.ok {
			t.Errorf("%s: ok %v, %v", c.name, ok, err)
		}
		if !c.ok && b.now(t) != before {
			t.Errorf("%s: something was written", c.name)
		}
	}
}

func contention(t *testing.T, b *bench) {
	const clients, times = 6, 20
	b.put(t, "n", "0")
	var all sync.WaitGroup
	for range clients {
		kv := b.open(t)
		all.Go(func() {
			for done := 0; done < times && b.ctx.Err() == nil; {
				it, _, err := kv.Get(b.ctx, b.prefix+"n", store.Read{})
				n, _ := strconv.Atoi(string(it.Value))
				if err != nil {
					continue
				}
				_, ok, err := kv.Commit(b.ctx, store.Txn{If: []store.Cond{{Key: it.Key, Rev: it.Rev}}, Then: []store.Op{b.op("n", fmt.Sprint(n+1), 0)}})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				if ok {
					done++
				}
			}
		})
	}
	all.Wait()
	if it, _ := b.get(t, "n"); string(it.Value) != fmt.Sprint(clients*times) {
		t.Errorf("counted %s, want %d", it.Value, clients*times)
	}
}

func endedCall(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if _, ok, err := b.kv.Commit(ctx, store.Txn{Then: []store.Op{b.op("a", "1", 0)}}); ok || !fault.Is(err, fault.Unavailable) {
		t.Errorf("commit gives %v, %v", ok, err)
	}
	if _, _, err := b.kv.Get(ctx, b.prefix+"a", store.Read{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("get gives %v", err)
	}
	if _, _, err := b.kv.List(ctx, b.prefix, store.Read{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("list gives %v", err)
	}
	if _, err := b.kv.Grant(ctx, patience); !fault.Is(err, fault.Unavailable) {
		t.Errorf("grant gives %v", err)
	}
	// The revision does not tell: a lease of an earlier test may end at any time.
	if items, _, err := b.kv.List(b.ctx, b.prefix, store.Read{}); err != nil || len(items) > 0 {
		t.Errorf("something was written: %v, %v", items, err)
	}
	kv := b.Open(t)
	if err := kv.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, _, err := kv.Get(b.ctx, b.prefix+"a", store.Read{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("get after close gives %v", err)
	}
	if err := watchOf(b.ctx, kv, b.prefix, 1).ended(t); err != nil && !fault.Is(err, fault.Unavailable) {
		t.Errorf("watch after close gives %v", err)
	}
}
