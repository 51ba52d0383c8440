// Package leader plans for the whole cluster while this machine leads it: it campaigns, looks at the view, asks the
// scheduler what to change, and carries each move out as one transaction.
//
// The invariants: every write is guarded by the election it was won in and by the revisions of the places it touches, so two leaders can
// never both place a unit. A plan is only made from a view that has seen every write of this leader. A write whose
// outcome is unknown ends the term: the next election, here or elsewhere, fences it off, and shows what came of it.
// So the leader may die at any line.
//
// It never talks to agents; it decides nothing that the scheduler did not.
//
// Start reading at Run, then term (term.go) and the transactions of moves (move.go).
package leader

import (
	"context"
	"log/slog"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/view"
)

// DefaultTTL is the time after which a dead leader is replaced. 5 s, as the presence of machines: with less, a slow disk
// of a voter would look like a death.
const DefaultTTL = 5 * time.Second

// resignWait bounds giving up the leadership at the end. The lease ends by itself if it takes longer.
const resignWait = 2 * time.Second

// Options are what a leader needs. ID, Store, View and Log must be set. View must be kept (View.Run) by the caller.
type Options struct {
	ID    machine.ID
	Store *store.Store
	View  *view.View
	TTL   time.Duration // see DefaultTTL, which 0 stands for
	Lease time.Duration // how long the presence of machines lasts, for the brake; 0 is the scheduler's default
	Desk  *Desk         // where the status is shown and requests come in; nil for nobody
	Log   *slog.Logger
}

// Status is what a leader knows of itself.
type Status struct {
	Since   time.Time           `json:"since"`             // when it began to lead; zero: another machine leads
	Planned time.Time           `json:"planned"`           // when the last plan was made
	Moves   uint64              `json:"moves"`             // carried out since the process started
	Waiting []scheduler.Waiting `json:"waiting,omitempty"` // units that are not where they should be, and why
	Brake   *scheduler.Brake    `json:"brake,omitempty"`   // see scheduler.Brake; nil: it does not hold
}

// leader is what Run keeps from one term to the next.
type leader struct {
	opts   Options
	units  units
	status Status
}

// Run campaigns and leads again and again until ctx ends; then it resigns and returns nil.
func Run(ctx context.Context, o Options) error {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.Desk == nil {
		o.Desk = NewDesk()
	}
	l := &leader{opts: o}
	var again backoff
	for ctx.Err() == nil {
		held, err := o.Store.Campaign(ctx, o.ID, o.TTL)
		if err != nil {
			break // ctx has ended
		}
		began := time.Now()
		l.lead(ctx, held)
		if time.Since(began) > 3*o.TTL {
			again = 0
		}
		if !again.wait(ctx) {
			break
		}
	}
	return nil
}

// lead plans until the leadership ends, and gives it up.
func (l *leader) lead(ctx context.Context, held *store.Leadership) {
	log := l.opts.Log
	log.Info("this machine leads the cluster now")
	l.status.Since = time.Now()
	l.opts.Desk.put(l.status)

	term, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { // ends with the term
		defer close(watched)
		select {
		case <-held.Lost():
			cancel()
		case <-term.Done():
		}
	}()
	end := l.opts.Desk.begin()
	err := l.term(term, held)
	end()
	cancel()
	<-watched

	out, done := context.WithTimeout(context.WithoutCancel(ctx), resignWait)
	held.Resign(out)
	done()
	l.status = Status{Moves: l.status.Moves}
	l.opts.Desk.put(l.status)
	switch {
	case ctx.Err() != nil:
		log.Info("this machine no longer leads: it stops")
	case err != nil:
		log.Warn("this machine no longer leads; campaigning again", "err", err)
	default:
		log.Warn("this machine no longer leads: it could not prove its leadership in time; campaigning again")
	}
}

// errUnknown ends a term of which nobody knows what its last writes did.
var errUnknown = fault.New(fault.Unavailable, "the outcome of a write is unknown")

// errBehind ends a term whose leader does not see the cluster as it is.
var errBehind = fault.New(fault.Unavailable, "this machine's view of the cluster stays behind the store")

// backoffMin and backoffMax bound the pause after something failed. 20 ms, so that one refused move costs nothing;
// 2 s, so that a move which can never succeed costs nothing either.
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 2 * time.Second
)

// backoff is a pause that doubles each time. The zero value begins with backoffMin.
type backoff time.Duration

// next gives the pause to make now.
func (b *backoff) next() time.Duration {
	*b = backoff(min(max(2*time.Duration(*b), backoffMin), backoffMax))
	return time.Duration(*b)
}

// wait pauses; false when ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
