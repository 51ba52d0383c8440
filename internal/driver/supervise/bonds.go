package supervise

import (
	"sync"
	"time"

	"flota/internal/driver/lifecycle"
	"flota/internal/driver/relation"
	"flota/internal/unit"
)

// cause is one request to start a unit, and who was started for it: each unit once at most, so that units which want each other in a
// circle come to an end. A new supervisor begins with a new one, since none is kept on disk.
type cause struct {
	mu    sync.Mutex // guards taken
	taken map[unit.Name]bool
}

// newCause is a request to start x.
func newCause(x unit.Name) *cause { return &cause{taken: map[unit.Name]bool{x: true}} }

// take reports whether n has not been started for this cause, and notes that it is now.
func (c *cause) take(n unit.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.taken[n]
	c.taken[n] = true
	return !had
}

// idle reports whether no command of a start is under way, or was: what comes next is a start.
func idle(p lifecycle.Phase) bool {
	return p == "" || p == lifecycle.Dead || p == lifecycle.Failed || p == lifecycle.AutoRestart
}

// turn says what a change of phase means to other units: began, the unit's start is under way; started, it is done. Both may be true at
// once. A command that ran to its end has been started too (Type=oneshot), unless it failed or was stopped before.
func turn(before lifecycle.Phase, r *lifecycle.Record) (began, started bool) {
	if idle(r.Phase) {
		return false, false
	}
	began = idle(before)
	if !began && before.Active() != "activating" {
		return began, false
	}
	switch r.Phase.Active() {
	case "active", "reloading":
		started = true
	case "deactivating":
		started = r.Result == lifecycle.Success && !r.Forbid
	}
	return began, started
}

// turned starts what is to start because this unit does, after its phase was before.
func (a *actor) turned(before lifecycle.Phase) {
	began, started := turn(before, &a.rec)
	if !began && !started {
		return
	}
	a.s.mu.Lock()
	now, later := a.s.bonds.Pulled(a.name)
	a.s.mu.Unlock()
	if began {
		a.pull(now)
	}
	if started {
		a.pull(later)
	}
}

// pull starts units for the same cause as this one.
func (a *actor) pull(names []unit.Name) {
	if a.cause == nil {
		a.cause = newCause(a.name)
	}
	by, c := a.name, a.cause
	for _, n := range names {
		if other, err := a.s.find(n); err == nil && c.take(n) {
			other.post(func() { other.startFor(by, c) })
		}
	}
}

// startFor starts the unit under run 0, since nobody asked for a run of it; no-op if it runs. A unit that is being stopped starts after
// that. Exclusive units stay as they are: only who asks for a run of one has made sure that it runs nowhere else.
func (a *actor) startFor(by unit.Name, c *cause) {
	switch {
	case a.loaded.bad != "" || a.loaded.svc.Flota.Exclusive || a.s.closing.Load():
	case a.rec.Resting():
		a.cause = c
		a.out.Say("Starting because of " + string(by) + ".")
		a.handle(lifecycle.StartAsked{})
	case a.rec.Phase.Active() == "deactivating" && a.rec.Pending == 0:
		a.again, a.againFor = c, by
	}
}

// stopFor stops the unit because another one stops; no-op if it does not run.
func (a *actor) stopFor(by unit.Name) {
	a.again = nil
	if a.rec.Resting() {
		return
	}
	if a.rec.Phase.Active() != "deactivating" {
		a.out.Say("Stopping because of " + string(by) + ".")
	}
	a.handle(lifecycle.StopAsked{})
}

// restartFor restarts the unit because another one is; no-op if it does not run. The run number stays.
func (a *actor) restartFor(by unit.Name, c *cause) {
	if !a.up() {
		return
	}
	a.out.Say("Restarting because of " + string(by) + ".")
	if a.rec.Run != 0 && a.loaded.bad == "" {
		a.cause = c
		a.handle(lifecycle.StartAsked{Run: a.rec.Run})
		return
	}
	a.again, a.againFor = c, by
	a.handle(lifecycle.StopAsked{})
}

// up reports whether the unit runs or is about to, and was not asked to stop.
func (a *actor) up() bool { return !idle(a.rec.Phase) && a.rec.Phase.Active() != "deactivating" }

// onceMore starts the unit that was to start when its stop was done.
func (a *actor) onceMore() {
	c, by := a.again, a.againFor
	if c == nil || a.rec.Phase.Active() == "deactivating" {
		return
	}
	a.again = nil
	if a.rec.Resting() {
		a.post(func() { a.startFor(by, c) })
	}
}

// takeAlong does f with every unit that stops and restarts together with this one when that is asked for.
func (a *actor) takeAlong(f func(other *actor)) {
	a.s.mu.Lock()
	names := a.s.bonds.Following(a.name)
	a.s.mu.Unlock()
	for _, n := range names {
		if other, err := a.s.find(n); err == nil {
			other.post(func() { f(other) })
		}
	}
}

// release stops the units that are bound to this one, which rests now; with a time only those that were up before it.
func (a *actor) release(since time.Time) {
	by := a.name
	a.s.mu.Lock()
	names := a.s.bonds.Bound(by)
	a.s.mu.Unlock()
	for _, n := range names {
		if other, err := a.s.find(n); err == nil {
			other.post(func() {
				if since.IsZero() || other.rec.Since.Before(since) {
					other.stopFor(by)
				}
			})
		}
	}
}

// catchUp stops what is bound to a unit that ended just when the last supervisor did, too late for it to act on.
func (a *actor) catchUp() {
	if a.rec.Resting() && a.rec.Invocation != "" {
		a.release(a.rec.Since)
	}
}

// adoptRun gives a unit that runs because of another one the run that is asked for now. It reports false if the unit must be
// started for it.
func (a *actor) adoptRun(run uint64) bool {
	r := &a.rec
	if r.Run != 0 || r.Pending != 0 || !a.up() || a.running.Hash() != a.loaded.Hash() {
		return false
	}
	r.Run = run
	a.settle()
	return true
}

// bind notes what a unit's content says of others.
func (s *supervisor) bind(d *definition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bonds[d.Name] = relation.Of(&d.svc)
}
