// Package mem is store.KV in memory: the store of tests and of the simulation, shared by any number of clients in one
// process. It behaves as store/etcd does, call by call: both pass store/storetest, and a model test drives
// both with the same operations.
//
// The invariant: one lock orders everything; each changing transaction makes exactly one revision, is kept in the
// history, and is handed to every watcher before the lock is let go.
//
// It never touches disk or network, and waits only on timers, channels and that lock, so it runs inside a
// testing/synctest bubble. Nothing is left running after Close. Faulty wraps any KV with the failures
// of a real one: outages, lost answers, late and repeated updates, and hooks to crash at.
//
// Start reading at Mem, then watcher and Faulty.
package mem

import (
	"context"
	"slices"
	"strings"
	"sync"

	"flota/internal/fault"
	"flota/internal/store"
)

// keepDefault is how many updates are kept for watchers that resume. 10,000: far more than a simulation makes while a
// machine is away, and still a few MB.
const keepDefault = 10_000

// Mem is the store. Make one with New. Values that it gives out are shared: they must not be changed.
type Mem struct {
	keep int
	quit chan struct{}  // closed by Close
	pump sync.WaitGroup // the watchers' goroutines

	mu        sync.Mutex // guards the fields below
	rev       int64      // revision of the last change; 1 when there was none, as in etcd
	compacted int64      // watches must start at this revision or later
	items     ordered
	history   []store.Update // of revisions rev-len+1 to rev, without a gap
	watchers  []*watcher
	leases    map[store.LeaseID]*lease
	lastID    store.LeaseID
	closed    bool
}

// Option changes how New makes a store.
type Option func(*Mem)

// Keep sets how many updates are kept for watchers that resume; at least 1, 10,000 without this option.
func Keep(n int) Option { return func(m *Mem) { m.keep = max(n, 1) } }

// New makes an empty store. Inside a synctest bubble it must be made and closed in the bubble.
func New(opts ...Option) *Mem {
	m := &Mem{keep: keepDefault, quit: make(chan struct{}), rev: 1, leases: map[store.LeaseID]*lease{}}
	for _, o := range opts {
		o(m)
	}
	return m
}

// enter takes the lock for a call, unless the call cannot be made any more.
func (m *Mem) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "ask the store")
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return fault.New(fault.Unavailable, "the store is closed")
	}
	return nil
}

// List implements store.KV.
func (m *Mem) List(ctx context.Context, prefix string, _ store.Read) ([]store.Item, int64, error) {
	if err := m.enter(ctx); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	return m.items.under(prefix), m.rev, nil
}

// Get implements store.KV.
func (m *Mem) Get(ctx context.Context, key string, _ store.Read) (store.Item, bool, error) {
	if key == "" {
		return store.Item{}, false, fault.New(fault.Invalid, "get of an empty key")
	}
	if err := m.enter(ctx); err != nil {
		return store.Item{}, false, err
	}
	defer m.mu.Unlock()
	if it := m.items.get(key); it != nil {
		return *it, true, nil
	}
	return store.Item{}, false, nil
}

// Commit implements store.KV.
func (m *Mem) Commit(ctx context.Context, t store.Txn) (int64, bool, error) {
	if err := t.Check(); err != nil {
		return 0, false, err
	}
	if err := m.enter(ctx); err != nil {
		return 0, false, err
	}
	defer m.mu.Unlock()
	for _, c := range t.If {
		if !m.holds(c) {
			return m.rev, false, nil
		}
	}
	for _, op := range t.Then {
		if op.Value != nil && op.Lease != 0 && m.leases[op.Lease] == nil {
			return 0, false, gone(op.Lease)
		}
	}
	m.apply(t.Then)
	return m.rev, true, nil
}

// holds says whether the condition is true now. The lock is held.
func (m *Mem) holds(c store.Cond) bool {
	var rev, created int64
	if it := m.items.get(c.Key); it != nil {
		rev, created = it.Rev, it.Created
	}
	if c.Created != 0 {
		return created == c.Created
	}
	return rev == c.Rev
}

// apply does the ops as one revision, or none if they change nothing. The lock is held.
func (m *Mem) apply(ops []store.Op) {
	u := store.Update{Rev: m.rev + 1}
	for _, op := range ops {
		old := m.items.get(op.Key)
		if old != nil && old.Lease != 0 {
			delete(m.leases[old.Lease].keys, op.Key)
		}
		if op.Value == nil {
			if old != nil {
				m.items.remove(op.Key)
				u.Events = append(u.Events, store.Event{Item: store.Item{Key: op.Key, Rev: u.Rev}, Deleted: true})
			}
			continue
		}
		it := &store.Item{Key: op.Key, Value: slices.Clip(append([]byte{}, op.Value...)), Rev: u.Rev, Created: u.Rev, Lease: op.Lease}
		if old != nil {
			it.Created = old.Created
		}
		if op.Lease != 0 {
			m.leases[op.Lease].keys[op.Key] = true
		}
		m.items.put(it)
		u.Events = append(u.Events, store.Event{Item: *it})
	}
	if len(u.Events) > 0 {
		m.remember(u)
	}
}

// remember makes u the newest revision and hands it to the watchers. The lock is held.
func (m *Mem) remember(u store.Update) {
	m.rev = u.Rev
	m.history = append(m.history, u)
	if len(m.history) > m.keep {
		m.compacted = max(m.compacted, m.rev-int64(m.keep)+1)
	}
	if len(m.history) > 2*m.keep { // now and then, so that it costs nothing per update
		m.history = slices.Clone(m.history[len(m.history)-m.keep:])
	}
	for _, w := range m.watchers {
		w.offer(u)
	}
}

// Compact forgets the changes before revision rev, so that a watch which asks for them gets store.ErrCompacted.
// It returns fault.Invalid if rev is not between the last compacted and the newest revision.
func (m *Mem) Compact(ctx context.Context, rev int64) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if rev > m.rev || rev <= m.compacted {
		return fault.New(fault.Invalid, "compact at %d: the store is at %d and compacted at %d", rev, m.rev, m.compacted)
	}
	m.compacted = rev
	return nil
}

// Health implements store.KV: memory always has its quorum.
func (m *Mem) Health(ctx context.Context) store.Health {
	h := store.Health{Members: []store.Member{{Name: "memory"}}}
	if m.enter(ctx) != nil {
		return h
	}
	defer m.mu.Unlock()
	h.Quorum, h.Leader = true, "memory"
	return h
}

// Close ends all watches and leases and waits for the watchers' goroutines. What was stored is lost.
func (m *Mem) Close() error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.quit)
		for _, l := range m.leases {
			l.timer.Stop()
		}
	}
	m.mu.Unlock()
	m.pump.Wait()
	return nil
}

// within gives the events of u that lie under prefix.
func within(u store.Update, prefix string) []store.Event {
	all := true
	for _, e := range u.Events {
		all = all && strings.HasPrefix(e.Key, prefix)
	}
	if all {
		return u.Events[:len(u.Events):len(u.Events)]
	}
	var out []store.Event
	for _, e := range u.Events {
		if strings.HasPrefix(e.Key, prefix) {
			out = append(out, e)
		}
	}
	return out
}
