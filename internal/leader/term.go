package leader

import (
	"context"
	"time"

	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/unit"
	"flota/internal/view"
)

// coalesce is how long changes are gathered before planning. 5 ms: nobody notices, and a burst of a hundred
// changes makes one plan.
const coalesce = 5 * time.Millisecond

// term plans and acts until ctx ends (nil), the outcome of a write is unknown (errUnknown), or the view stays behind (errBehind).
func (l *leader) term(ctx context.Context, held *store.Leadership) error {
	// The view has then seen everything that earlier leaders wrote: later writes of theirs are refused.
	if l.opts.View.Await(ctx, held.Guard().Created) != nil {
		return nil
	}
	w := waiter{leader: l}
	for ctx.Err() == nil {
		changed := l.opts.View.Changed()
		plan, moves := l.plan(held.Guard(), w.asked != nil)
		l.status.Waiting, l.status.Brake, l.status.Planned = plan.Waiting, plan.Brake, time.Now()
		rev, refused, err := l.carryOut(ctx, moves)
		l.opts.Desk.put(l.status)
		w.answer(plan, err)
		if err != nil {
			return err
		}
		if err := l.awaitView(ctx, rev); err != nil {
			return err
		}
		if !w.wait(ctx, changed, plan.Next, len(moves) > 0, refused) {
			return nil
		}
	}
	return nil
}

// maxSteps is how many plans in a row may have moves before the next ones wait. 20 is more than any move has steps; a
// scheduler that never comes to rest must not keep the store busy.
const maxSteps = 20

// awaitView waits until the view has seen rev. A view that stays behind for two terms of the lease costs its leader the
// leadership: errBehind.
func (l *leader) awaitView(ctx context.Context, rev int64) error {
	try, cancel := context.WithTimeout(ctx, 2*l.opts.TTL)
	defer cancel()
	if l.opts.View.Await(try, rev) != nil && ctx.Err() == nil {
		return errBehind
	}
	return nil
}

// waiter waits between two plans.
type waiter struct {
	leader *leader
	again  backoff
	steps  int  // plans in a row that had moves
	asked  *ask // somebody wants the next plan to rebalance
}

// answer gives the plan to who asked for it.
func (w *waiter) answer(plan scheduler.Plan, err error) {
	if w.asked != nil {
		w.asked.done <- answer{plan, err}
		w.asked = nil
	}
}

// wait waits for a change, for the time next (zero: never) or for a request, and then a little for more changes. After a
// plan that moved something there may be a next step: it waits the little only, and longer if moves are refused. false: ctx ended.
func (w *waiter) wait(ctx context.Context, changed <-chan struct{}, next time.Time, moved, refused bool) bool {
	pause := coalesce
	if w.steps++; !moved {
		w.steps = 0
	}
	if refused || w.steps > maxSteps {
		pause = w.again.next()
	} else {
		w.again = 0
	}
	if !moved {
		var due <-chan time.Time
		if !next.IsZero() {
			t := time.NewTimer(time.Until(next))
			defer t.Stop()
			due = t.C
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		case <-due:
		case a := <-w.leader.opts.Desk.asks:
			w.asked = &a
		}
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		w.answer(scheduler.Plan{}, errUnknown)
		return false
	case <-t.C:
		return true
	}
}

// plan makes a plan of what the view shows, with the transactions of its moves; one that rebalances if that is asked for.
func (l *leader) plan(guard store.Cond, rebalance bool) (plan scheduler.Plan, moves []move) {
	l.opts.View.Look(func(c *view.Cluster) {
		now := time.Now()
		l.units.refresh(c)
		make := scheduler.Make
		if rebalance {
			make = scheduler.Rebalance
		}
		plan = make(l.cluster(c, now), now)
		var wait time.Time
		for _, m := range plan.Moves {
			if at := notBefore(c, m, now); at.After(wait) {
				wait = at
			}
		}
		touched := map[string]bool{}
		for _, m := range plan.Moves {
			if !wait.IsZero() && !l.harmless(m) {
				continue
			}
			if one, ok := l.move(c, m, guard); ok && one.touch(touched) {
				moves = append(moves, one)
			}
		}
		if !wait.IsZero() && (plan.Next.IsZero() || wait.Before(plan.Next)) {
			plan.Next = wait
		}
	})
	return plan, moves
}

// settle is how long a machine must have been lost before anything is moved off it. When a quorum returns after all leases have
// run out, etcd ends them one by one, in any order, the leader's own among them: the brake must see all of them before the first
// is acted upon. 500 ms is the interval at which etcd looks for leases that have run out (server/v3/lease); it costs as much of the
// 10 s that a dead machine's units may take.
const settle = 500 * time.Millisecond

// notBefore is when a move may be made: later than now for one off a machine that was lost only just, or of which nothing is known
// yet because this process has just started. The zero time is now.
func notBefore(c *view.Cluster, m scheduler.Move, now time.Time) time.Time {
	if _, alive := c.Alive[m.From]; alive || m.From == "" {
		return time.Time{}
	}
	since, lost := c.Lost(m.From, now)
	if !lost {
		return c.Heard()
	}
	if at := since.Add(settle); at.After(now) {
		return at
	}
	return time.Time{}
}

// harmless says whether a move can be carried out though others of its plan are not: it changes a place where it is, ends
// that of a unit nobody wants, or places a unit that needs nothing of where others are.
func (l *leader) harmless(m scheduler.Move) bool {
	u, wanted := l.units.get(m.Unit)
	wanted = wanted && u.Target != unit.Inactive
	switch m.Kind {
	case scheduler.KindUpdate, scheduler.KindFinish:
		return true
	case scheduler.KindRemove:
		return !wanted
	case scheduler.KindPlace:
		return len(u.Fleet.Replaces)+len(u.Fleet.MachineOf) == 0
	}
	return false
}

// cluster gives the view as the scheduler wants it. It is valid while the view is looked at.
func (l *leader) cluster(c *view.Cluster, now time.Time) scheduler.Cluster {
	out := scheduler.Cluster{
		Units:    l.units.list,
		States:   c.State,
		Lease:    l.opts.Lease,
		Machines: make([]scheduler.Machine, 0, len(c.Machines)),
	}
	for id, e := range c.Machines {
		m := scheduler.Machine{Machine: e.Value}
		if p, ok := c.Alive[id]; ok {
			m.Presence, m.Blinked = &p.Value, c.Blinked(id)
		} else if since, lost := c.Lost(id, now); lost {
			m.Lost = since
		}
		out.Machines = append(out.Machines, m)
	}
	for _, places := range c.Places {
		for _, e := range places {
			out.Places = append(out.Places, e.Value)
		}
	}
	return out
}
