package mem

import (
	"context"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// Outage says how a Faulty client is cut off from its store. The zero value is not at all.
type Outage int

// The outages.
const (
	None     Outage = iota // all is well
	Refused                // every call fails at once, watches end
	Hanging                // calls wait for the end of the outage or of their deadline, watches stand still
	NoQuorum               // as Refused, but stale reads are answered
)

// Default deadlines of a Hanging call whose ctx has none: 1.5 s for reads, 3 s for writes, as in store/etcd.
const (
	readWait  = 1500 * time.Millisecond
	writeWait = 3 * time.Second
)

// Call is one call that a Faulty client makes, as told to its hooks.
type Call struct {
	Op    string // list, get, watch, commit, grant, renew, revoke
	Key   string // of a get; the prefix of a list or watch
	Txn   store.Txn
	Lease store.LeaseID
}

// Hook is told of a call. When it returns an error the caller gets it. It may block, or cancel the caller's world: that is a crash.
type Hook func(Call) error

// Faulty is one client's way to a store shared with others, with switches for what goes wrong on it.
// All of its methods are safe for concurrent use; a switch acts on running watches too.
type Faulty struct {
	kv   store.KV
	quit chan struct{}  // closed by Close
	pump sync.WaitGroup // the watches' goroutines

	mu      sync.Mutex // guards the fields below
	changed chan struct{}
	outage  Outage
	fail    int // so many calls fail without being made
	lose    int // so many commits are made and answered with an error
	before  Hook
	after   Hook
	watch   watchFaults
	cuts    int   // how often the watches were cut
	cut     error // why they were cut last
	closed  bool
}

// watchFaults is what is wrong with the watches.
type watchFaults struct {
	paused   bool
	repeated bool
	lag      time.Duration
}

// NewFaulty wraps kv; without switches it behaves as kv does. Its Close leaves kv open.
func NewFaulty(kv store.KV) *Faulty {
	return &Faulty{kv: kv, quit: make(chan struct{}), changed: make(chan struct{})}
}

// Client is a way to m of its own, for one machine of a simulation.
func (m *Mem) Client() *Faulty { return NewFaulty(m) }

// set changes switches and tells the hanging calls and the watches.
func (f *Faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Cut makes or ends an outage.
func (f *Faulty) Cut(o Outage) {
	f.set(func() {
		f.outage = o
		if o == Refused || o == NoQuorum {
			f.cuts++
			f.cut = broken("watch", "cut off")
		}
	})
}

// Down makes every call fail at once and ends the watches, or puts that right.
func (f *Faulty) Down(down bool) {
	if down {
		f.Cut(Refused)
	} else {
		f.Cut(None)
	}
}

// FailNext makes the next n calls, watches included, fail without being made.
func (f *Faulty) FailNext(n int) { f.set(func() { f.fail = n }) }

// LoseNext makes the next n commits happen, but the caller is told fault.Unavailable.
func (f *Faulty) LoseNext(n int) { f.set(func() { f.lose = n }) }

// Pause holds back all updates of watches, or delivers what was held back.
func (f *Faulty) Pause(paused bool) { f.set(func() { f.watch.paused = paused }) }

// Lag delivers each update of a watch d later than it happened.
func (f *Faulty) Lag(d time.Duration) { f.set(func() { f.watch.lag = d }) }

// Repeat delivers each update, and then the last three again, as a stream does that resumes too early.
func (f *Faulty) Repeat(on bool) { f.set(func() { f.watch.repeated = on }) }

// EndWatches ends all running watches with err: store.ErrCompacted or a fault.Unavailable.
func (f *Faulty) EndWatches(err error) { f.set(func() { f.cuts++; f.cut = err }) }

// Before sets the hook that runs before each call is made; nil for none.
func (f *Faulty) Before(h Hook) { f.set(func() { f.before = h }) }

// After sets the hook that runs after each call was made, before its answer is given; nil for none. An error of the hook replaces the answer.
func (f *Faulty) After(h Hook) { f.set(func() { f.after = h }) }

// broken is the error of every failure made here.
func broken(op, why string) error { return fault.New(fault.Unavailable, "%s: no quorum: %s", op, why) }

// do makes one call under the switches.
func (f *Faulty) do(ctx context.Context, c Call, wait time.Duration, stale bool, call func(context.Context) error) error {
	ctx, cancel := bounded(ctx, wait)
	defer cancel()
	if err := f.admit(ctx, c, stale); err != nil {
		return err
	}
	if err := call(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	after, lost := f.after, c.Op == "commit" && f.lose > 0
	if lost {
		f.lose--
	}
	f.mu.Unlock()
	if after != nil {
		if err := after(c); err != nil {
			return err
		}
	}
	if lost {
		return broken(c.Op, "the answer was lost")
	}
	return nil
}

// bounded gives ctx a deadline if it has none.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// admit waits until the call may be made, or says why it cannot.
func (f *Faulty) admit(ctx context.Context, c Call, stale bool) error {
	f.mu.Lock()
	before, failed := f.before, f.fail > 0
	if failed {
		f.fail--
	}
	f.mu.Unlock()
	if before != nil {
		if err := before(c); err != nil {
			return err
		}
	}
	if failed {
		return broken(c.Op, "told to fail")
	}
	for {
		f.mu.Lock()
		outage, changed, closed := f.outage, f.changed, f.closed
		f.mu.Unlock()
		switch {
		case closed:
			return broken(c.Op, "the client is closed")
		case outage == None, outage == NoQuorum && stale:
			return nil
		case outage != Hanging:
			return broken(c.Op, "cut off")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "%s: no quorum", c.Op)
		}
	}
}
