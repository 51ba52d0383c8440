package voter

import (
	"context"
	"fmt"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
	"flota/internal/store/etcd"
)

// actWait bounds one call of the engine. 5 s: an election and a slow disk fit in.
const actWait = 5 * time.Second

// now is what a plan is made of, and the election that it was read under.
type now struct {
	input quorum.Input
	guard store.Cond
	// peers are the engine's members; brought up to date by the steps.
	peers []etcd.Member
}

// errLost ends a round of a steward whose machine leads no more.
var errLost = fault.New(fault.Conflict, "this machine does not lead the cluster any more")

// term gives the condition that this machine leads, read linearizably: errLost if it does not.
func (s *Steward) term(ctx context.Context) (store.Cond, error) {
	it, ok, err := s.opts.Store.KV.Get(ctx, leaderKey, store.Read{})
	if err != nil {
		return store.Cond{}, err
	}
	if !ok || machine.ID(it.Value) != s.opts.ID {
		return store.Cond{}, errLost
	}
	return store.Cond{Key: leaderKey, Created: it.Created}, nil
}

// lead checks that the term has not ended. The engine knows no guard: a steward that is stopped between this and its act, for as long as an
// election takes, may act late; the next plan sees what it did.
func (s *Steward) lead(ctx context.Context, guard store.Cond) error {
	now, err := s.term(ctx)
	if err == nil && now != guard {
		err = errLost
	}
	return err
}

// read reads everything, linearizably. The members come last, so that no member is older than its vote.
func (s *Steward) read(ctx context.Context, engine Engine) (n *now, err error) {
	n = &now{input: quorum.Input{Votes: map[machine.ID]machine.Vote{}, Settings: s.opts.Settings}}
	if n.guard, err = s.term(ctx); err != nil {
		return nil, err
	}
	st := s.opts.Store
	machines, _, err := st.Machines.List(ctx, "", store.Read{})
	if err != nil {
		return nil, fmt.Errorf("read the machines: %w", err)
	}
	alive, _, err := st.Alive.List(ctx, "", store.Read{})
	if err != nil {
		return nil, fmt.Errorf("read who is there: %w", err)
	}
	votes, _, err := st.Voters.List(ctx, "", store.Read{})
	if err != nil {
		return nil, fmt.Errorf("read the votes: %w", err)
	}
	for _, e := range votes {
		n.input.Votes[machine.ID(e.Key)] = e.Value
	}
	there := map[machine.ID]machine.Presence{}
	for _, e := range alive {
		there[machine.ID(e.Key)] = e.Value
	}
	for _, e := range machines {
		p, ok := there[e.Value.ID]
		n.input.Machines = append(n.input.Machines, s.machine(e.Value, p, ok))
	}
	ask, cancel := context.WithTimeout(ctx, actWait)
	defer cancel()
	if n.peers, err = engine.Members(ask); err != nil {
		return nil, fmt.Errorf("read the store's members: %w", err)
	}
	n.members()
	return n, nil
}

// members hands the engine's members to the input.
func (n *now) members() {
	n.input.Members = nil
	for _, m := range n.peers {
		n.input.Members = append(n.input.Members, quorum.Member{ID: quorum.MemberID(m.ID), Name: m.Name, Peer: m.Peer, Learner: m.Learner, Started: m.Started})
	}
}

// machine is a machine as the plan wants it.
func (s *Steward) machine(m machine.Machine, p machine.Presence, alive bool) quorum.Machine {
	lost, back := s.seen.since(m.ID)
	out := quorum.Machine{ID: m.ID, Name: m.Name, Joined: m.Joined, Alive: alive, Back: back, Witness: m.Witness, Drained: m.Drained}
	out.Zone = machine.Labels(p, m)["zone"]
	out.Removing = s.opts.Removing != nil && s.opts.Removing(m)
	if !alive {
		out.Lost = lost
		return out
	}
	out.Peer, out.Leaving = p.Peer, p.Leaving
	if s.opts.Runs != nil {
		out.Member = s.opts.Runs(p)
	}
	return out
}

// names gives the members by name, as the member of the machine m is to be started beside them: what they call themselves, or their machines' names.
func (n *now) names(m machine.ID) map[string]string {
	byPeer, mine := map[string]string{}, ""
	for _, x := range n.input.Machines {
		if x.Peer != "" {
			byPeer[x.Peer] = x.Name
		}
		if x.ID == m {
			mine = x.Peer
		}
	}
	out := map[string]string{}
	if mine != "" {
		out[byPeer[mine]] = mine
	}
	for _, p := range n.peers {
		name := p.Name
		if name == "" {
			name = byPeer[p.Peer]
		}
		if _, taken := out[name]; p.Peer != mine && (taken || name == "") {
			name = quorum.MemberID(p.ID)
		}
		if p.Peer != mine {
			out[name] = p.Peer
		}
	}
	return out
}
