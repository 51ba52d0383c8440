// Package view is the cluster as this machine last saw it: every machine, unit, place and state in typed maps, kept at
// the store's state by one watch over all of Flota's keys. Every voter runs one all the time, leading or not, so a new leader
// knows at once what it leads, and since when machines are gone.
//
// The invariant: what Look shows is exactly the store at revision Rev, never a mixture of two revisions; only a value
// that cannot be read stays what it was. A machine is lost from the moment that its presence was seen to go,
// by this machine's own clock.
//
// It never writes to the store and decides nothing.
//
// Start reading at View and Cluster; event.go tells what happened in an operator's words.
package view

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/unit"
)

// DefaultGrace is how long after the start of the process a machine that was not seen yet is still expected. 10 s, so that
// machines which boot together find each other before anything is moved.
const DefaultGrace = 10 * time.Second

// Options are what a View needs. Store and Log must be set.
type Options struct {
	Store *store.Store
	Log   *slog.Logger
	Grace time.Duration // see DefaultGrace, which 0 stands for
}

// Cluster is everything that is known. It belongs to its View: read it in Look only, and change nothing.
type Cluster struct {
	Rev      int64 // the store's revision that this is true of; 0: nothing has been read yet
	UnitsRev int64 // the revision at which Units last changed, as seen here
	Leader   machine.ID
	Machines map[machine.ID]store.Entry[machine.Machine]
	Alive    map[machine.ID]store.Entry[machine.Presence]
	Units    map[unit.Name]store.Entry[unit.Unit]
	Places   map[machine.ID]map[unit.Name]store.Entry[unit.Place]
	States   map[machine.ID]map[unit.Name]store.Entry[unit.State]

	lost  map[machine.ID]time.Time // when a presence that this process knew went
	back  map[machine.ID]time.Time // the same of machines that are there again
	names map[machine.ID]string    // of all machines ever seen, for events
	heard time.Time                // when a machine that was never seen counts as lost
}

// View keeps a Cluster. Make one with New, keep it with Run. All methods are safe for concurrent use.
type View struct {
	opts Options

	mu      sync.RWMutex // guards the fields below
	cluster Cluster
	changed chan struct{} // closed and made anew with each change
	trouble error         // why the store cannot be followed now; nil when it can
	events  ring
}

// New gives a view that has seen nothing yet.
func New(o Options) *View {
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	v := &View{opts: o, changed: make(chan struct{})}
	v.cluster = empty()
	v.cluster.names = map[machine.ID]string{}
	v.cluster.lost = map[machine.ID]time.Time{}
	v.cluster.back = map[machine.ID]time.Time{}
	v.cluster.heard = time.Now().Add(o.Grace)
	v.events.more = make(chan struct{})
	return v
}

// empty gives a cluster of nothing.
func empty() Cluster {
	return Cluster{
		Machines: map[machine.ID]store.Entry[machine.Machine]{},
		Alive:    map[machine.ID]store.Entry[machine.Presence]{},
		Units:    map[unit.Name]store.Entry[unit.Unit]{},
		Places:   map[machine.ID]map[unit.Name]store.Entry[unit.Place]{},
		States:   map[machine.ID]map[unit.Name]store.Entry[unit.State]{},
	}
}

// Run follows the store until ctx ends; then it returns nil. While the store is away the view stays as it was.
func (v *View) Run(ctx context.Context) error {
	return store.Follow(ctx, v.opts.Store.KV, store.Prefix, v, v.note)
}

// note keeps the error of following, and logs when it comes and goes.
func (v *View) note(err error) {
	v.mu.Lock()
	had := v.trouble
	v.trouble = err
	v.mu.Unlock()
	switch {
	case err != nil && had == nil:
		v.opts.Log.Warn("the store cannot be followed; trying again", "err", err)
	case err == nil && had != nil:
		v.opts.Log.Info("the store can be followed again")
	}
}

// Trouble is why the store cannot be followed now, and the view may be old; nil when it is followed.
func (v *View) Trouble() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.trouble
}

// Look calls f with the cluster, which does not change until f returns. f must not keep the maps, must not
// write to them, and must not wait: the view stands still meanwhile. The values of entries may be kept.
func (v *View) Look(f func(*Cluster)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f(&v.cluster)
}

// Rev is the store's revision that the view has reached; 0 before the first answer of the store.
func (v *View) Rev() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.cluster.Rev
}

// Changed gives a channel that is closed at the next change. Take it before looking, so that no change is missed.
func (v *View) Changed() <-chan struct{} {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.changed
}

// Await waits until the view has reached rev; the error is ctx's.
func (v *View) Await(ctx context.Context, rev int64) error {
	for {
		v.mu.RLock()
		reached, changed := v.cluster.Rev >= rev, v.changed
		v.mu.RUnlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Lost says since when the machine is not there. lost is false while it is there, and while it is unknown: a machine that
// this process never saw is lost only when the grace after the start of the process has passed.
func (c *Cluster) Lost(id machine.ID, now time.Time) (since time.Time, lost bool) {
	if _, alive := c.Alive[id]; alive {
		return time.Time{}, false
	}
	if since, ok := c.lost[id]; ok {
		return since, true
	}
	return c.heard, !now.Before(c.heard)
}

// Blinked is when a machine that is there was lost last; zero for one that never was, as far as this process knows.
func (c *Cluster) Blinked(id machine.ID) time.Time { return c.back[id] }

// Name is the machine's name, or the first digits of its ID when no name is known.
func (c *Cluster) Name(id machine.ID) string {
	if n := c.names[id]; n != "" {
		return n
	}
	return id.Short()
}

// State gives what a machine reports of a unit.
func (c *Cluster) State(m machine.ID, u unit.Name) (unit.State, bool) {
	e, ok := c.States[m][u]
	return e.Value, ok
}

// Heard is when the grace after the start of the process ends: see Lost.
func (c *Cluster) Heard() time.Time { return c.heard }
