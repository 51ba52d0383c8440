package storetest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/store/mem"
)

func follows() []test {
	return []test{
		{"follow keeps up", followKeepsUp},
		{"follow survives broken, late and repeated watches", followFaults},
		{"follow starts anew after compaction", followCompacted},
		{"follow tells of trouble and of its end", followTrouble},
	}
}

// view is what a follower knows.
type view struct {
	mu      sync.Mutex // guards the fields below
	items   map[string]string
	rev     int64
	resets  int
	wrong   []string
	changed chan struct{}
}

func newView() *view { return &view{items: map[string]string{}, changed: make(chan struct{})} }

// tell wakes those that wait in until. The lock is held.
func (v *view) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) Reset(items []store.Item, rev int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if rev < v.rev {
		v.wrong = append(v.wrong, fmt.Sprintf("reset at %d after %d", rev, v.rev))
	}
	v.items, v.rev = map[string]string{}, rev
	for _, it := range items {
		v.items[it.Key] = string(it.Value)
	}
	v.resets++
	v.tell()
}

func (v *view) Apply(u store.Update) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if u.Rev <= v.rev || u.Err != nil || len(u.Events) == 0 {
		v.wrong = append(v.wrong, fmt.Sprintf("apply %+v after %d", u, v.rev))
	}
	v.rev = u.Rev
	for _, e := range u.Events {
		if e.Deleted {
			delete(v.items, e.Key)
		} else {
			v.items[e.Key] = string(e.Value)
		}
	}
	v.tell()
}

// until waits until ok says so of the view.
func (v *view) until(t *testing.T, ctx context.Context, ok func() bool) {
	t.Helper()
	for {
		v.mu.Lock()
		good, changed := ok(), v.changed
		v.mu.Unlock()
		if good {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("the follower did not get there")
		}
	}
}

// reaches waits until the view is at rev and compares it with the store.
func (v *view) reaches(t *testing.T, b *bench, rev int64) {
	t.Helper()
	v.until(t, b.ctx, func() bool { return v.rev >= rev })
	want := map[string]string{}
	items, _ := b.list(t)
	for _, it := range items {
		want[it.Key] = string(it.Value)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !maps.Equal(v.items, want) {
		t.Errorf("the follower knows %v, the store has %v", v.items, want)
	}
	if len(v.wrong) > 0 {
		t.Errorf("Follow broke its word: %v", v.wrong)
	}
}

// follow runs Follow over kv until the test ends.
func follow(t *testing.T, b *bench, kv store.KV, trouble func(error)) *view {
	t.Helper()
	v := newView()
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- store.Follow(ctx, kv, b.prefix, v, trouble) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow returned %v", err)
		}
	})
	return v
}

// churn changes keys n times and gives the last revision.
func churn(t *testing.T, b *bench, n int) (rev int64) {
	t.Helper()
	for i := range n {
		if i%4 == 3 {
			b.drop(t, fmt.Sprint("k", (i-1)%6))
		}
		rev = b.put(t, fmt.Sprint("k", i%6), fmt.Sprint(i))
	}
	return rev
}

func followKeepsUp(t *testing.T, b *bench) {
	churn(t, b, 5)
	v := follow(t, b, b.kv, nil)
	v.reaches(t, b, churn(t, b, 100))
	if v.resets != 1 {
		t.Errorf("it listed %d times", v.resets)
	}
}

func followFaults(t *testing.T, b *bench) {
	f := mem.NewFaulty(b.kv)
	t.Cleanup(func() { _ = f.Close() })
	v := follow(t, b, f, nil)
	f.Repeat(true)
	v.reaches(t, b, churn(t, b, 20))
	f.EndWatches(fault.New(fault.Unavailable, "the stream broke"))
	v.reaches(t, b, churn(t, b, 20))
	f.Pause(true)
	rev := churn(t, b, 20)
	f.Pause(false)
	v.reaches(t, b, rev)
	f.Down(true)
	rev = churn(t, b, 20)
	f.FailNext(2)
	f.Down(false)
	v.reaches(t, b, rev)
	if v.resets != 1 {
		t.Errorf("it listed %d times although all changes were kept", v.resets)
	}
}

func followCompacted(t *testing.T, b *bench) {
	f := mem.NewFaulty(b.kv)
	t.Cleanup(func() { _ = f.Close() })
	v := follow(t, b, f, nil)
	v.reaches(t, b, churn(t, b, 10))
	f.Down(true)
	rev := churn(t, b, 10)
	if err := b.Compact(b.ctx, rev); err != nil {
		t.Fatalf("compact: %v", err)
	}
	f.Down(false)
	v.until(t, b.ctx, func() bool { return v.resets == 2 })
	v.reaches(t, b, rev)
	v.reaches(t, b, churn(t, b, 10))
}

func followTrouble(t *testing.T, b *bench) {
	f := mem.NewFaulty(b.kv)
	t.Cleanup(func() { _ = f.Close() })
	told := make(chan error, 1000)
	v := follow(t, b, f, func(err error) { told <- err })
	v.reaches(t, b, churn(t, b, 3))
	await := func(want fault.Kind, well bool) {
		t.Helper()
		for {
			select {
			case err := <-told:
				if well && err == nil || !well && fault.Is(err, want) {
					return
				}
			case <-b.ctx.Done():
				t.Fatal("nothing was told")
			}
		}
	}
	f.Down(true)
	await(fault.Unavailable, false)
	f.Down(false)
	await("", true) // although nothing has changed since
	v.reaches(t, b, churn(t, b, 3))
}
