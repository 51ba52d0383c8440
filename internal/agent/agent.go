// Package agent makes this machine match its places: it loads, starts, stops and unloads what the leader placed here,
// says that the machine is there, and reports the state of every unit.
//
// The invariants: nothing is ever stopped or unloaded because the store is away, slow, empty by error or does not know this machine: only a
// list or watch that succeeded, of a store that has this machine's record, ends a unit. An agent that begins finds what runs and leaves it
// alone. An exclusive unit is started only under a claim in the store (claim.go) and behind a fence (lease.go).
// Each unit has its own worker, so a stuck unit never delays another. All of this machine's keys are written by one goroutine.
//
// It never talks to other agents or to the leader, and never decides where a unit runs.
//
// Start reading at Agent and Run, then Tasks (task.go), wish.go (what is wanted), worker.go, lease.go and report.go (what is told).
package agent

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/unit"
)

// DefaultTTL is how long the presence lasts without a renewal. 5 s, so that units of a dead machine run elsewhere within 10 s.
const DefaultTTL = 5 * time.Second

// DefaultRenew is how often the lease is renewed. 1.5 s, so that two lost renewals do no harm.
const DefaultRenew = 1500 * time.Millisecond

// Options are what an Agent needs. ID, Store, Driver, Log and one of DataDir and Cache must be set.
type Options struct {
	ID       machine.ID
	Presence machine.Presence // what to say of this machine; ID, Started (when zero), Leaving and Restarting are filled in
	Store    *store.Store
	Driver   driver.Driver
	DataDir  string // where places.json is kept
	Cache    Cache  // instead of places.json in DataDir; nil for the file
	Log      *slog.Logger

	TTL   time.Duration // see DefaultTTL, which 0 stands for
	Renew time.Duration // see DefaultRenew, which 0 stands for
}

// Agent is one machine's agent. Make one with New; it lives as long as its Run.
type Agent struct {
	opts  Options
	cache Cache
	halts chan *haltRequest
	slots chan struct{} // a place in it is held while a unit is loaded or started

	mu      sync.Mutex // guards the fields below
	wanted  wishes
	units   map[unit.Name]unit.State // as the driver tells
	driven  bool                     // units is known to be true: the driver is being watched
	workers map[unit.Name]*worker
	trouble map[unit.Name]string // why the last task of a unit did not work
	halfway map[unit.Name]bool   // an unload was begun and is not done
	givenUp map[unit.Name]wish   // the driver cannot run this; wait for another wish
	claims  map[unit.Name]uint64 // exclusive units that may be running under this run number; see claim.go
	lease   lease
	starts  []start          // this machine's agents of late, this one last
	leaving bool             // Halt was called
	parting bool             // the presence is to say Restarting
	frozen  bool             // no tasks any more
	other   string           // who else runs with this machine's ID; "" for nobody
	mine    bool             // nobody else's presence was in the store when last looked
	away    map[string]error // what does not work with the store, by what was tried

	fresh  chan struct{} // capacity 1: the stored places or the machine's record changed
	report chan struct{} // capacity 1: there is something to publish
	fences chan struct{} // capacity 1: the fence may be extended
	claimq chan claim
	run    context.Context // of the workers; set by Run
	stop   context.CancelFunc
	busy   sync.WaitGroup // the workers
	tell   reporter       // belongs to the reporting goroutine
}

// New makes an agent that does nothing before Run.
func New(o Options) *Agent {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.Renew == 0 {
		o.Renew = DefaultRenew
	}
	if o.Cache == nil {
		o.Cache = FileCache(o.DataDir)
	}
	o.Presence.ID = o.ID
	o.Presence.Leaving, o.Presence.Restarting = false, false
	if o.Presence.Started.IsZero() {
		o.Presence.Started = time.Now()
	}
	o.Presence.Started = o.Presence.Started.UTC().Round(0)
	return &Agent{
		opts: o, cache: o.Cache,
		halts:  make(chan *haltRequest),
		slots:  make(chan struct{}, slotsPerCore*runtime.GOMAXPROCS(0)),
		wanted: wishes{list: map[unit.Name]wish{}},
		units:  map[unit.Name]unit.State{}, workers: map[unit.Name]*worker{}, trouble: map[unit.Name]string{},
		away:    map[string]error{},
		halfway: map[unit.Name]bool{}, givenUp: map[unit.Name]wish{}, claims: map[unit.Name]uint64{},
		fresh: make(chan struct{}, 1), report: make(chan struct{}, 1), fences: make(chan struct{}, 1),
		claimq: make(chan claim),
	}
}

// Run does the work of the agent until ctx ends or Halt is done; then it returns nil. When ctx ends, which is a planned
// restart, the units keep running and the presence says for 60 s that the agent will be back. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.mu.Lock()
	a.run, a.stop = context.WithCancel(ctx)
	a.mu.Unlock()
	cached := a.openCache()

	var hands sync.WaitGroup
	hands.Go(func() { a.watchDriver(ctx) })
	hands.Go(func() { a.followPlaces(ctx) })
	hands.Go(func() { a.followRecord(ctx) })
	hands.Go(func() { a.keepWishes(ctx, cached) })
	hands.Go(func() { a.keepLease(ctx) })
	hands.Go(func() { a.keepFence(ctx) })
	hands.Go(func() { a.keepReport(ctx) })

	var h *haltRequest
	var err error
	select {
	case <-ctx.Done():
	case h = <-a.halts:
		err = a.halt(ctx, h.ctx)
	}
	a.freeze()
	stop()
	hands.Wait()
	if h != nil {
		a.leave(context.WithoutCancel(ctx))
		h.done <- err
	} else {
		a.part(context.WithoutCancel(ctx))
	}
	return nil
}

// Status is what an agent knows of itself.
type Status struct {
	Present bool   `json:"present"`           // the machine's presence is in the store
	Source  string `json:"source"`            // where its places come from: "", cache or store
	Places  int    `json:"places"`            // how many there are
	Units   int    `json:"units"`             // how many the driver has loaded
	Trouble string `json:"trouble,omitempty"` // what keeps the agent from its work
}

// Status tells how the agent is.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{Present: a.lease.confirmed, Source: a.wanted.source.String(), Places: len(a.wanted.list), Units: len(a.units)}
	switch {
	case a.other != "":
		s.Trouble = "another agent runs with this machine id: " + a.other
	case a.wanted.record == recordMissing:
		s.Trouble = "the cluster does not know this machine: nothing is changed here"
	case len(a.away) > 0:
		for what, err := range a.away {
			s.Trouble = "the store does not answer (" + what + "): " + err.Error()
		}
	case !a.driven:
		s.Trouble = "the driver does not answer"
	}
	return s
}

// noteStore keeps whether the store does what is asked of it, and logs when that changes.
func (a *Agent) noteStore(what string, err error) {
	if err != nil && a.run.Err() != nil {
		return // we are stopping: the error is ours
	}
	a.mu.Lock()
	_, had := a.away[what]
	if err != nil {
		a.away[what] = err
	} else {
		delete(a.away, what)
	}
	a.mu.Unlock()
	switch {
	case err != nil && !had:
		a.opts.Log.Warn("the store does not answer; units are left as they are, trying again", "task", what, "err", err)
	case err == nil && had:
		a.opts.Log.Info("the store answers again", "task", what)
	}
}

// watchDriver keeps a.units at what the driver tells, until ctx ends.
func (a *Agent) watchDriver(ctx context.Context) {
	var again backoff
	for {
		err := a.opts.Driver.Watch(ctx, func(states []unit.State, first bool) {
			again = 0
			a.driverTold(states, first)
		})
		if ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		lost := a.driven
		a.driven = false
		a.mu.Unlock()
		if lost {
			a.opts.Log.Warn("the driver does not answer; trying again", "err", err)
		}
		if !again.wait(ctx, nil) {
			return
		}
	}
}

// driverTold takes in what the driver told, and starts what tasks follow from it.
func (a *Agent) driverTold(states []unit.State, first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first {
		clear(a.units)
		a.driven = true
	}
	for _, s := range states {
		if s.Load == notFound {
			delete(a.units, s.Unit)
			delete(a.claims, s.Unit)
			continue
		}
		a.units[s.Unit] = s
		if run, ok := a.claims[s.Unit]; ok && run == s.Run {
			delete(a.claims, s.Unit) // from now on the driver's word says it
		}
	}
	if first {
		a.findHalfway()
		a.settleAll()
	} else {
		for _, s := range states {
			a.settle(s.Unit)
		}
	}
	poke(a.report)
}

// poke wakes the reader of a channel of capacity 1, once however often it is called before that one looks.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// errFrozen is what is given to those who come when the agent has ended its work.
var errFrozen = fault.New(fault.Unavailable, "the agent is stopping")

// backoffMin and backoffMax bound the pause after something failed: a store's election (1 to 2 s) is used soon after it
// ends, and an hour of trouble costs 720 attempts.
const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 5 * time.Second
)

// backoff is a pause that doubles each time. The zero value begins with backoffMin.
type backoff time.Duration

// wait pauses, or until early says something; false when ctx ended first.
func (b *backoff) wait(ctx context.Context, early <-chan struct{}) bool {
	*b = backoff(min(max(2*time.Duration(*b), backoffMin), backoffMax))
	return pause(ctx, time.Duration(*b), early)
}

// pause waits for d, or until early says something; false when ctx ended first.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-early:
	case <-t.C:
	}
	return ctx.Err() == nil
}
