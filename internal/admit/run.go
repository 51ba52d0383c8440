package admit

import (
	"context"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// keepRemoved is how long a removed machine is remembered: longer than its certificate could be valid. Source: machine.Gone.
const keepRemoved = 30 * 24 * time.Hour

// leftFor is how long a voter waits after it saw that a machine has left: the machine hears first that its last write arrived.
const leftFor = time.Second

// workWithin bounds one round of what Run does, so that a store that hangs does not hold it up for good.
const workWithin = time.Minute

// Run does what is left to do until ctx ends: it finishes removals (of machines that left, and those that another desk died over), carries a
// change of the authority on, and forgets tokens and removed machines whose time is over. Every machine runs it; those that hold the
// authority's key act, and all follow what becomes of the authority. Several at once do no harm: every step is one guarded transaction.
func (d *Desk) Run(ctx context.Context) error {
	c := &chores{st: d.o.Store, wake: make(chan struct{}, 1)}
	follow, end := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer end()
	for _, p := range []string{c.st.Machines.Prefix(), c.st.Removed.Prefix(), c.st.Cluster.Prefix(), c.st.Voters.Prefix(), c.st.Alive.Prefix()} {
		done.Go(func() { _ = store.Follow(follow, c.st.KV, p, c, nil) }) // ends with follow
	}
	done.Go(func() { d.heed(follow) })
	tick := time.NewTicker(d.o.Tick)
	defer tick.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	due := true // to prune
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-tick.C:
			due = true
		case <-again.C:
		}
		if !d.mayAct() {
			continue
		}
		if due {
			due = !d.try(ctx, "prune", d.prune)
		}
		well := d.try(ctx, "finish removals", d.finish)
		well = d.try(ctx, "change the authority", d.advance) && well
		if !well {
			again.Reset(10 * retryMax)
		}
	}
}

// try does one piece of work and logs what goes wrong, if it is more than the store being away; false: to be tried again.
func (d *Desk) try(ctx context.Context, what string, work func(context.Context) error) bool {
	try, cancel := context.WithTimeout(ctx, workWithin)
	defer cancel()
	err := work(try)
	if err != nil && ctx.Err() == nil {
		level := d.o.Log.Warn
		if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.TimedOut) {
			level = d.o.Log.Debug
		}
		level("work of the desk is to be done again", "work", what, "err", err)
	}
	return err == nil
}

// chores wakes Run when something changed that may need work. It is told by several goroutines.
type chores struct {
	st   *store.Store
	wake chan struct{} // holds one token
}

// Reset implements store.Follower.
func (c *chores) Reset([]store.Item, int64) { c.ring() }

// Apply implements store.Follower.
func (c *chores) Apply(store.Update) { c.ring() }

func (c *chores) ring() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// finish removes the machines that have left, and forgets those that are removed and still have a record.
func (d *Desk) finish(ctx context.Context) error {
	all, _, err := d.o.Store.Machines.List(ctx, "", store.Read{})
	if err != nil {
		return err
	}
	gone, _, err := d.o.Store.Removed.List(ctx, "", store.Read{})
	if err != nil {
		return err
	}
	removed := map[string]bool{}
	for _, e := range gone {
		removed[e.Key] = true
	}
	for _, e := range all {
		id := machine.ID(e.Key)
		if e.Value.Left && !removed[e.Key] {
			if !sleep(ctx, leftFor) {
				return ctx.Err()
			}
			if err := d.revoke(ctx, id, "it left"); err != nil {
				return err
			}
			removed[e.Key] = true
		}
		if !removed[e.Key] {
			continue
		}
		if err := d.cut(ctx, id); err != nil {
			return err
		}
		if err := d.forget(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// prune deletes tokens that expired more than a day ago, and removed machines that are too old to matter.
func (d *Desk) prune(ctx context.Context) error {
	st, now := d.o.Store, d.now()
	joins, _, err := st.Joins.List(ctx, "", store.Read{})
	if err != nil {
		return err
	}
	for _, e := range joins {
		if e.Value.Expired(now.Add(-keepExpired)) {
			if _, err := d.commit(ctx, store.Txn{If: []store.Cond{st.Joins.IfRev(e.Key, e.Rev)}, Then: []store.Op{st.Joins.DeleteOp(e.Key)}}); err != nil {
				return err
			}
		}
	}
	gone, _, err := st.Removed.List(ctx, "", store.Read{})
	if err != nil {
		return err
	}
	for _, e := range gone {
		if now.Sub(e.Value.Time) < keepRemoved {
			continue
		}
		// Its record is gone for long; if it is not, it must stay shut out.
		if _, err := d.commit(ctx, store.Txn{
			If:   []store.Cond{st.Removed.IfRev(e.Key, e.Rev), st.Machines.IfAbsent(e.Key)},
			Then: []store.Op{st.Removed.DeleteOp(e.Key)},
		}); err != nil {
			return err
		}
	}
	return nil
}
