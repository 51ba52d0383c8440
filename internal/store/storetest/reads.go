package storetest

import (
	"fmt"
	"slices"
	"testing"

	"flota/internal/fault"
	"flota/internal/store"
)

func reads() []test {
	return []test{
		{"nothing there", nothingThere},
		{"item has its revisions", itemRevisions},
		{"empty value is a value", emptyValue},
		{"list is sorted byte by byte", listSorted},
		{"list of many pages is of one moment", listPages},
		{"every client sees what was acknowledged", linearizable},
		{"stale reads answer", staleReads},
		{"empty key is refused", emptyKey},
		{"health", health},
	}
}

func nothingThere(t *testing.T, b *bench) {
	items, rev := b.list(t)
	if len(items) != 0 || rev < 1 {
		t.Errorf("list gives %v at %d", items, rev)
	}
	if it, ok := b.get(t, "a"); ok {
		t.Errorf("get gives %v", it)
	}
}

func itemRevisions(t *testing.T, b *bench) {
	want := func(value string, rev, created int64) {
		t.Helper()
		it, ok := b.get(t, "a")
		if !ok || it.Key != b.prefix+"a" || string(it.Value) != value || it.Rev != rev || it.Created != created || it.Lease != 0 {
			t.Errorf("get gives %+v (%v), want %q at %d made at %d", it, ok, value, rev, created)
		}
		if items, _ := b.list(t); len(items) != 1 || fmt.Sprint(items[0]) != fmt.Sprint(it) {
			t.Errorf("list gives %+v, get %+v", items, it)
		}
	}
	one := b.put(t, "a", "1")
	want("1", one, one)
	two := b.put(t, "a", "2")
	want("2", two, one)
	same := b.put(t, "a", "2")
	want("2", same, one)
	b.drop(t, "a")
	if _, ok := b.get(t, "a"); ok {
		t.Error("still there after its deletion")
	}
	again := b.put(t, "a", "3")
	want("3", again, again)
	if !(one < two && two < same && same < again) {
		t.Errorf("revisions %d %d %d %d do not grow", one, two, same, again)
	}
}

func emptyValue(t *testing.T, b *bench) {
	b.put(t, "a", "")
	if it, ok := b.get(t, "a"); !ok || it.Value == nil || len(it.Value) != 0 {
		t.Errorf("get gives %+v (%v)", it, ok)
	}
	if items, _ := b.list(t); len(items) != 1 || items[0].Value == nil {
		t.Errorf("list gives %+v", items)
	}
}

func listSorted(t *testing.T, b *bench) {
	keys := []string{"b", "a/b", "a/", "a", "a/b/c", "a0", "a-", "a/\xff", "a/\x00", "ä", "A"}
	for _, k := range keys {
		b.put(t, k, k)
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/\xff", "c"} {
		var want []string
		for _, k := range keys {
			if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
				want = append(want, k)
			}
		}
		slices.Sort(want)
		items, rev, err := b.kv.List(b.ctx, b.prefix+prefix, store.Read{})
		var got []string
		for _, it := range items {
			got = append(got, it.Key[len(b.prefix):])
		}
		if err != nil || !slices.Equal(got, want) || rev < int64(len(keys)) {
			t.Errorf("list of %q gives %q at %d, %v; want %q", prefix, got, rev, err, want)
		}
	}
	all, _, err := b.kv.List(b.ctx, "", store.Read{})
	if err != nil || len(all) < len(keys) {
		t.Errorf("list of everything gives %d items, %v", len(all), err)
	}
}

// listPages lists more than one page can hold while the first and the last key change together.
func listPages(t *testing.T, b *bench) {
	const keys = 1_500
	for i := 0; i < keys; i += 100 {
		var txn store.Txn
		for j := i; j < i+100; j++ {
			txn.Then = append(txn.Then, b.op(fmt.Sprintf("k%06d", j), "v", 0))
		}
		b.must(t, txn)
	}
	pair := func(n int) {
		b.must(t, store.Txn{Then: []store.Op{b.op("a", fmt.Sprint(n), 0), b.op("z", fmt.Sprint(n), 0)}})
	}
	pair(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; n < 10_000; n++ {
			select {
			case <-stop:
				return
			default:
				pair(n)
			}
		}
	}()
	for range 5 {
		items, rev := b.list(t)
		if len(items) != keys+2 {
			t.Fatalf("list gives %d items", len(items))
		}
		if a, z := items[0], items[keys+1]; string(a.Value) != string(z.Value) || a.Rev > rev {
			t.Fatalf("list at %d gives %s at %d and %s at %d, which changed together", rev, a.Value, a.Rev, z.Value, z.Rev)
		}
		if !slices.IsSortedFunc(items, func(a, b store.Item) int {
			if a.Key < b.Key {
				return -1
			}
			return 1
		}) {
			t.Fatal("list is not sorted or has a key twice")
		}
	}
	close(stop)
	<-done
}

func linearizable(t *testing.T, b *bench) {
	other := b.open(t)
	for i := range 50 {
		rev := b.put(t, "a", fmt.Sprint(i))
		it, _, err := other.Get(b.ctx, b.prefix+"a", store.Read{})
		if err != nil || it.Rev != rev {
			t.Fatalf("another client reads revision %d, %v; %d was acknowledged", it.Rev, err, rev)
		}
	}
}

func staleReads(t *testing.T, b *bench) {
	rev := b.put(t, "a", "1")
	s := b.watch(rev - 1)
	defer s.end()
	s.change(t)
	if it, ok, err := b.kv.Get(b.ctx, b.prefix+"a", store.Read{Stale: true}); err != nil || ok && it.Rev != rev {
		t.Errorf("get gives %+v, %v", it, err)
	}
	if _, at, err := b.kv.List(b.ctx, b.prefix, store.Read{Stale: true}); err != nil || at < 1 {
		t.Errorf("list gives revision %d, %v", at, err)
	}
}

func emptyKey(t *testing.T, b *bench) {
	if _, _, err := b.kv.Get(b.ctx, "", store.Read{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("get gives %v", err)
	}
}

func health(t *testing.T, b *bench) {
	h := b.kv.Health(b.ctx)
	if !h.Quorum || h.Leader == "" || len(h.Members) == 0 || h.Trouble != "" {
		t.Errorf("health is %+v", h)
	}
	if !slices.ContainsFunc(h.Members, func(m store.Member) bool { return m.Name == h.Leader }) {
		t.Errorf("leader %s is not a member: %+v", h.Leader, h)
	}
}
