package leader

import (
	"context"
	"sync"

	"flota/internal/fault"
	"flota/internal/scheduler"
)

// Desk is where others on this machine ask the leader for something, and read how it is. Make one with NewDesk and give it to
// Run; it may be used before, while and after this machine leads. Safe for concurrent use.
type Desk struct {
	asks chan ask

	mu     sync.Mutex // guards the fields below
	status Status
	ended  chan struct{} // closed at the end of the running term; nil when this machine does not lead
}

// ask is a request for a rebalancing.
type ask struct {
	done chan answer // capacity 1
}

// answer is what came of it.
type answer struct {
	plan scheduler.Plan
	err  error
}

// NewDesk gives a desk of a leader that does not lead yet.
func NewDesk() *Desk { return &Desk{asks: make(chan ask)} }

// Status is how the leader was after its last plan.
func (d *Desk) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// Rebalance makes a plan that also moves units which would be placed better today, carries out its moves, and gives it. It
// returns fault.Conflict if this machine does not lead, fault.Unavailable if nobody knows what was carried out, and ctx's error.
func (d *Desk) Rebalance(ctx context.Context) (scheduler.Plan, error) {
	d.mu.Lock()
	ended := d.ended
	d.mu.Unlock()
	notLeading := fault.New(fault.Conflict, "this machine does not lead the cluster")
	if ended == nil {
		return scheduler.Plan{}, notLeading
	}
	a := ask{make(chan answer, 1)}
	select {
	case d.asks <- a:
	case <-ended:
		return scheduler.Plan{}, notLeading
	case <-ctx.Done():
		return scheduler.Plan{}, ctx.Err()
	}
	select {
	case got := <-a.done:
		return got.plan, got.err
	case <-ctx.Done():
		return scheduler.Plan{}, ctx.Err()
	}
}

// begin notes that a term begins; the caller calls the result at its end.
func (d *Desk) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ended := make(chan struct{})
	d.ended = ended
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ended = nil
		close(ended)
	}
}

// put keeps the status for those who ask.
func (d *Desk) put(s Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = s
}
