package trust

import (
	"context"
	"sync"
	"time"

	"flota/internal/machine"
	"flota/internal/store"
)

// saveEvery is how often Run tries to store what could not be stored.
const saveEvery = time.Minute

// Run keeps the members at what st says until ctx ends: it follows machines/ and removed/, and calls Live for each change and Away while one of
// them cannot be followed. It returns nil, when ctx ends.
func (m *Members) Run(ctx context.Context, st *store.Store) error {
	f := &feed{m: m, machines: map[string]machine.Machine{}, removed: map[string]machine.Gone{}}
	var g sync.WaitGroup
	g.Go(func() {
		_ = store.Follow(ctx, st.KV, st.Machines.Prefix(), side(f, 0, st.Machines, f.machines), f.trouble(0))
	}) // ends with ctx, with nil
	g.Go(func() {
		_ = store.Follow(ctx, st.KV, st.Removed.Prefix(), side(f, 1, st.Removed, f.removed), f.trouble(1))
	})
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := m.Save(); err != nil {
				m.log.Warn("remember the removed machines", "err", err, "retry", saveEvery)
			}
			continue
		case <-ctx.Done():
		}
		g.Wait()
		m.Away()
		return nil
	}
}

// feed joins the two tables.
type feed struct {
	m *Members

	mu       sync.Mutex // guards the fields below
	ready    [2]bool    // machines, removed: was listed, and is followed
	machines map[string]machine.Machine
	removed  map[string]machine.Gone
}

// trouble is told by Follow when table n cannot be followed, and when it is again.
func (f *feed) trouble(n int) func(error) {
	listed := false
	return func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		listed = listed || f.ready[n]
		f.ready[n] = err == nil && listed
		if err != nil {
			f.m.Away()
			return
		}
		f.tell()
	}
}

// tell hands both tables on if both are followed. The caller holds mu.
func (f *feed) tell() {
	if !f.ready[0] || !f.ready[1] {
		return
	}
	known, gone := map[machine.ID]string{}, map[machine.ID]time.Time{}
	for id, v := range f.machines {
		known[machine.ID(id)] = v.Key
	}
	for id, v := range f.removed {
		gone[machine.ID(id)] = v.Time
	}
	if err := f.m.Live(known, gone); err != nil {
		f.m.log.Warn("remember the removed machines", "err", err, "retry", saveEvery)
	}
}

// half is the follower of one table.
type half[T any] struct {
	f     *feed
	n     int
	table store.Table[T]
	all   map[string]T // guarded by f.mu
}

// side makes one.
func side[T any](f *feed, n int, t store.Table[T], all map[string]T) *half[T] {
	return &half[T]{f: f, n: n, table: t, all: all}
}

// Reset implements store.Follower.
func (h *half[T]) Reset(items []store.Item, _ int64) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	clear(h.all)
	for _, it := range items {
		h.put(it)
	}
	h.f.ready[h.n] = true
	h.f.tell()
}

// Apply implements store.Follower.
func (h *half[T]) Apply(u store.Update) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	for _, e := range u.Events {
		if key, ok := h.table.Match(e.Key); ok && e.Deleted {
			delete(h.all, key)
		} else if ok {
			h.put(e.Item)
		}
	}
	h.f.tell()
}

// put takes one item. One that cannot be read still counts, with nothing known but its key: a broken record removes no machine.
func (h *half[T]) put(it store.Item) {
	e, _ := h.table.Decode(it)
	h.all[e.Key] = e.Value
}
