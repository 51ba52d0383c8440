package voter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
	"flota/internal/store/etcd"
)

// do carries one step out: first the engine, then the record. Whoever dies in between leaves what the next plan repairs.
func (s *Steward) do(ctx context.Context, engine Engine, n *now, step quorum.Step) error {
	ctx, cancel := context.WithTimeout(ctx, actWait)
	defer cancel()
	id, err := member(step)
	if err != nil {
		return err
	}
	switch step.Kind {
	case quorum.Add:
		id, all, err := engine.AddLearner(ctx, step.Peer)
		if err != nil {
			return fmt.Errorf("make %s a learner: %w", step.Name, err)
		}
		n.peers, step.Member = all, quorum.MemberID(id)
		return s.write(ctx, n, step, machine.Learner)
	case quorum.Promote:
		if err := engine.Promote(ctx, id); err != nil {
			return fmt.Errorf("make %s a voter: %w", step.Name, err)
		}
		return s.write(ctx, n, step, machine.Voter)
	case quorum.Release:
		return s.write(ctx, n, step, machine.Client)
	case quorum.Record:
		return s.write(ctx, n, step, step.Role)
	case quorum.Remove:
		if err := engine.Remove(ctx, id); err != nil && !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("remove the member of %s: %w", step.Name, err)
		}
		n.peers = slices.DeleteFunc(n.peers, func(m etcd.Member) bool { return m.ID == id })
		if n.input.Votes[step.Machine].Member != step.Member {
			return nil // another member's vote, or none
		}
		return s.forget(ctx, n, step)
	case quorum.Forget:
		return s.forget(ctx, n, step)
	}
	return fault.New(fault.Internal, "step of an unknown kind %q", step.Kind)
}

// member reads the engine's ID of the step's member; 0 for none.
func member(step quorum.Step) (uint64, error) {
	if step.Member == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(step.Member, 16, 64)
	return id, fault.Wrap(fault.Internal, err, "%s", step)
}

// write writes a machine's vote down, as long as this machine leads.
func (s *Steward) write(ctx context.Context, n *now, step quorum.Step, role machine.Role) error {
	t := s.opts.Store.Voters
	v := machine.Vote{Machine: step.Machine, Role: role, Member: step.Member, Peers: n.names(step.Machine), Since: time.Now().UTC(), Reason: step.Reason}
	if old, ok := n.input.Votes[step.Machine]; ok && old.Member == v.Member && old.Role == v.Role {
		v.Since, v.Reason = old.Since, old.Reason // only the members beside it have changed
	}
	_, ok, err := s.opts.Store.KV.Commit(ctx, store.Txn{If: []store.Cond{n.guard}, Then: []store.Op{t.PutOp(string(step.Machine), v, 0)}})
	if err == nil && !ok {
		err = errLost
	}
	if err != nil {
		return fmt.Errorf("write down what %s is: %w", step.Name, err)
	}
	n.input.Votes[step.Machine] = v
	return nil
}

// forget deletes a machine's vote, as long as this machine leads.
func (s *Steward) forget(ctx context.Context, n *now, step quorum.Step) error {
	_, ok, err := s.opts.Store.KV.Commit(ctx, store.Txn{If: []store.Cond{n.guard}, Then: []store.Op{s.opts.Store.Voters.DeleteOp(string(step.Machine))}})
	if err == nil && !ok {
		err = errLost
	}
	if err != nil {
		return fmt.Errorf("forget the vote of %s: %w", step.Name, err)
	}
	delete(n.input.Votes, step.Machine)
	return nil
}

// show replaces the status.
func (s *Steward) show(st Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = st
}

// plan shows a new plan and the members it starts from. What is being waited for or done keeps its time.
func (s *Steward) plan(n *now, p quorum.Plan) {
	st := Status{Leads: true, Planned: time.Now(), Voters: p.Voters, Doing: p.Steps, Waiting: p.Waiting, Members: n.parts()}
	s.mu.Lock()
	old := s.status
	switch {
	case len(p.Steps) == 0:
	case len(old.Doing) > 0 && old.Doing[0] == p.Steps[0]:
		st.Since, st.Trouble = old.Since, old.Trouble
	default:
		st.Since = st.Planned
	}
	s.status = st
	s.mu.Unlock()
	if !slices.Equal(old.Waiting, p.Waiting) && len(p.Waiting) > 0 {
		s.opts.Log.Info("the store's members are not as they should be yet", "waiting", p.Waiting)
	}
}

// parts tells who the members are.
func (n *now) parts() (out []Part) {
	for _, m := range n.peers {
		p := Part{Name: m.Name, Role: machine.Voter, Member: quorum.MemberID(m.ID)}
		if m.Learner {
			p.Role = machine.Learner
		}
		for id, v := range n.input.Votes {
			if v.Member == p.Member {
				p.Machine, p.Since, p.Reason = id, v.Since, v.Reason
			}
		}
		for _, x := range n.input.Machines {
			if x.ID == p.Machine {
				p.Name, p.Alive = x.Name, x.Alive
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Part) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Member, b.Member)) })
	return out
}

// did notes a step that is done.
func (s *Steward) did(step quorum.Step, rest []quorum.Step) {
	s.opts.Log.Info("changed the store's members", "step", step.Kind, "machine", step.Name, "member", step.Member, "reason", step.Reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Doing, s.status.Since, s.status.Trouble = rest, time.Now(), ""
}

// failed notes one that is not, and is tried again with the next plan.
func (s *Steward) failed(step quorum.Step, err error) {
	if errors.Is(err, errLost) {
		return
	}
	if step.Kind == quorum.Promote && fault.Is(err, fault.Unavailable) {
		err = fault.New(fault.Unavailable, "%s is to vote when its copy of the store is complete (%w)", step.Name, err)
	}
	s.trouble(err)
}

// trouble notes why nothing goes on, and logs it once.
func (s *Steward) trouble(err error) {
	s.mu.Lock()
	first := s.status.Trouble == ""
	s.status.Leads, s.status.Trouble = true, err.Error()
	s.mu.Unlock()
	if first && !errors.Is(err, context.Canceled) {
		s.opts.Log.Warn("the store's members cannot be changed now; trying again", "err", err)
	}
}
