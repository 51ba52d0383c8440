// Package engine is what the members of the store's engine agree on, in memory, as room voter sees it: who is a member, who votes, and whether a majority can
// be reached. It stands for etcd where machines are simulated. Only tests use it.
//
// The invariants are etcd's: nothing changes without a majority of the voters; a member that has started never starts again without its data; one that was
// removed learns of it and stops. One of Flota's is checked: no change may take a working majority away, by what can be known (Unseen).
//
// It stores no keys and waits only on timers and channels, so it lives inside a testing/synctest bubble. What differs from etcd: there is no log, so a
// majority decides at once; the data directory holds a member's ID and nothing else.
//
// Start reading at Engine and Start.
package engine

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/store/etcd"
	"flota/internal/voter"
)

// Engine is all members. Make one with New. Safe for concurrent use.
type Engine struct {
	// Changed is told, without the lock, whenever who can reach a majority may have changed; Broken of what must not be. Set both before anything starts.
	Changed func()
	Broken  func(format string, args ...any)

	mu      sync.Mutex // guards the fields below
	next    uint64
	members []etcd.Member
	running map[uint64]*Member
	cut     map[string]bool      // addresses of machines that no other reaches
	lost    map[string]time.Time // when the member at an address was last seen to be there, of those that are not
	copying time.Duration        // how long a new learner needs
	lose    int                  // so many changes are made and answered with an error
}

// Unseen is how long the death of a machine stays unknown to the others: the lease of its presence (5 s), and the half second until it is taken for
// lost. A change that takes the majority away by a death this young is two failures at once.
const Unseen = 5500 * time.Millisecond

// New makes an engine without members.
func New() *Engine {
	return &Engine{Changed: func() {}, running: map[uint64]*Member{}, cut: map[string]bool{}, lost: map[string]time.Time{}, copying: time.Second}
}

// Cut says that nobody reaches the machine at an address, nor it anybody, or that it is well.
func (e *Engine) Cut(peer string, cut bool) {
	e.mu.Lock()
	was := e.cut[peer]
	e.cut[peer] = cut
	if cut && !was {
		e.lost[peer] = time.Now()
	}
	e.mu.Unlock()
	if was != cut {
		e.Changed()
	}
}

// Copying sets how long the next learners need to be complete.
func (e *Engine) Copying(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.copying = d
}

// Lose makes the next n changes happen and be answered with an error.
func (e *Engine) Lose(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lose = n
}

// Reach says what the machine at an address gets of the store: everything, or what is in some copy.
func (e *Engine) Reach(peer string) (all, stale bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.running {
		if r.peer == peer || !e.cut[r.peer] && !e.cut[peer] {
			stale = true
		}
	}
	return !e.cut[peer] && e.quorum(), stale
}

// Members gives the members, whoever asks.
func (e *Engine) Members() []etcd.Member {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.members)
}

// Quorum says whether a majority of the voters runs and reaches each other.
func (e *Engine) Quorum() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.quorum()
}

// Without says whether there would be a majority without the machine at an address.
func (e *Engine) Without(peer string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(e.members), func(m etcd.Member) bool { return m.Peer == peer })
	return e.majority(rest)
}

// quorum needs the lock, as all methods below.
func (e *Engine) quorum() bool { return e.majority(e.members) }

func (e *Engine) majority(members []etcd.Member) bool { return e.most(members, e.live) }

// live says whether a member runs and is reached.
func (e *Engine) live(m etcd.Member) bool {
	r := e.running[m.ID]
	return r != nil && !e.cut[r.peer]
}

// seemsLive says whether whoever asks for a change may still take a member for live.
func (e *Engine) seemsLive(m etcd.Member) bool {
	return e.live(m) || time.Since(e.lost[m.Peer]) < Unseen
}

// most says whether a majority of the voters among members is as is says.
func (e *Engine) most(members []etcd.Member, is func(etcd.Member) bool) bool {
	voters, yes := 0, 0
	for _, m := range members {
		if !m.Learner {
			voters++
			if is(m) {
				yes++
			}
		}
	}
	return yes > voters/2
}

func (e *Engine) find(id uint64) *etcd.Member {
	for i := range e.members {
		if e.members[i].ID == id {
			return &e.members[i]
		}
	}
	return nil
}

// Start is what etcd.Start does, for the machine at peer.
func (e *Engine) Start(how voter.Start, peer string) (*Member, error) {
	m, err := e.start(how, peer)
	if err == nil {
		e.Changed()
	}
	return m, err
}

func (e *Engine) start(how voter.Start, peer string) (*Member, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, err := e.identify(how, peer)
	if err != nil {
		return nil, err
	}
	if how.Force {
		e.members = []etcd.Member{{ID: id, Name: how.Name, Peer: peer, Started: true}}
	}
	if e.running[id] != nil {
		return nil, fault.New(fault.Internal, "member %x runs already", id)
	}
	m := &Member{e: e, id: id, peer: peer, stop: make(chan struct{})}
	e.running[id] = m
	switch at := e.find(id); {
	case at == nil:
		m.goes()
	case !at.Started:
		m.timer = time.AfterFunc(e.copying, func() { e.copied(m, how.Name) })
	}
	return m, nil
}

// copied marks a learner as complete, unless it has gone.
func (e *Engine) copied(m *Member, name string) {
	e.mu.Lock()
	at := e.find(m.id)
	if at != nil && !m.closed {
		at.Started, at.Name = true, name
	}
	e.mu.Unlock()
	e.Changed()
}

// identify finds out which member starts: the one whose data is there, a new one that others know, or the first of all.
func (e *Engine) identify(how voter.Start, peer string) (id uint64, err error) {
	wal := filepath.Join(how.Dir, "member", "wal")
	log := filepath.Join(wal, "0.wal")
	if b, err := os.ReadFile(log); err == nil {
		return strconv.ParseUint(string(b), 16, 64)
	}
	switch i := slices.IndexFunc(e.members, func(m etcd.Member) bool { return m.Peer == peer }); {
	case how.Force:
		return 0, fault.New(fault.NotFound, "there is no copy of the store")
	case !how.Existing && len(e.members) > 0:
		return 0, fault.New(fault.Internal, "a store is founded twice")
	case !how.Existing:
		e.next++
		id = e.next
		e.members = append(e.members, etcd.Member{ID: id, Name: how.Name, Peer: peer, Started: true})
	case i < 0 || len(how.Peers) != len(e.members) || how.Peers[how.Name] != peer:
		return 0, fault.New(fault.Conflict, "the members are others: %v", how.Peers)
	case e.members[i].Started:
		return 0, fault.New(fault.Conflict, "the member has run before, and its data is gone")
	default:
		id = e.members[i].ID
	}
	if err := os.MkdirAll(wal, 0o700); err != nil {
		return 0, err
	}
	return id, os.WriteFile(log, []byte(strconv.FormatUint(id, 16)), 0o600)
}

// change has a member ask for a change; the answer may be lost.
func (e *Engine) change(ctx context.Context, by *Member, what string, act func() error) error {
	err := e.agree(by, what, act)
	e.Changed()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err != nil:
	case e.lose > 0:
		e.lose--
		err = fault.New(fault.Unavailable, "%s: the answer was lost", what)
	case ctx.Err() != nil:
		err = fault.Wrap(fault.Unavailable, ctx.Err(), "%s", what)
	}
	return err
}

// agree makes a change if the members can agree.
func (e *Engine) agree(by *Member, what string, act func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if at := e.find(by.id); by.closed || at == nil || at.Learner || e.cut[by.peer] || !e.quorum() {
		return fault.New(fault.Unavailable, "%s: no quorum", what)
	}
	before := slices.Clone(e.members)
	err := act()
	if !e.most(e.members, e.seemsLive) {
		e.Broken("quorum: to %s took the majority away: %+v became %+v", what, before, e.members)
	}
	return err
}
