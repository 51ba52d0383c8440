package store

import (
	"context"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Leadership is held from Campaign's return until Lost is closed. All writes of a leader carry Guard, so that a leader that
// does not know yet that it lost the election writes nothing.
type Leadership struct {
	kv    KV
	lease LeaseID
	guard Cond
	lost  chan struct{}
	stop  context.CancelFunc
}

// Guard is the condition that this leadership still holds.
func (l *Leadership) Guard() Cond { return l.guard }

// Lost is closed when the leadership has ended or can no longer be proved.
func (l *Leadership) Lost() <-chan struct{} { return l.lost }

// Resign gives the leadership up at once, so that another machine need not wait for the lease to end.
func (l *Leadership) Resign(ctx context.Context) {
	l.stop()
	<-l.lost
	_ = l.kv.Revoke(ctx, l.lease) // if it fails the lease ends by itself
}

// Campaign waits until id is the leader, or ctx ends. ttl is the time after which a dead leader is replaced.
// The caller must end a leadership with Resign, or let ctx end.
func (s *Store) Campaign(ctx context.Context, id machine.ID, ttl time.Duration) (*Leadership, error) {
	for ctx.Err() == nil {
		l, err := s.tryLead(ctx, id, ttl)
		if l != nil {
			return l, nil
		}
		if err == nil {
			err = s.awaitVacancy(ctx)
		}
		if err != nil && !sleep(ctx, retryMax/2) {
			break
		}
	}
	return nil, ctx.Err()
}

// tryLead takes the key if nobody has it; nil without an error when another machine leads.
func (s *Store) tryLead(ctx context.Context, id machine.ID, ttl time.Duration) (*Leadership, error) {
	if _, held, err := s.KV.Get(ctx, leaderKey, Read{}); err != nil || held {
		return nil, err
	}
	granted := time.Now()
	lease, err := s.KV.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	rev, ok, err := s.KV.Commit(ctx, Txn{
		If:   []Cond{{Key: leaderKey}},
		Then: []Op{{Key: leaderKey, Value: []byte(id), Lease: lease}},
	})
	if err != nil || !ok {
		// A write that was lost on the way back may have happened: revoking the lease undoes it.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), ttl)
		defer cancel()
		_ = s.KV.Revoke(undo, lease)
		return nil, err
	}
	run, stop := context.WithCancel(ctx)
	l := &Leadership{kv: s.KV, lease: lease, guard: Cond{Key: leaderKey, Created: rev}, lost: make(chan struct{}), stop: stop}
	go l.keep(run, granted, ttl)
	return l, nil
}

// keep renews the lease three times per ttl, and tries more often after a failure; it ends, closing lost, when ctx ends, when the
// lease is gone, or when ttl has passed since it was last known to live.
func (l *Leadership) keep(ctx context.Context, renewed time.Time, ttl time.Duration) {
	defer close(l.lost)
	defer l.stop()
	pause := ttl / 3
	for {
		ends := renewed.Add(ttl)
		if !sleep(ctx, min(pause, time.Until(ends))) {
			return
		}
		asked := time.Now()
		if !asked.Before(ends) {
			return
		}
		try, cancel := context.WithTimeout(ctx, min(ttl/3, ends.Sub(asked)))
		err := l.kv.Renew(try, l.lease)
		cancel()
		switch {
		case err == nil:
			renewed, pause = asked, ttl/3
		case fault.Is(err, fault.NotFound):
			return
		default:
			pause = ttl / 12
		}
	}
}

// awaitVacancy waits until the leader's key is gone; an error says that it could not be watched.
func (s *Store) awaitVacancy(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	items, rev, err := s.KV.List(ctx, leaderKey, Read{})
	if err != nil || len(items) == 0 {
		return err
	}
	for u := range s.KV.Watch(ctx, leaderKey, rev) {
		if u.Err != nil {
			return u.Err
		}
		for _, e := range u.Events {
			if e.Deleted && e.Key == leaderKey {
				return nil
			}
		}
	}
	return fault.New(fault.Unavailable, "watch of %s ended", leaderKey)
}

// Leader gives the ID of the machine that leads, or "" for none.
func (s *Store) Leader(ctx context.Context, r Read) (machine.ID, error) {
	it, ok, err := s.KV.Get(ctx, leaderKey, r)
	if err != nil || !ok {
		return "", err
	}
	return machine.ID(it.Value), nil
}
