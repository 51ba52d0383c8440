package store

import (
	"context"
	"errors"
	"time"

	"flota/internal/fault"
)

// ErrCompacted ends a watch that asked for changes older than those kept; list again.
var ErrCompacted = errors.New("the changes since then are no longer kept")

// ErrMoved ends a watch whose way to the store was changed for another one: watch again, from where it ended. Nothing is wrong.
var ErrMoved = errors.New("the way to the store was switched")

// Follower receives everything under a prefix. Follow calls it from one goroutine, never two at once.
type Follower interface {
	// Reset replaces all that is known: items are everything under the prefix at rev.
	Reset(items []Item, rev int64)
	// Apply brings the changes of one transaction; each Rev is larger than the last seen.
	Apply(u Update)
}

// retryMin and retryMax bound the pause between attempts to read the store again. 50 ms, so that a leader election of
// etcd (1 to 2 s) is used soon after it ends; 1 s, so that a long outage costs nothing.
const (
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
)

// listTimeout bounds one listing. Source: 100,000 units of 1 KB list in about 1 s on the test machine.
const listTimeout = 10 * time.Second

// Follow keeps f at the store's state under prefix until ctx ends: it lists, watches from there, and
// lists again when the changes in between are no longer kept. trouble (may be nil) is told each error, and nil when
// the watch stands again.
// Follow returns only when ctx ends, with nil.
func Follow(ctx context.Context, kv KV, prefix string, f Follower, trouble func(error)) error {
	told := false // trouble was told of an error last
	tell := func(err error) {
		if trouble != nil && (err != nil || told) {
			trouble(err)
		}
		told = err != nil
	}
	pause, rev := retryMin, int64(-1)
	well := func() {
		tell(nil)
		pause = retryMin
	}
	for ctx.Err() == nil {
		var err error
		if rev < 0 {
			rev, err = reset(ctx, kv, prefix, f)
		}
		if err == nil {
			rev, err = watch(ctx, kv, prefix, rev, f, well)
		}
		if errors.Is(err, ErrCompacted) {
			rev = -1
			err = nil
		}
		if errors.Is(err, ErrMoved) {
			pause = retryMin
			err = nil
		}
		if err != nil && ctx.Err() == nil {
			tell(err)
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, retryMax)
	}
	return nil
}

// reset lists and hands everything to f.
func reset(ctx context.Context, kv KV, prefix string, f Follower) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	items, rev, err := kv.List(ctx, prefix, Read{})
	if err != nil {
		return -1, err
	}
	f.Reset(items, rev)
	return rev, nil
}

// watch applies changes after rev until the stream ends; it gives the last revision seen, and calls well as soon as the
// stream stands. A repeated update is dropped, so f never goes back in time.
func watch(ctx context.Context, kv KV, prefix string, rev int64, f Follower, well func()) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for u := range kv.Watch(ctx, prefix, rev) {
		if u.Err != nil {
			return rev, u.Err
		}
		if well != nil {
			well()
			well = nil
		}
		if u.Rev <= rev {
			continue
		}
		rev = u.Rev
		if len(u.Events) > 0 {
			f.Apply(u)
		}
	}
	return rev, fault.New(fault.Unavailable, "watch of %s ended", prefix)
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
