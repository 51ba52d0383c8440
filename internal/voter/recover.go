package voter

import (
	"context"
	"fmt"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
)

// ask is a request to recover.
type ask struct{ done chan error } // capacity 1

// Recover makes this machine's copy a store with one voter, for when the majority is lost for good. Nothing that runs is stopped; machines
// of the old store set their copies aside when they return. Run must be running.
//
// fault.NotFound: this machine holds no copy. fault.Conflict: the store has a working majority, or another machine has been recovered already.
func (l *Local) Recover(ctx context.Context) error {
	a := ask{make(chan error, 1)}
	select {
	case l.asks <- a:
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "recover: this machine is busy with its copy of the store")
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return fault.Wrap(fault.TimedOut, ctx.Err(), "recover: it goes on")
	}
}

// recover begins a recovery. From the note on it is finished whatever happens to this process.
func (l *Local) recover(ctx context.Context) error {
	m := l.running()
	if m == nil && !l.note.Recovering {
		return fault.WithHint(fault.New(fault.NotFound, "recover: this machine holds no copy of the store"), "recover on a machine that was a voter or a learner")
	}
	if !l.note.Recovering {
		if m.KV().Health(ctx).Quorum {
			return fault.New(fault.Conflict, "recover: the store has a working majority, there is nothing to recover")
		}
		ask, cancel := context.WithTimeout(ctx, askEpoch)
		highest, err := l.opts.Highest(ask)
		cancel()
		own := max(l.note.Epoch, l.opts.Epoch())
		if err == nil && highest > own {
			return fault.WithHint(fault.New(fault.Conflict, "recover: the cluster has been recovered on another machine already"), "this machine joins that one by itself; if it does not, restart it")
		}
		l.note = note{Member: l.note.Member, Epoch: own + 1, Recovering: true}
		if err := l.disk.write(l.note); err != nil {
			return err
		}
		l.opts.Log.Warn("making this machine's copy of the store the only one", "epoch", l.note.Epoch)
	}
	l.doing("recovering the store from this machine's copy")
	if err := l.end(ctx); err != nil {
		return err
	}
	return l.finish(ctx)
}

// recoverWait is how long a recovered member may take to be ready. 30 s: it reads its whole log.
const recoverWait = 30 * time.Second

// finish brings a recovery to its end: the member alone, then the epoch, so that others ask it before they come back, then the records.
func (l *Local) finish(ctx context.Context) error {
	if l.running() == nil {
		if err := l.begin(ctx, Start{Force: true}); err != nil {
			return err
		}
	}
	m := l.running()
	ready, cancel := context.WithTimeout(ctx, recoverWait)
	defer cancel()
	if err := m.Ready(ready); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := l.opts.SetEpoch(l.note.Epoch); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := l.rewrite(ready, store.New(m.KV())); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	l.note.Recovering = false
	if err := l.disk.write(l.note); err != nil {
		return err
	}
	l.use(ctx)
	return nil
}

// rewrite raises the epoch in the store and leaves this machine's vote only. This is the one time that votes are not written by the steward: there is
// none without a majority, and the daemon uses this store only afterwards.
func (l *Local) rewrite(ctx context.Context, s *store.Store) error {
	_, err := s.Cluster.Update(ctx, store.ThisCluster, func(c *machine.Cluster) error {
		if c.Epoch >= l.note.Epoch {
			return store.ErrNoChange
		}
		c.Epoch = l.note.Epoch
		return nil
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	votes, _, err := s.Voters.List(ctx, "", store.Read{})
	if err != nil {
		return err
	}
	for _, e := range votes {
		if e.Value.Machine == l.opts.ID {
			continue
		}
		if _, err := s.Voters.Delete(ctx, e.Key); err != nil {
			return err
		}
	}
	return s.Voters.Put(ctx, string(l.opts.ID), machine.Vote{
		Machine: l.opts.ID, Role: machine.Voter, Member: quorum.MemberID(l.running().MemberID()), Since: l.opts.Now().UTC(), Reason: "the store was recovered from its copy",
	}, 0)
}
