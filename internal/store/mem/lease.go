package mem

import (
	"context"
	"maps"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// lease is one granted lease; Mem's lock guards it.
type lease struct {
	ttl   time.Duration
	ends  time.Time
	timer *time.Timer
	keys  map[string]bool
}

func gone(id store.LeaseID) error { return fault.New(fault.NotFound, "lease %x has ended", int64(id)) }

// Grant implements store.KV.
func (m *Mem) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	ttl = max(time.Second, (ttl + time.Second - 1).Truncate(time.Second))
	m.lastID++
	id := m.lastID
	l := &lease{ttl: ttl, ends: time.Now().Add(ttl), keys: map[string]bool{}}
	l.timer = time.AfterFunc(ttl, func() { m.expire(id) })
	m.leases[id] = l
	return id, nil
}

// Renew implements store.KV.
func (m *Mem) Renew(ctx context.Context, id store.LeaseID) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	l := m.leases[id]
	if l == nil {
		return gone(id)
	}
	l.ends = time.Now().Add(l.ttl)
	l.timer.Reset(l.ttl)
	return nil
}

// Revoke implements store.KV.
func (m *Mem) Revoke(ctx context.Context, id store.LeaseID) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.end(id)
	return nil
}

// expire ends a lease whose timer has fired, unless it was renewed at that moment.
func (m *Mem) expire(id store.LeaseID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.leases[id]; l != nil && !m.closed && !time.Now().Before(l.ends) {
		m.end(id)
	}
}

// end removes the lease and deletes its keys, in their order, as one revision. The lock is held.
func (m *Mem) end(id store.LeaseID) {
	l := m.leases[id]
	if l == nil {
		return
	}
	l.timer.Stop()
	ops := make([]store.Op, 0, len(l.keys))
	for _, k := range slices.Sorted(maps.Keys(l.keys)) {
		ops = append(ops, store.Op{Key: k})
	}
	m.apply(ops)
	delete(m.leases, id)
}
