package sim

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"flota/internal/agent"
	"flota/internal/fault"
	"flota/internal/leader"
	"flota/internal/machine"
	"flota/internal/sim/engine"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/store/relay"
	"flota/internal/view"
	"flota/internal/voter"
)

// seat is a process's part in the store, as room daemon keeps it: the relay that all rooms use, and view and leader while the machine votes.
type seat struct {
	n     *Node
	p     *process
	relay *relay.Relay
	log   *slog.Logger

	mu      sync.Mutex // guards the fields below
	local   *voter.Local
	steward *voter.Steward

	end  context.CancelFunc // of what leads; nil: nothing does. For change only, as the next
	lead sync.WaitGroup
}

// run takes part in the store until ctx ends.
func (s *seat) run(ctx context.Context, st *store.Store) {
	local := s.open(ctx, st)
	if local == nil {
		return
	}
	steward := voter.NewSteward(voter.StewardOptions{
		ID: s.n.id, Store: s.p.as("steward"), Engine: local.Engine, Settings: s.n.c.council.settings, Log: s.log,
		Removing: func(m machine.Machine) bool { return m.Leaving },
	})
	s.mu.Lock()
	s.local, s.steward = local, steward
	s.mu.Unlock()
	var hands sync.WaitGroup
	hands.Go(func() { _ = steward.Run(ctx) })
	hands.Go(func() { _ = store.Follow(ctx, st.KV, st.Removed.Prefix()+string(s.n.id), removal{s}, nil) })
	if err := local.Run(ctx); err != nil {
		s.n.c.fail("%s: its part in the store: %v", s.n.name, err)
	}
	hands.Wait()
	_ = local.Close()
}

// open opens the machine's part in the store; what fails is tried again, as by a service manager.
func (s *seat) open(ctx context.Context, st *store.Store) *voter.Local {
	n := s.n
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		err := os.MkdirAll(filepath.Dir(n.copy), 0o700)
		n.c.must(err)
		local, err := voter.Open(ctx, voter.LocalOptions{
			ID: n.id, Name: n.name, Dir: n.copy, Store: st, Found: n.i == 1, Start: s.start, Changed: s.change,
			Authority:     func(context.Context) error { n.set(func() { n.holds = true }); return nil },
			DropAuthority: func() error { n.set(func() { n.holds = false }); return nil },
			Epoch:         n.epochNow,
			SetEpoch:      func(e int) error { n.set(func() { n.epoch = e }); return nil },
			Highest:       n.highest,
			Log:           s.log,
		})
		if err == nil {
			return local
		}
		n.c.tell("%s: open its part in the store: %v", n.name, err)
	}
	return nil
}

// opened gives what run opened, nil before.
func (s *seat) opened() *voter.Local {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local
}

// status is what its steward knows.
func (s *seat) status() (voter.Status, voter.Role, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.local == nil {
		return voter.Status{}, voter.Role{}, false
	}
	return s.steward.Status(), s.local.Role(), true
}

// start starts the machine's member.
func (s *seat) start(_ context.Context, how voter.Start) (voter.Member, error) {
	var m *engine.Member
	err := s.p.gate.through(func() (err error) { m, err = s.n.c.engine().Start(how, s.n.peer); return err })
	if err != nil {
		if m != nil {
			_ = m.Close() // it was started by a process that has died
		}
		return nil, err
	}
	return member{m, s}, nil
}

// change moves the process over to another part.
func (s *seat) change(_ context.Context, r voter.Role) error {
	if s.end != nil {
		s.end()
		s.lead.Wait()
		s.end = nil
		s.p.desk.Store(nil)
	}
	s.relay.Use(s.p.client)
	if !r.Votes {
		return nil
	}
	ctx, cancel := context.WithCancel(s.n.c.t.Context())
	s.end = cancel
	st, desk := s.p.as("leader"), leader.NewDesk()
	s.p.desk.Store(desk)
	v := view.New(view.Options{Store: st, Log: s.log})
	s.lead.Go(func() { _ = v.Run(ctx) })
	s.lead.Go(func() {
		_ = leader.Run(ctx, leader.Options{ID: s.n.id, Store: st, View: v, Desk: desk, Lease: agent.DefaultTTL, Log: s.log})
	})
	return nil
}

// removal is told that the cluster has removed the machine.
type removal struct{ *seat }

// Reset implements store.Follower.
func (r removal) Reset(items []store.Item, _ int64) {
	if len(items) > 0 {
		r.n.c.late.Go(func() { r.n.evicted(r.p) })
	}
}

// Apply implements store.Follower.
func (r removal) Apply(u store.Update) {
	if !u.Events[0].Deleted {
		r.n.c.late.Go(func() { r.n.evicted(r.p) })
	}
}

// member is a member of the store whose process may stand still or die.
type member struct {
	*engine.Member
	s *seat
}

var _ voter.Member = member{}

// KV implements voter.Member.
func (m member) KV() store.KV { return healthy{m.s.p.client, m.s} }

// Members implements voter.Engine.
func (m member) Members(ctx context.Context) (all []etcd.Member, err error) {
	err = m.s.p.gate.through(func() (err error) { all, err = m.Member.Members(ctx); return err })
	return all, err
}

// AddLearner implements voter.Engine.
func (m member) AddLearner(ctx context.Context, peer string) (id uint64, all []etcd.Member, err error) {
	err = m.s.p.gate.write(func() (err error) { id, all, err = m.Member.AddLearner(ctx, peer); return err })
	return id, all, err
}

// Promote implements voter.Engine.
func (m member) Promote(ctx context.Context, id uint64) error {
	return m.s.p.gate.write(func() error { return m.Member.Promote(ctx, id) })
}

// Remove implements voter.Engine.
func (m member) Remove(ctx context.Context, id uint64) error {
	m.s.n.c.checkRemove(id)
	return m.s.p.gate.write(func() error { return m.Member.Remove(ctx, id) })
}

// healthy is a member's own way to the store: it knows whether there is a majority.
type healthy struct {
	store.KV
	s *seat
}

// Health implements store.KV.
func (h healthy) Health(context.Context) store.Health {
	all, _ := h.s.n.c.engine().Reach(h.s.n.peer)
	return store.Health{Quorum: all}
}

// set changes what lies on the machine's disk.
func (n *Node) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *Node) epochNow() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.epoch
}

// highest is the highest epoch that other machines know.
func (n *Node) highest(context.Context) (int, error) {
	highest := 0
	for _, x := range n.c.all() {
		if x != n && x.current() != nil && x.hears() && n.hears() && !x.isGone() {
			highest = max(highest, x.epochNow())
		}
	}
	if highest == 0 {
		return 0, fault.New(fault.Unavailable, "nobody answers")
	}
	return highest, nil
}
