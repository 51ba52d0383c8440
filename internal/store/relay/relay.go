// Package relay is a store.KV whose backend can be switched while everybody goes on using it. A machine's way to the store changes when it becomes a
// learner, a voter or a client again; the rooms above hold the relay and never notice more than a watch that ends.
//
// The invariant: a call runs on one backend from its beginning to its end. What may have happened is never done a second time on another one; a
// watch ends with fault.Unavailable when its backend is switched away, and is begun again by its reader where it stopped (store.Follow).
//
// The relay owns no backend: whoever gives it one closes it, after another Use or Close. It never asks whether a backend is any good, and never
// chooses one.
//
// Start reading at Relay and Use.
package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// patience is how long a call without a deadline of its own waits for a backend. 3 s, as the store gives a write.
const patience = 3 * time.Second

// drain is how long Use waits for the calls that run on the old backend. 3 s: the longest deadline a call has unless its caller gave another.
const drain = 3 * time.Second

// Relay is a store.KV over the backend that Use gave it last. Without one, calls wait until their deadline, 3 s if they have none, and then fail
// as fault.Unavailable. Safe for concurrent use.
type Relay struct {
	log *slog.Logger

	mu     sync.Mutex    // guards the fields below
	now    *side         // nil without a backend
	change chan struct{} // closed when the fields above and below change
	closed bool
}

// side is one backend in its time of use.
type side struct {
	kv    store.KV
	over  context.Context // ends when the backend is switched away
	end   context.CancelFunc
	calls sync.WaitGroup // calls that run on it; Add only under Relay.mu and while it is Relay.now
}

// New makes a relay without a backend.
func New(log *slog.Logger) *Relay { return &Relay{log: log, change: make(chan struct{})} }

// Use switches to kv; nil: to none. Watches on the old backend end at once. Use returns when the calls that ran there have ended, or after 3 s; then
// the caller may close it. Only new calls see kv. After Close it does nothing.
func (r *Relay) Use(kv store.KV) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	old := r.now
	r.now = nil
	if kv != nil {
		over, end := context.WithCancel(context.Background())
		r.now = &side{kv: kv, over: over, end: end}
	}
	r.turn()
	r.mu.Unlock()
	r.leave(old)
}

// Close ends all watches and lets no call begin any more. It waits for the calls that run, at most 3 s. The backend is not closed.
func (r *Relay) Close() error {
	r.mu.Lock()
	old := r.now
	r.now = nil
	if !r.closed {
		r.closed = true
		r.turn()
	}
	r.mu.Unlock()
	r.leave(old)
	return nil
}

// turn tells those who wait. r.mu is held.
func (r *Relay) turn() {
	close(r.change)
	r.change = make(chan struct{})
}

// leave ends what runs on a side that was switched away.
func (r *Relay) leave(old *side) {
	if old == nil {
		return
	}
	old.end()
	done := make(chan struct{})
	go func() { // ends with the last call, each of which has a deadline or ends with the backend
		old.calls.Wait()
		close(done)
	}()
	t := time.NewTimer(drain)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		r.log.Warn("the way to the store was switched while calls were under way; they end with the old one")
	}
}

// take gives the side in use, waiting for one; done must be called when the call has ended.
func (r *Relay) take(ctx context.Context) (s *side, done func(), err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	for {
		s, change, err := r.look()
		if err != nil {
			return nil, nil, err
		}
		if s != nil {
			return s, s.calls.Done, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, nil, fault.Wrap(fault.Unavailable, ctx.Err(), "this machine has no way to the store now")
		}
	}
}

// look gives the side in use, with one call more on it, or what to wait for.
func (r *Relay) look() (*side, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, fault.New(fault.Unavailable, "the store is closed")
	}
	if r.now != nil {
		r.now.calls.Add(1)
	}
	return r.now, r.change, nil
}
