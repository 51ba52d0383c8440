package voter

import (
	"context"
	"fmt"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
)

// begin starts the member. Nothing uses it yet.
func (l *Local) begin(ctx context.Context, how Start) error {
	if err := l.disk.write(l.note); err != nil {
		return err
	}
	how.Dir, how.Name = l.opts.Dir, l.opts.Name
	m, err := l.opts.Start(ctx, how)
	if err != nil {
		return fmt.Errorf("start this machine's member of the store: %w", err)
	}
	l.note.Member = quorum.MemberID(m.MemberID())
	l.mu.Lock()
	l.member, l.ready = m, !how.Existing
	l.status.Member, l.status.Trouble = l.note.Member, ""
	l.mu.Unlock()
	l.matched, l.released, l.orphan = false, false, time.Time{}
	if err := l.disk.write(l.note); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.unwait = cancel
	l.waiting.Go(func() { // ends when the member is ready, or with end
		if m.Ready(run) == nil {
			l.mu.Lock()
			l.ready = true
			l.mu.Unlock()
			l.nudge()
		}
	})
	return nil
}

// resume starts the member from its data. A failure ends Run: the engine may have left files open.
func (l *Local) resume(ctx context.Context) error {
	if err := l.begin(ctx, Start{Force: l.note.Recovering}); err != nil {
		return err
	}
	l.use(ctx)
	return nil
}

// join starts a new learner as its record says.
func (l *Local) join(ctx context.Context, rec machine.Vote) error {
	// The engine counts on a member that has started to have what it once acknowledged: without its data it must never start again. A learner's
	// lost data shows when the engine is asked, by Start.
	if rec.Role == machine.Voter || l.disk.had(rec.Member) {
		return fault.New(fault.Conflict, "this machine's copy of the store, of the member %s, is gone: it waits to be made a new member", rec.Member)
	}
	l.doing("copying the store")
	if err := l.newest(ctx); err != nil {
		return err
	}
	if err := l.opts.Authority(ctx); err != nil {
		return fmt.Errorf("fetch the key of the cluster's authority: %w", err)
	}
	l.fetched = true
	if err := l.disk.clear(); err != nil {
		return err
	}
	l.note = note{Member: rec.Member, Epoch: l.opts.Epoch()}
	if err := l.begin(ctx, Start{Peers: rec.Peers, Existing: true}); err != nil {
		return err
	}
	l.fetched = false
	if l.note.Member != rec.Member {
		err := fault.New(fault.Conflict, "the engine says that this machine's member is %s, its vote says %s", l.note.Member, rec.Member)
		return fmt.Errorf("%w (%v)", err, l.leave(ctx, "it is another member than wanted"))
	}
	return nil
}

// newest takes over the highest epoch that other machines know, before a copy of their store is made.
func (l *Local) newest(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, askEpoch)
	defer cancel()
	highest, err := l.opts.Highest(ask)
	if err != nil || highest <= l.opts.Epoch() {
		return err
	}
	return l.opts.SetEpoch(highest)
}

// use tells the daemon of the member, and of whether it votes, if that is news.
func (l *Local) use(ctx context.Context) {
	l.mu.Lock()
	r := Role{Member: l.member}
	old := l.role
	l.mu.Unlock()
	if r.Votes = r.Member.Votes(); r != old {
		l.tell(ctx, r)
	}
}

// tell tells the daemon what this machine is now.
func (l *Local) tell(ctx context.Context, r Role) {
	if err := l.opts.Changed(ctx, r); err != nil {
		l.opts.Log.Error("this machine's rooms could not be moved over", "err", err)
	}
	role := machine.Client
	switch {
	case r.Votes:
		role = machine.Voter
	case r.Member != nil:
		role = machine.Learner
	}
	l.mu.Lock()
	l.role = r
	l.status.Role, l.status.Doing, l.status.Since, l.status.Trouble = role, "", time.Time{}, ""
	l.mu.Unlock()
	l.opts.Log.Info("this machine's part in the store has changed", "role", roleName(role))
}

// roleName is the role for people.
func roleName(r machine.Role) string {
	if r == machine.Client {
		return "client"
	}
	return string(r)
}

// release moves off the member while it still runs, and gives the store's leadership away.
func (l *Local) release(ctx context.Context, m Member) error {
	if l.Role().Member == nil {
		return nil
	}
	l.tell(ctx, Role{})
	l.doing("leaving the store")
	ctx, cancel := context.WithTimeout(ctx, actWait)
	defer cancel()
	if err := m.HandOver(ctx); err != nil {
		l.opts.Log.Info("the store's leadership could not be handed over: the members will elect a leader", "err", err)
	}
	return nil
}

// leave closes a member that is one no more, sets its data aside, and makes this machine a client.
func (l *Local) leave(ctx context.Context, why string) error {
	if err := l.end(ctx); err != nil {
		return err
	}
	if err := l.setAside(why); err != nil {
		return err
	}
	return l.opts.DropAuthority()
}

// end closes the member, if one runs, after the daemon has moved off it.
func (l *Local) end(ctx context.Context) error {
	l.mu.Lock()
	m, used := l.member, l.role.Member != nil
	l.mu.Unlock()
	if used {
		l.tell(ctx, Role{})
	}
	if m == nil {
		return nil
	}
	if l.unwait != nil {
		l.unwait()
		l.unwait = nil
	}
	err := m.Close()
	l.waiting.Wait()
	l.mu.Lock()
	l.member, l.ready, l.status.Member = nil, false, ""
	l.mu.Unlock()
	return err
}

// doing shows what is being done, and since when.
func (l *Local) doing(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.Doing != what {
		l.status.Doing, l.status.Since = what, l.opts.Now()
	}
}

// idle is a client's turn. A start that was called off may have left the authority's key here.
func (l *Local) idle() error {
	l.mu.Lock()
	l.status.Doing, l.status.Since, l.status.Trouble = "", time.Time{}, ""
	l.mu.Unlock()
	if !l.fetched {
		return nil
	}
	l.fetched = false
	return l.opts.DropAuthority()
}
