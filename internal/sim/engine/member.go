package engine

import (
	"context"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/store/etcd"
)

// Member is one running member. It lacks KV, which is the simulation's, to be a voter.Member.
type Member struct {
	e    *Engine
	id   uint64
	peer string
	stop chan struct{} // closed when it has stopped

	// Guarded by the engine's lock.
	closed  bool
	removed bool
	timer   *time.Timer // copying, or going; nil: neither
}

// learnWithin is how long a removed member needs to learn of it.
const learnWithin = time.Second

// goes ends a removed member when it hears of it.
func (m *Member) goes() {
	if m.timer != nil {
		m.timer.Stop()
	}
	m.timer = time.AfterFunc(learnWithin, func() {
		m.e.mu.Lock()
		defer m.e.mu.Unlock()
		switch {
		case m.closed:
		case m.e.cut[m.peer] || !m.e.quorum():
			m.goes()
		default:
			m.removed = true
			m.ends()
		}
	})
}

// ends makes it no running member any more.
func (m *Member) ends() {
	if m.e.running[m.id] == m {
		delete(m.e.running, m.id)
		m.e.lost[m.peer] = time.Now()
	}
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
}

// Members implements voter.Engine.
func (m *Member) Members(ctx context.Context) (all []etcd.Member, err error) {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	if m.closed || m.e.find(m.id) == nil || m.e.cut[m.peer] || !m.e.quorum() || ctx.Err() != nil {
		return nil, fault.New(fault.Unavailable, "list the members: no quorum")
	}
	return slices.Clone(m.e.members), nil
}

// AddLearner implements voter.Engine.
func (m *Member) AddLearner(ctx context.Context, peer string) (id uint64, all []etcd.Member, err error) {
	e := m.e
	err = e.change(ctx, m, "add "+peer, func() error {
		if slices.ContainsFunc(e.members, func(x etcd.Member) bool { return x.Peer == peer }) {
			return fault.New(fault.Exists, "%s is a member's address", peer)
		}
		e.next++
		id = e.next
		e.members = append(e.members, etcd.Member{ID: id, Peer: peer, Learner: true})
		all = slices.Clone(e.members)
		return nil
	})
	return id, all, err
}

// Promote implements voter.Engine.
func (m *Member) Promote(ctx context.Context, id uint64) error {
	e := m.e
	return e.change(ctx, m, "promote", func() error {
		at, r := e.find(id), e.running[id]
		switch {
		case at == nil:
			return fault.New(fault.NotFound, "no member %x", id)
		case !at.Started || r == nil || e.cut[r.peer]:
			return fault.New(fault.Unavailable, "its copy is not complete")
		}
		at.Learner = false
		return nil
	})
}

// Remove implements voter.Engine.
func (m *Member) Remove(ctx context.Context, id uint64) error {
	e := m.e
	return e.change(ctx, m, "remove", func() error {
		if e.find(id) == nil {
			return fault.New(fault.NotFound, "no member %x", id)
		}
		e.members = slices.DeleteFunc(e.members, func(x etcd.Member) bool { return x.ID == id })
		if r := e.running[id]; r != nil {
			r.goes()
		}
		return nil
	})
}

// MemberID implements voter.Member.
func (m *Member) MemberID() uint64 { return m.id }

// Stopped implements voter.Member.
func (m *Member) Stopped() <-chan struct{} { return m.stop }

// HandOver implements voter.Member: any of the others may lead.
func (m *Member) HandOver(context.Context) error { return nil }

// Removed implements voter.Member.
func (m *Member) Removed() bool {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	return m.removed
}

// Votes implements voter.Member.
func (m *Member) Votes() bool {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	at := m.e.find(m.id)
	return !m.closed && at != nil && !at.Learner && at.Started
}

// readyEvery is how often Ready looks.
const readyEvery = 50 * time.Millisecond

// Ready implements voter.Member.
func (m *Member) Ready(ctx context.Context) error {
	for {
		m.e.mu.Lock()
		at := m.e.find(m.id)
		ready := at != nil && at.Started && !m.e.cut[m.peer] && m.e.quorum()
		m.e.mu.Unlock()
		if ready {
			return nil
		}
		t := time.NewTimer(readyEvery)
		select {
		case <-t.C:
		case <-m.stop:
			t.Stop()
			return fault.New(fault.Unavailable, "the member has stopped")
		case <-ctx.Done():
			t.Stop()
			return fault.Wrap(fault.Unavailable, ctx.Err(), "the member is not ready")
		}
	}
}

// Close implements voter.Member.
func (m *Member) Close() error {
	m.e.mu.Lock()
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	m.ends()
	m.e.mu.Unlock()
	m.e.Changed()
	return nil
}
