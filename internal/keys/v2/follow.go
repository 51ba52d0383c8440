package v2

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lookback is how many revisions of the past are read when a machine begins, to have a window at once: ten times the window, because
// the cluster's own writes have revisions too.
const lookback = 10 * windowSize

// followPause is how long to wait before following anew what broke. A tenth of a second: short against the 5 s a watch may be asked to wait.
const followPause = 100 * time.Millisecond

// follow fills the window from the store's changes until ctx ends. A gap, which is what compaction removed before it was read, begins the
// window anew: older indexes are then answered with error 401.
func (a *API) follow(ctx context.Context) error {
	next := int64(0) // the revision to go on with; 0: begin
	for {
		if next == 0 {
			next = a.begin(ctx)
		}
		var err error
		if next > 0 {
			next, err = a.followFrom(ctx, next)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			a.o.Log.Debug("following the keys broke off; again in a moment", "err", err)
		}
		t := time.NewTimer(followPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// begin opens the window some way back, and gives the revision to follow from; 0 when the store does not answer.
func (a *API) begin(ctx context.Context) int64 {
	ctx, cancel := context.WithTimeout(ctx, a.o.Timeout)
	defer cancel()
	resp, err := a.kv.Get(ctx, sideLast, clientv3.WithSerializable())
	if err != nil || resp.Header == nil { // a member that is ending answers with nothing
		return 0
	}
	a.note(resp.Header)
	from := max(1, resp.Header.Revision-lookback)
	a.window.begin(uint64(from))
	return from
}

// followFrom follows until that breaks, and gives the revision to go on with.
func (a *API) followFrom(ctx context.Context, next int64) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.past.forget()
	err := a.changes(ctx, next, func(resp clientv3.WatchResponse) (err error) {
		if err := resp.Err(); err != nil {
			if resp.CompactRevision >= next || errors.Is(err, rpctypes.ErrCompacted) {
				next = max(next, resp.CompactRevision) + 1
				a.window.begin(uint64(next))
				a.o.Log.Info("changes of keys were compacted before they were read; older indexes cannot be waited for", "index", next)
				return cmp.Or(a.reload(ctx), errGap)
			}
			return err
		}
		next, err = a.take(ctx, resp.Events, next)
		return err
	})
	if errors.Is(err, errGap) {
		err = nil
	}
	return next, cmp.Or(err, ctx.Err())
}

// errGap ends following where something was missed: it begins anew behind that.
var errGap = errors.New("changes were missed")

// changes hands on the store's changes from revision next on.
func (a *API) changes(ctx context.Context, next int64, each func(clientv3.WatchResponse) error) error {
	if c, ok := a.o.Client.Watcher.(Changer); ok {
		return c.Changes(ctx, side, sideEnd, next, each)
	}
	opts := []clientv3.OpOption{clientv3.WithRange(sideEnd), clientv3.WithRev(next)}
	if a.far() {
		opts = append(opts, clientv3.WithPrevKV()) // costs who sends it more than knowing it here would
	}
	for resp := range a.o.Client.Watch(ctx, side, opts...) {
		if err := each(resp); err != nil {
			return err
		}
	}
	return nil
}

// far says whether the store is on another machine, so that each question takes a journey.
func (a *API) far() bool { return a.o.Client.ActiveConnection() != nil }

// take hands on the events of some revisions and gives the one after them; at an error, the one that it did not get over.
func (a *API) take(ctx context.Context, events []*clientv3.Event, next int64) (int64, error) {
	now, far := time.Now(), a.far()
	for len(events) > 0 {
		rev, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		c := make(changes, n)
		for _, e := range events[:n] {
			ch := change{old: e.PrevKv}
			if e.Type == mvccpb.PUT {
				ch.now = e.Kv
			}
			c[string(e.Kv.Key)] = ch
		}
		if !far {
			if err := a.before(ctx, rev, c); err != nil {
				return rev, err
			}
		}
		for key, ch := range c {
			a.expect(key, ch.now)
			if !far && key != sideLast {
				a.past.set(key, ch.now)
			}
		}
		a.learn(c)
		a.window.add(uint64(rev), eventsOf(rev, c, now))
		events, next = events[n:], rev+1
	}
	return next, nil
}

// learn keeps what is remembered of files up to date with the changes of one revision.
func (a *API) learn(c changes) {
	for key, ch := range c {
		if key[0] != '/' || strings.HasSuffix(key, "/") {
			continue // not a file
		}
		if _, written := c[sideLast]; written {
			a.recent.saw(key, ch.now, c[sideDetail+key].now)
		} else {
			a.recent.saw(key, nil, nil) // of its detail nothing is told
		}
	}
}

// expect keeps the queue of what expires up to date with one changed key.
func (a *API) expect(key string, kv *mvccpb.KeyValue) {
	key, ok := strings.CutPrefix(key, sideDetail)
	if !ok {
		return
	}
	if kv == nil {
		a.queue.set(key, 0)
		return
	}
	// The detail stands for itself here: whether its key still has it is seen when the time comes.
	a.queue.set(key, detailOf(kv, kv).Expires)
}
