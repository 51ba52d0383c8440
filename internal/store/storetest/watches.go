package storetest

import (
	"errors"
	"fmt"
	"testing"

	"flota/internal/store"
)

func watches() []test {
	return []test{
		{"watch says that it stands", watchStands},
		{"a transaction comes as one update", watchTransaction},
		{"watch goes on from any revision", watchResumes},
		{"watch from the future", watchFuture},
		{"a reader that lags holds up nobody and loses nothing", watchLags},
		{"watch ends with its context", watchEnds},
		{"watch ends with its client", watchClosed},
		{"watch of what is no longer kept", watchCompacted},
		{"every client sees every change", watchOthers},
	}
}

func watchStands(t *testing.T, b *bench) {
	rev := b.put(t, "a", "1")
	for _, after := range []int64{rev, rev - 1, rev + 5} {
		s := b.watch(after)
		if u, ok := s.next(t); !ok || u.Err != nil || len(u.Events) != 0 || u.Rev != after {
			t.Errorf("watch after %d starts with %+v", after, u)
		}
		s.end()
	}
}

func watchTransaction(t *testing.T, b *bench) {
	b.put(t, "old", "1")
	start := b.now(t)
	s := b.watch(start)
	defer s.end()
	outside := store.Op{Key: "elsewhere/" + b.prefix, Value: []byte("x")}
	rev := b.must(t, store.Txn{Then: []store.Op{b.op("b", "2", 0), outside, {Key: b.prefix + "old"}, b.op("a", "1", 0)}})
	u := s.change(t)
	want := []store.Event{
		{Item: store.Item{Key: b.prefix + "b", Value: []byte("2"), Rev: rev, Created: rev}},
		{Item: store.Item{Key: b.prefix + "old", Rev: rev}, Deleted: true},
		{Item: store.Item{Key: b.prefix + "a", Value: []byte("1"), Rev: rev, Created: rev}},
	}
	if u.Rev != rev || fmt.Sprint(u.Events) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v at %d", u, want, rev)
	}
	b.must(t, store.Txn{Then: []store.Op{outside}})
	last := b.put(t, "a", "")
	if u := s.change(t); u.Rev != last || len(u.Events) != 1 || u.Events[0].Created != rev || u.Events[0].Value == nil {
		t.Errorf("got %+v, want an empty value at %d made at %d", u, last, rev)
	}
}

func watchResumes(t *testing.T, b *bench) {
	start := b.now(t)
	var revs []int64
	for i := range 12 {
		if i%5 == 4 {
			revs = append(revs, b.drop(t, "k3"))
			b.put(t, "k3", "again")
			revs = append(revs, b.now(t))
			continue
		}
		revs = append(revs, b.put(t, fmt.Sprint("k", i%7), fmt.Sprint(i)))
		if i%3 == 0 {
			b.must(t, store.Txn{Then: []store.Op{{Key: "elsewhere/" + b.prefix, Value: []byte("x")}}})
		}
	}
	for after := start; after <= revs[len(revs)-1]; after++ {
		s := b.watch(after)
		for _, want := range revs {
			if want <= after {
				continue
			}
			if u := s.change(t); u.Rev != want {
				t.Errorf("watch after %d gives revision %d, want %d", after, u.Rev, want)
			}
		}
		next := b.put(t, "last", fmt.Sprint(after))
		revs = append(revs, next)
		if u := s.change(t); u.Rev != next {
			t.Errorf("watch after %d gives revision %d, want the new %d", after, u.Rev, next)
		}
		s.end()
		if after-start > 20 {
			break
		}
	}
}

func watchFuture(t *testing.T, b *bench) {
	now := b.now(t)
	s := b.watch(now + 3)
	defer s.end()
	s.next(t)
	for range 5 {
		b.put(t, "a", "1")
	}
	if u := s.change(t); u.Rev != now+4 {
		t.Errorf("got revision %d, want %d", u.Rev, now+4)
	}
}

func watchLags(t *testing.T, b *bench) {
	const changes = 400
	start := b.now(t)
	slow, quick := b.watch(start), b.watch(start)
	defer slow.end()
	defer quick.end()
	for i := range changes {
		rev := b.put(t, fmt.Sprint("k", i%10), fmt.Sprint(i))
		if u := quick.change(t); u.Rev != rev {
			t.Fatalf("the quick reader got %d, want %d", u.Rev, rev)
		}
	}
	for i := range changes {
		if u := slow.change(t); len(u.Events) != 1 || string(u.Events[0].Value) != fmt.Sprint(i) {
			t.Fatalf("the slow reader got %+v, want change %d", u, i)
		}
	}
}

func watchEnds(t *testing.T, b *bench) {
	s := b.watch(b.now(t))
	b.put(t, "a", "1") // waits to be read
	s.end()
	if err := s.ended(t); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func watchClosed(t *testing.T, b *bench) {
	kv := b.Open(t)
	s := watchOf(b.ctx, kv, b.prefix, b.now(t))
	s.next(t)
	if err := kv.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	_ = s.ended(t) // it has to end; whether with an error or not is a race
}

func watchCompacted(t *testing.T, b *bench) {
	start := b.now(t)
	b.put(t, "a", "1")
	b.put(t, "b", "1")
	b.drop(t, "a")
	at := b.must(t, store.Txn{Then: []store.Op{{Key: b.prefix + "b"}, b.op("c", "1", 0)}})
	last := b.put(t, "c", "2")
	standing := b.watch(last)
	defer standing.end()
	standing.next(t)
	if err := b.Compact(b.ctx, at); err != nil {
		t.Fatalf("compact: %v", err)
	}
	for after := start; after < at-1; after++ {
		if err := b.watch(after).ended(t); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("watch after %d of what was compacted at %d ends with %v", after, at, err)
		}
	}
	// Everything from the compacted revision on is still kept, deletions included.
	s := b.watch(at - 1)
	defer s.end()
	if u := s.change(t); u.Rev != at || len(u.Events) != 2 || !u.Events[0].Deleted {
		t.Errorf("watch after %d gives %+v", at-1, u)
	}
	if u := s.change(t); u.Rev != last {
		t.Errorf("watch after %d gives %+v second", at-1, u)
	}
	next := b.put(t, "d", "1")
	if u := standing.change(t); u.Rev != next {
		t.Errorf("the watch that stood before gives %+v", u)
	}
	if items, _ := b.list(t); len(items) != 2 {
		t.Errorf("compaction changed what is there: %+v", items)
	}
}

func watchOthers(t *testing.T, b *bench) {
	other := b.open(t)
	s := watchOf(b.ctx, other, b.prefix, b.now(t))
	defer s.end()
	for i := range 20 {
		rev := b.put(t, "a", fmt.Sprint(i))
		if u := s.change(t); u.Rev != rev {
			t.Fatalf("got %+v, want revision %d", u, rev)
		}
	}
}
