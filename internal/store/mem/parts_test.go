package mem

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"flota/internal/fault"
	"flota/internal/store"
)

// TestOrdered compares the ordered map with a plain one that is sorted.
func TestOrdered(t *testing.T) {
	key := func(r *rand.Rand) string { return "abcabca"[:r.IntN(7)] + strconv.Itoa(r.IntN(2000)) }
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var o ordered
		model := map[string]int64{}
		puts := rapid.IntRange(0, 9).Draw(t, "puts of 10")
		for i := range rapid.IntRange(0, 3000).Draw(t, "n") {
			k := key(r)
			if r.IntN(10) > puts {
				o.remove(k)
				delete(model, k)
			} else {
				o.put(&store.Item{Key: k, Rev: int64(i)})
				model[k] = int64(i)
			}
		}
		prefix := "abcabca1"[:rapid.IntRange(0, 8).Draw(t, "prefix")]
		var want []string
		for k := range model {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		slices.Sort(want)
		var got []string
		for _, it := range o.under(prefix) {
			got = append(got, it.Key)
			if it.Rev != model[it.Key] || o.get(it.Key) == nil {
				t.Fatalf("%s is at %d, want %d", it.Key, it.Rev, model[it.Key])
			}
		}
		if !slices.Equal(got, want) || o.size != len(model) {
			t.Fatalf("got %d of %d items, want %d of %d", len(got), o.size, len(want), len(model))
		}
	})
}

func put(t *testing.T, kv store.KV, key string) int64 {
	t.Helper()
	rev, ok, err := kv.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte(key)}}})
	if err != nil || !ok {
		t.Fatalf("put: %v, %v", ok, err)
	}
	return rev
}

func TestKeepBoundsHistory(t *testing.T) {
	m := New(Keep(3))
	defer m.Close()
	var last int64
	for i := range 20 {
		last = put(t, m, fmt.Sprint(i))
	}
	if u := <-m.Watch(t.Context(), "", last-4); !errors.Is(u.Err, store.ErrCompacted) {
		t.Errorf("a watch of more than is kept gives %+v", u)
	}
	n := int64(0)
	for u := range m.Watch(t.Context(), "", last-3) {
		if len(u.Events) == 0 {
			continue
		}
		if n++; u.Rev != last-3+n {
			t.Errorf("got %+v", u)
		}
		if u.Rev == last {
			break
		}
	}
	if len(m.history) > 6 {
		t.Errorf("%d updates are kept", len(m.history))
	}
}

// TestLease ends at its second, and not before.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		defer m.Close()
		id, _ := m.Grant(t.Context(), 1500*time.Millisecond)
		time.Sleep(1999 * time.Millisecond)
		if err := m.Renew(t.Context(), id); err != nil {
			t.Errorf("just before its end: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := m.Renew(t.Context(), id); !fault.Is(err, fault.NotFound) {
			t.Errorf("at its end: %v", err)
		}
	})
}

func TestFaultyHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		defer m.Close()
		f := m.Client()
		defer f.Close()
		f.Cut(Hanging)
		start := time.Now()
		if _, _, err := f.Get(t.Context(), "a", store.Read{Stale: true}); !fault.Is(err, fault.Unavailable) || time.Since(start) != readWait {
			t.Errorf("get gives %v after %v", err, time.Since(start))
		}
		if _, _, err := f.Commit(t.Context(), store.Txn{}); !fault.Is(err, fault.Unavailable) || time.Since(start) != readWait+writeWait {
			t.Errorf("commit gives %v after %v", err, time.Since(start))
		}
		if f.Health(t.Context()).Quorum {
			t.Error("there is a quorum")
		}
		time.AfterFunc(time.Second, func() { f.Cut(None) })
		put(t, f, "a") // goes through when the outage ends
		f.Cut(NoQuorum)
		if _, ok, err := f.Get(t.Context(), "a", store.Read{Stale: true}); !ok || err != nil {
			t.Errorf("stale get gives %v, %v", ok, err)
		}
		if _, _, err := f.Get(t.Context(), "a", store.Read{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("get gives %v", err)
		}
	})
}

func TestFaultyAnswers(t *testing.T) {
	m := New()
	defer m.Close()
	f := m.Client()
	defer f.Close()
	txn := func(key string) store.Txn { return store.Txn{Then: []store.Op{{Key: key, Value: []byte("v")}}} }
	there := func(key string) bool {
		_, ok, _ := m.Get(t.Context(), key, store.Read{})
		return ok
	}
	crash := errors.New("crash")
	for _, c := range []struct {
		key  string
		set  func()
		want error // nil: any Unavailable
		done bool
	}{
		{"failed", func() { f.FailNext(1) }, nil, false},
		{"lost", func() { f.LoseNext(1) }, nil, true},
		{"before", func() { f.Before(func(Call) error { return crash }) }, crash, false},
		{"after", func() { f.Before(nil); f.After(func(c Call) error { return crash }) }, crash, true},
	} {
		c.set()
		_, _, err := f.Commit(t.Context(), txn(c.key))
		if c.want != nil && err != c.want || c.want == nil && !fault.Is(err, fault.Unavailable) || there(c.key) != c.done {
			t.Errorf("%s: %v, done %v", c.key, err, there(c.key))
		}
	}
	f.After(nil)
	var seen []string
	f.Before(func(c Call) error { seen = append(seen, c.Op); return nil })
	put(t, f, "well")
	_, _, _ = f.Get(t.Context(), "well", store.Read{})
	if !slices.Equal(seen, []string{"commit", "get"}) {
		t.Errorf("the hook saw %v", seen)
	}
}

func TestFaultyWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		defer m.Close()
		f := m.Client()
		defer f.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ch := f.Watch(ctx, "", 1)
		<-ch // it stands

		f.Lag(time.Minute)
		start := time.Now()
		put(t, m, "a")
		time.Sleep(10 * time.Second)
		put(t, m, "b")
		for i, want := range []time.Duration{60 * time.Second, 70 * time.Second} {
			if u := <-ch; u.Rev != int64(i+2) || time.Since(start) != want {
				t.Errorf("update %d came after %v, want %v", u.Rev, time.Since(start), want)
			}
		}
		f.Lag(0)

		f.Pause(true)
		put(t, m, "c")
		synctest.Wait()
		select {
		case u := <-ch:
			t.Errorf("a paused watch gives %+v", u)
		default:
		}
		f.Repeat(true)
		f.Pause(false)
		put(t, m, "d")
		for _, want := range []int64{4, 4, 5, 4, 5} {
			if u := <-ch; u.Rev != want {
				t.Errorf("got %d, want %d", u.Rev, want)
			}
		}
		f.EndWatches(store.ErrCompacted)
		if u := <-ch; !errors.Is(u.Err, store.ErrCompacted) {
			t.Errorf("got %+v", u)
		}
		if _, ok := <-ch; ok {
			t.Error("the watch went on")
		}
	})
}

// TestFaultyUnchanged sees a client without faults give what the store gives.
func TestFaultyUnchanged(t *testing.T) {
	m := New()
	defer m.Close()
	f := m.Client()
	rev := put(t, f, "a")
	if it, ok, err := f.Get(t.Context(), "a", store.Read{}); !ok || err != nil || it.Rev != rev {
		t.Errorf("get gives %+v, %v, %v", it, ok, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, ok, err := m.Get(t.Context(), "a", store.Read{}); !ok || err != nil {
		t.Errorf("the store went with its client: %v, %v", ok, err)
	}
}
