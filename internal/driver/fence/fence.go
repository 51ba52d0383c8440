// Package fence keeps the one deadline of all exclusive units of a machine, on the clock that counts from boot.
//
// The invariant: when the deadline has passed without another call, out is called, whoever else is dead or paused; and a
// supervisor that comes after a killed one keeps the deadline of that one.
// It knows nothing of units.
//
// Start reading at Fence.
package fence

import (
	"path/filepath"
	"sync"
	"time"

	"flota/internal/driver/home"
	"flota/internal/driver/proc"
)

// Fence is the moment until which exclusive units may live, on the clock that counts from boot and cannot be set.
type Fence struct {
	path string
	out  func() // called without locks when the fence has run out

	mu    sync.Mutex    // guards the fields below
	at    time.Duration // when the call that set it was made
	until time.Duration
	timer *time.Timer
	saved file
}

// file is a fence on disk: a supervisor that comes after a killed one must keep the deadline of that one.
type file struct {
	Boot  string        `json:"boot"`
	Until time.Duration `json:"until"`
}

// Open reads the fence of an earlier supervisor, if that was in this boot of the machine.
func Open(p home.Home, out func()) *Fence {
	f := &Fence{path: filepath.Join(p.Dir, "fence.json"), out: out}
	var now file
	if home.Read(f.path, &now) == nil && now.Boot == proc.BootID() {
		f.until = now.Until
		f.arm()
	}
	return f
}

// arm sets the timer. The lock is held, or nobody else knows f yet.
func (f *Fence) arm() {
	if f.timer != nil {
		f.timer.Stop()
	}
	// A timer stands still while the machine sleeps, and so do its units; Open tells the true state when it wakes.
	f.timer = time.AfterFunc(max(0, f.until-proc.BootTime()), f.check)
}

// check ends the exclusive units if the time has come.
func (f *Fence) check() {
	f.mu.Lock()
	over := proc.BootTime() >= f.until
	if !over {
		f.arm()
	}
	f.mu.Unlock()
	if over {
		f.out()
	}
}

// Extend moves the fence to until, 0 for now, as the call made at the moment at wants it. A call that was overtaken by
// a later one is not obeyed, and neither is one that took longer than the life it asked for. keep also writes it to disk.
func (f *Fence) Extend(at, until time.Duration, keep bool) error {
	f.mu.Lock()
	if at < f.at || until != 0 && until <= proc.BootTime() {
		f.mu.Unlock()
		return nil
	}
	f.at, f.until = at, until
	now := file{proc.BootID(), f.until}
	var err error
	if (keep || f.saved != file{}) && now != f.saved {
		f.saved = now
		err = home.Save(f.path, now)
	}
	f.arm()
	f.mu.Unlock()
	if until == 0 {
		f.check()
	}
	return err
}

// Open reports whether exclusive units may live now.
func (f *Fence) Open() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return proc.BootTime() < f.until
}

// Keep writes the deadline down: the first exclusive unit is about to start.
func (f *Fence) Keep() error {
	f.mu.Lock()
	at, until := f.at, f.until
	f.mu.Unlock()
	if until == 0 {
		return nil
	}
	return f.Extend(at, until, true)
}

// Stop ends the timer.
func (f *Fence) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
}
