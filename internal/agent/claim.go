package agent

import (
	"context"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/unit"
)

// An exclusive unit must never run twice, so before it is started the agent claims it: one transaction that puts its state as activating
// under this machine's lease, on the condition that its place is still the one that was seen. The leader moves an exclusive unit
// only on the condition that its state is as it saw it, so of a claim and a move only one happens. A claim stays
// published until the driver itself tells of the start.

// claim asks the reporting goroutine to claim a unit.
type claim struct {
	task Task
	done chan error // capacity 1
}

// claim claims the task's unit if it is exclusive; it returns when the store has the claim.
func (a *Agent) claim(ctx context.Context, t Task) error {
	a.mu.Lock()
	w, ok := a.wanted.list[t.Name]
	a.mu.Unlock()
	if !ok || !w.exclusive {
		return nil
	}
	c := claim{t, make(chan error, 1)}
	select {
	case a.claimq <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commitClaim writes the claim. Everything else is published already; only the reporting goroutine calls it.
func (a *Agent) commitClaim(ctx context.Context, c claim) error {
	a.mu.Lock()
	w, ok := a.wanted.list[c.task.Name]
	l := a.lease
	ok = ok && w.rev != 0 && w.place.Unit.Run == c.task.Unit.Run && l.confirmed && l.id == a.tell.lease
	if ok {
		a.claims[c.task.Name] = c.task.Unit.Run
	}
	a.mu.Unlock()
	if !ok {
		return fault.New(fault.Conflict, "the exclusive unit %s cannot be claimed: its place or the machine's lease changed", c.task.Name)
	}
	key := store.PlaceKey(a.opts.ID, c.task.Name)
	s := a.states()[c.task.Name]
	op := a.opts.Store.States.PutOp(key, s, l.id)
	err := a.write(ctx, []store.Op{op}, []store.Cond{a.opts.Store.Places.IfRev(key, w.rev)})
	if err != nil {
		a.unclaim(c.task.Name)
		return fault.Wrap(fault.KindOf(err), err, "claim the exclusive unit %s", c.task.Name)
	}
	return nil
}

// started ends a claim whose start did not work, or that the driver has told of already.
func (a *Agent) started(t Task, err error) {
	a.mu.Lock()
	told := a.units[t.Name].Run == t.Unit.Run
	a.mu.Unlock()
	if err != nil || told {
		a.unclaim(t.Name)
	}
}

// unclaim takes a claim back: the unit was not started.
func (a *Agent) unclaim(name unit.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.claims[name]; ok {
		delete(a.claims, name)
		poke(a.report)
	}
}
