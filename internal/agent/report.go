package agent

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/unit"
)

// reportGather is how long changes of states are collected before they are written. 20 ms: nobody notices, and a thousand
// units that start together make tens of transactions.
const reportGather = 20 * time.Millisecond

// reportOps is how many states one transaction writes. 50: half of what etcd takes, each with its condition.
const reportOps = 50

// reporter writes all of this machine's keys: the states, and the presence last, so that whoever sees the presence sees the
// states too. Each write is conditional on what the key was, so that a write which comes late changes nothing.
type reporter struct {
	lease store.LeaseID    // what known is written under
	known map[string]known // what the store has, by full key; nil: it must be read first
	again map[string]bool  // keys whose last write has an unknown outcome: written once more whatever is known
}

// known is one key as the store has it.
type known struct {
	value []byte
	rev   int64
	lease store.LeaseID
}

// keepReport publishes whatever changes, until ctx ends. It alone writes this machine's keys meanwhile.
func (a *Agent) keepReport(ctx context.Context) {
	var again backoff
	for {
		var asked *claim
		select {
		case <-ctx.Done():
			return
		case <-a.report:
			if !pause(ctx, reportGather, nil) {
				return
			}
		case c := <-a.claimq:
			asked = &c
		}
		err := a.publish(ctx)
		if err == nil && asked != nil {
			asked.done <- a.commitClaim(ctx, *asked)
		} else if asked != nil {
			asked.done <- err
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			again = 0
		case err == errOther: // which was waited for
			again = 0
			poke(a.report)
		case err != errWait: // which something else will end
			again.wait(ctx, nil)
			poke(a.report)
		}
	}
}

// errWait is given by publish when there is nothing to do before something else changes.
var errWait = fault.New(fault.Unavailable, "the machine's presence is not in the store yet")

// publish makes the store say what the machine is: nil when it does.
func (a *Agent) publish(ctx context.Context) error {
	a.mu.Lock()
	l, driven := a.lease, a.driven
	a.mu.Unlock()
	if l.id == 0 || !driven && a.tell.lease != l.id {
		return errWait
	}
	return a.publishUnder(ctx, l)
}

// publishUnder publishes everything under the lease: states that are gone or new, and the presence last.
func (a *Agent) publishUnder(ctx context.Context, l lease) error {
	r := &a.tell
	if r.lease != l.id {
		r.lease, r.known = l.id, nil
	}
	if r.known == nil {
		if err := a.readOwn(ctx, l); err != nil {
			return err
		}
	}
	if err := a.publishStates(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	p := a.opts.Presence
	p.Leaving, p.Restarting = a.leaving, a.parting
	a.mu.Unlock()
	op := a.opts.Store.Alive.PutOp(string(a.opts.ID), p, l.id)
	if r.has(op) {
		a.confirm(l.id)
		return nil
	}
	if err := a.write(ctx, []store.Op{op}, nil); err != nil {
		return err
	}
	a.confirm(l.id)
	return nil
}

// readOwn reads what the store has of this machine: first whose presence it is.
func (a *Agent) readOwn(ctx context.Context, l lease) error {
	s := a.opts.Store
	key := s.Alive.Prefix() + string(a.opts.ID)
	alive, rev, err := s.KV.List(ctx, key, store.Read{})
	if err != nil {
		return err
	}
	own := map[string]known{}
	for _, it := range alive {
		e, err := s.Alive.Decode(it)
		if err == nil && !a.ours(e.Value) {
			a.awaitOther(ctx, key, rev, e.Value)
			return errOther
		}
		own[it.Key] = known{it.Value, it.Rev, it.Lease}
		if it.Lease != 0 && it.Lease != l.id {
			if err := a.takeOver(ctx, it.Lease, l); err != nil {
				return err
			}
		}
	}
	states, _, err := s.KV.List(ctx, s.States.Prefix()+store.PlaceKey(a.opts.ID, ""), store.Read{})
	if err != nil {
		return err
	}
	for _, it := range states {
		own[it.Key] = known{it.Value, it.Rev, it.Lease}
	}
	a.tell.known = own
	a.mu.Lock()
	defer a.mu.Unlock()
	a.other = ""
	if !a.mine {
		a.mine = true
		a.settleAll()
	}
	return nil
}

// takeOver prepares to put the presence, which is under a lease of an agent that ran here before, under ours. That lease may
// be longer and the fence with it, or about to end: it is renewed, and the fence is set to what our lease allows.
func (a *Agent) takeOver(ctx context.Context, old store.LeaseID, l lease) error {
	if err := a.opts.Store.KV.Renew(ctx, old); err != nil {
		return err // if it has ended, the next try finds no presence
	}
	left := time.Until(l.sent.Add(a.opts.TTL - fenceMargin))
	if left <= 0 {
		return errWait // the next renewal of ours is soon; the old presence is good until then
	}
	return a.opts.Driver.Fence(ctx, left)
}

// errOther is given while another agent's presence is in the store under our ID.
var errOther = fault.New(fault.Conflict, "another agent runs with this machine id")

// ours says whether the presence is of this agent or of one before it on this machine.
func (a *Agent) ours(p machine.Presence) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.starts, func(s start) bool { return s.BootID == p.BootID && s.Started.Equal(p.Started) })
}

// awaitOther waits until the presence of the other agent changes or ends. Nothing is done with units meanwhile.
func (a *Agent) awaitOther(ctx context.Context, key string, rev int64, p machine.Presence) {
	who := p.Name + " at " + p.Addr
	a.mu.Lock()
	if a.other != who {
		a.opts.Log.Error("another agent runs with this machine id; waiting until it is gone", "machine", a.opts.ID, "other", who)
	}
	a.other, a.mine = who, false
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, a.opts.TTL)
	defer cancel()
	for u := range a.opts.Store.KV.Watch(ctx, key, rev) {
		if u.Err != nil || len(u.Events) > 0 {
			return
		}
	}
}

// publishStates writes the states that differ from what the store has.
func (a *Agent) publishStates(ctx context.Context) error {
	r, s := &a.tell, a.opts.Store
	want := a.states()
	var ops []store.Op
	for _, name := range slices.Sorted(maps.Keys(want)) {
		op := s.States.PutOp(store.PlaceKey(a.opts.ID, name), want[name], r.lease)
		if !r.has(op) {
			ops = append(ops, op)
		}
	}
	prefix := s.States.Prefix() + store.PlaceKey(a.opts.ID, "")
	for _, key := range slices.Sorted(maps.Keys(r.known)) {
		name, ok := strings.CutPrefix(key, prefix)
		if _, wanted := want[unit.Name(name)]; ok && !wanted {
			ops = append(ops, store.Op{Key: key})
		}
	}
	ops = append(ops, a.overtake(prefix, want)...)
	for batch := range slices.Chunk(ops, reportOps) {
		if err := a.write(ctx, batch, nil); err != nil {
			return err
		}
	}
	return nil
}

// overtake gives ops for states that the store does not have and shall not have, but whose last write may still come
// late: they are written, so that it cannot any more, and deleted by the next publishing, which write asks for.
func (a *Agent) overtake(prefix string, want map[unit.Name]unit.State) []store.Op {
	r := &a.tell
	var ops []store.Op
	for _, key := range slices.Sorted(maps.Keys(r.again)) {
		name, ok := strings.CutPrefix(key, prefix)
		if _, wanted := want[unit.Name(name)]; !ok || wanted {
			continue
		}
		if _, there := r.known[key]; !there {
			gone := unit.State{Unit: unit.Name(name), Machine: a.opts.ID, Load: notFound, Active: "inactive", Sub: "dead"}
			ops = append(ops, a.opts.Store.States.PutOp(store.PlaceKey(a.opts.ID, gone.Unit), gone, r.lease))
		}
	}
	return ops
}

// states gives what to publish of each unit: what the driver tells, what could not be done, and what is claimed.
func (a *Agent) states() map[unit.Name]unit.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[unit.Name]unit.State, len(a.units))
	for name, s := range a.units {
		s.Machine = a.opts.ID
		out[name] = s
	}
	for name, message := range a.trouble {
		s, ok := out[name]
		if !ok {
			w, placed := a.wanted.list[name]
			if !placed {
				continue
			}
			s = unit.State{Unit: name, Machine: a.opts.ID, Hash: w.hash, Load: "error", Active: "inactive", Sub: "dead", Since: w.place.Since}
		}
		s.Message = message
		out[name] = s
	}
	for name, run := range a.claims {
		s := out[name]
		s.Unit, s.Machine, s.Run = name, a.opts.ID, run
		s.Active, s.Sub = "activating", "start"
		if s.Load == "" {
			s.Load = "loaded"
		}
		out[name] = s
	}
	return out
}

// has says whether the store has what op would put, as far as is known.
func (r *reporter) has(op store.Op) bool {
	k, ok := r.known[op.Key]
	return ok && k.lease == op.Lease && bytes.Equal(k.value, op.Value) && !r.again[op.Key]
}

// write commits ops on the condition that all their keys are as known, and the extra conditions hold. After anything but a
// success, what the store has is read anew.
func (a *Agent) write(ctx context.Context, ops []store.Op, extra []store.Cond) error {
	r := &a.tell
	t := store.Txn{If: extra, Then: ops}
	for _, op := range ops {
		t.If = append(t.If, store.Cond{Key: op.Key, Rev: r.known[op.Key].rev})
	}
	rev, ok, err := a.opts.Store.KV.Commit(ctx, t)
	if err != nil || !ok {
		if err != nil && !fault.Is(err, fault.Invalid) {
			r.mark(ops)
		}
		r.known = nil
		if err == nil {
			return fault.New(fault.Conflict, "the store has something else than this agent wrote")
		}
		return err
	}
	for _, op := range ops {
		if r.again[op.Key] {
			delete(r.again, op.Key)
			poke(a.report) // see overtake
		}
		if op.Value == nil {
			delete(r.known, op.Key)
		} else {
			r.known[op.Key] = known{op.Value, rev, op.Lease}
		}
	}
	return nil
}

// mark notes that the outcome of writing these keys is unknown.
func (r *reporter) mark(ops []store.Op) {
	if r.again == nil {
		r.again = map[string]bool{}
	}
	for _, op := range ops {
		r.again[op.Key] = true
	}
}
