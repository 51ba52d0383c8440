// Package fake is a driver.Driver in memory, for tests: it runs units that are only timers.
//
// The invariant: it keeps every promise of driver.Driver (drivertest says so) and is deterministic: it reads no clock but
// time.Now, does no I/O and starts no goroutine of its own, so it can live inside a testing/synctest bubble.
// The value stands for the machine: it outlives the agents that use it, and loses what runs in PowerCut only.
// It never runs a process.
//
// Start reading at Driver and Behaviour.
package fake

import (
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"flota/internal/driver"
	"flota/internal/driver/board"
	"flota/internal/fault"
	"flota/internal/unit"
)

// Behaviour is what a unit does when it is started. The zero value becomes active at once and runs for ever.
type Behaviour struct {
	StartDelay time.Duration `json:"startDelay,omitempty"` // how long it is activating
	FailStart  bool          `json:"failStart,omitempty"`  // never becomes active: exits with ExitCode (3 if that is 0)
	EndAfter   time.Duration `json:"endAfter,omitempty"`   // its process ends so long after it became active; 0 is never
	ExitCode   int           `json:"exitCode,omitempty"`   // when it ends by itself; 0 is a clean end
	StopTakes  time.Duration `json:"stopTakes,omitempty"`  // how long it ignores a request to stop
	StopKilled bool          `json:"stopKilled,omitempty"` // it had to be killed when it stopped: ends failed with timeout
	Restart    bool          `json:"restart,omitempty"`    // Restart=on-failure with RestartSec=100ms and 5 starts in 10 s
	Lines      int           `json:"lines,omitempty"`      // prints "line 1" to "line N" when started
	Reload     string        `json:"reload,omitempty"`     // "" has no ExecReload=, "ok" works, "fail" fails
	Exclusive  bool          `json:"exclusive,omitempty"`  // as [X-Flota] Exclusive=true, which works too
	Bad        string        `json:"bad,omitempty"`        // why the unit can never start: State.Load is bad-setting
	Notes      []string      `json:"notes,omitempty"`      // State.Notes
}

// BehaviourKey is the option of section X-Fake whose value is a Behaviour in JSON.
const BehaviourKey = "Behaviour"

// Options are the hooks of a test. The zero value is fine.
type Options struct {
	Log *slog.Logger // nil logs nothing
	// OnRun is told each time a unit's process begins (started) and when nothing of it is left any more, in the
	// order in which it happens. It is called with the driver locked: it must not call the driver.
	OnRun func(name unit.Name, run uint64, started bool)
}

// Driver is a machine that runs units in memory. Make one with New. Safe for concurrent use.
type Driver struct {
	opts  Options
	board *board.Board

	mu      sync.Mutex // guards the fields below
	off     bool       // no power
	units   map[unit.Name]*member
	scripts map[unit.Name]Behaviour
	fence   time.Time     // exclusive units live until then
	timer   *time.Timer   // fires at fence
	news    chan struct{} // closed and made anew whenever a unit changed or printed
}

var _ driver.Driver = (*Driver)(nil)

// New gives a machine that runs nothing.
func New(o Options) *Driver {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Driver{opts: o, board: board.New(), units: map[unit.Name]*member{},
		scripts: map[unit.Name]Behaviour{}, news: make(chan struct{})}
}

// Script sets what the unit does from its next load or start on, over what its file says.
func (d *Driver) Script(name unit.Name, b Behaviour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scripts[name] = b
}

// behaviour gives what u does: its script, or what its file says.
func (d *Driver) behaviour(u unit.Unit) Behaviour {
	b, ok := d.scripts[u.Name]
	for _, o := range u.Options {
		switch {
		case o.Section == "X-Fake" && o.Name == BehaviourKey && !ok:
			if err := json.Unmarshal([]byte(o.Value), &b); err != nil {
				b.Bad = "X-Fake: " + err.Error()
			}
		case o.Section == "X-Flota" && o.Name == "Exclusive":
			b.Exclusive = slices.Contains([]string{"true", "yes", "on", "1"}, o.Value)
		}
	}
	return b
}

// Crash ends the unit's process now, as by a signal. It reports whether there was one.
func (d *Driver) Crash(name unit.Name) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.units[name]
	if m == nil || !m.alive {
		return false
	}
	m.ended("signal", 0, "SIGSEGV", "main process was killed by SIGSEGV (signal)")
	return true
}

// Running gives the run number of each unit whose process runs now.
func (d *Driver) Running() map[unit.Name]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[unit.Name]uint64{}
	for name, m := range d.units {
		if m.alive {
			out[name] = m.st.Run
		}
	}
	return out
}

// PowerCut ends everything that runs, at once and with nothing run after it. Until PowerOn every call gives fault.Unavailable.
func (d *Driver) PowerCut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	d.fence = time.Time{}
	for _, name := range d.names() {
		d.units[name].lost()
	}
	d.board.Break(fault.New(fault.Unavailable, "the machine has no power"))
}

// PowerOn is the machine's next boot: units that were loaded are known, none runs and none starts by itself.
func (d *Driver) PowerOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = false
}

// BreakWatches ends all watches with fault.Unavailable, as a supervisor that is replaced does. Units are not touched.
func (d *Driver) BreakWatches() {
	d.board.Break(fault.New(fault.Unavailable, "the supervisor was replaced"))
}
