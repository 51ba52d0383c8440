package voter

import (
	"context"
	"fmt"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"

	"golang.org/x/sync/errgroup"
)

// Pauses of Local.
const (
	lookSoon   = 200 * time.Millisecond // while something is about to change that nothing tells of: a promotion, above all
	lookRarely = 5 * time.Second
	againMin   = 250 * time.Millisecond // before a failed start is tried again, doubled up to
	againMax   = 5 * time.Second
	epochEvery = 30 * time.Second // between two questions for a higher epoch
	// orphanWait is how long a member without a record may run on. It learns from the others that it was removed, within a second or two; this is for
	// when it does not.
	orphanWait = 10 * time.Second
)

// Run follows this machine's record and keeps the member as that says, until ctx ends; then it returns nil, the member still running: see Close. An
// error says that the member has failed in a way that only another process can cure.
func (l *Local) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return store.Follow(ctx, l.opts.Store.KV, l.opts.Store.Voters.Prefix()+string(l.opts.ID), recordOf{l}, nil)
	})
	g.Go(func() error { return l.askEpochs(ctx) })
	g.Go(func() error { return l.keep(ctx) })
	return g.Wait()
}

// recordOf is the store.Follower of this machine's record.
type recordOf struct{ *Local }

// Reset implements store.Follower.
func (r recordOf) Reset(items []store.Item, _ int64) {
	var found *store.Item
	for i := range items {
		if items[i].Key == r.opts.Store.Voters.Prefix()+string(r.opts.ID) {
			found = &items[i]
		}
	}
	r.put(found)
}

// Apply implements store.Follower.
func (r recordOf) Apply(u store.Update) {
	for _, e := range u.Events {
		switch {
		case e.Key != r.opts.Store.Voters.Prefix()+string(r.opts.ID):
		case e.Deleted:
			r.put(nil)
		default:
			r.put(&e.Item)
		}
	}
}

// put takes a new record over; one that cannot be read is left as it was.
func (r recordOf) put(it *store.Item) {
	var v *machine.Vote
	if it != nil {
		e, err := r.opts.Store.Voters.Decode(*it)
		if err != nil {
			r.opts.Log.Warn("this machine's vote cannot be read", "err", err)
			return
		}
		v = &e.Value
	}
	r.mu.Lock()
	r.record, r.Local.read = v, true
	r.mu.Unlock()
	r.nudge()
}

// nudge wakes keep.
func (l *Local) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// askEpochs hears of a recovery elsewhere.
func (l *Local) askEpochs(ctx context.Context) error {
	for ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, actWait)
		highest, err := l.opts.Highest(ask)
		cancel()
		if err == nil && highest > l.opts.Epoch() {
			select {
			case l.high <- highest:
			case <-ctx.Done():
			}
		}
		wait(ctx, epochEvery)
	}
	return nil
}

// wait waits for d, or for the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// keep is Run's loop; all changes of the member are made here.
func (l *Local) keep(ctx context.Context) error {
	for {
		pause, err := l.turn(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var stopped <-chan struct{}
		if m := l.running(); m != nil {
			stopped = m.Stopped()
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-l.wake:
		case <-stopped:
		case epoch := <-l.high:
			err = l.overtaken(ctx, epoch)
		case a := <-l.asks:
			a.done <- l.recover(ctx)
		}
		t.Stop()
		if err != nil && ctx.Err() == nil {
			l.trouble(err)
		}
	}
}

// running gives the member, or nil.
func (l *Local) running() Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.member
}

// turn makes this machine's member what its record says, as far as can be done now.
func (l *Local) turn(ctx context.Context) (pause time.Duration, err error) {
	l.mu.Lock()
	m, ready, rec, read := l.member, l.ready, l.record, l.read
	l.mu.Unlock()
	if m != nil && over(m) {
		return l.stopped(ctx, m)
	}
	if l.note.Recovering {
		return l.retry(l.finish(ctx))
	}
	if m == nil && l.disk.holds() {
		return 0, l.resume(ctx)
	}
	if rec != nil { // once released, a member stays so until its record says otherwise
		l.released = m != nil && rec.Role == machine.Client && rec.Member == quorum.MemberID(m.MemberID())
	}
	if m != nil && ready && !l.released {
		l.use(ctx)
	}
	switch {
	case !read:
		return l.look(), nil
	case m == nil && (rec == nil || rec.Role == machine.Client):
		if err := l.idle(); err != nil {
			return l.retry(err)
		}
		return lookRarely, nil
	case m == nil:
		return l.retry(l.join(ctx, *rec))
	case rec == nil:
		return l.orphaned(ctx)
	case rec.Member != quorum.MemberID(m.MemberID()):
		return l.mistaken(ctx, m, *rec)
	}
	l.matched, l.orphan = true, time.Time{}
	if l.released {
		return lookRarely, l.release(ctx, m)
	}
	return l.look(), nil
}

// look is when to look again whether the member votes.
func (l *Local) look() time.Duration {
	if r := l.Role(); r.Member != nil && !r.Votes {
		return lookSoon
	}
	return lookRarely
}

// retry turns an error into a pause: longer each time, none left behind by a success.
func (l *Local) retry(err error) (time.Duration, error) {
	if err == nil {
		l.again = 0
		return againMin, nil
	}
	l.trouble(err)
	l.again = min(max(2*l.again, againMin), againMax)
	return l.again, nil
}

// trouble shows why something is tried again, and logs it once.
func (l *Local) trouble(err error) {
	l.mu.Lock()
	again := l.status.Trouble == err.Error()
	l.status.Trouble = err.Error()
	l.mu.Unlock()
	if !again {
		l.opts.Log.Warn("this machine's part in the store is not as it should be; trying again", "err", err)
	}
}

// over says whether the member has stopped.
func over(m Member) bool {
	select {
	case <-m.Stopped():
		return true
	default:
		return false
	}
}

// stopped clears up after a member that has stopped: one that the cluster removed leaves its data behind, another starts again with the next turn.
func (l *Local) stopped(ctx context.Context, m Member) (time.Duration, error) {
	if m.Removed() {
		return l.retry(l.leave(ctx, "the cluster has removed it"))
	}
	l.opts.Log.Warn("this machine's member of the store has stopped by itself; starting it again")
	return againMin, l.end(ctx)
}

// orphaned is a member that has no record: a steward has not written it down yet, or has deleted it.
func (l *Local) orphaned(ctx context.Context) (time.Duration, error) {
	if !l.matched {
		return l.look(), nil
	}
	if l.orphan.IsZero() {
		l.orphan = time.Now()
	}
	if time.Since(l.orphan) < orphanWait {
		return lookSoon, nil
	}
	return l.retry(l.leave(ctx, "its vote has been deleted"))
}

// mistaken is a member whose record speaks of another one: this one's data is of the past, unless the members themselves say otherwise.
func (l *Local) mistaken(ctx context.Context, m Member, rec machine.Vote) (time.Duration, error) {
	ask, cancel := context.WithTimeout(ctx, actWait)
	defer cancel()
	if all, err := m.Members(ask); err == nil {
		for _, x := range all {
			if x.ID == m.MemberID() {
				return l.retry(fault.New(fault.Conflict, "this machine's vote speaks of the member %s, but %s runs, and is one: waiting for it to be written down anew", rec.Member, quorum.MemberID(x.ID)))
			}
		}
	}
	return l.retry(l.leave(ctx, fmt.Sprintf("the machine is to run the member %s", rec.Member)))
}

// overtaken leaves a store that was recovered elsewhere.
func (l *Local) overtaken(ctx context.Context, epoch int) error {
	if epoch <= l.note.Epoch {
		return nil
	}
	if err := l.end(ctx); err != nil {
		return err
	}
	return l.outdated(epoch)
}
