// Package driver is the one interface to whatever runs units on a machine, the same for processes,
// containers and systemd, so that the agent need not know.
//
// The invariant: a driver's units outlive the driver value, the agent and its process; a new driver value on the same
// data directory finds everything that runs and changes nothing by looking. Only Start, Stop, Unload and a fence that
// has run out ever end a process.
//
// Package drivertest holds the conformance suite that every driver passes, and a fake that passes it too.
// Start reading at Driver.
package driver

import (
	"context"
	"time"

	"flota/internal/unit"
)

// Driver runs units on this machine. All methods are safe for concurrent use and safe to repeat.
// Errors: fault.NotFound for a unit that is not loaded, fault.Invalid for one this driver cannot run,
// fault.Unavailable when the thing behind the driver (supervisor, engine) does not answer.
type Driver interface {
	// Load makes the unit known here; it starts nothing. Loading a loaded unit with another content replaces the
	// content for the next start and leaves running processes alone. What cannot be honoured is
	// told in State.Notes; a unit file that can never start is loaded with State.Load "bad-setting".
	Load(ctx context.Context, u unit.Unit) error
	// Start asks for run number run of a loaded unit and returns when the request is taken, not when the unit is
	// active: States and Watch tell. It is a no-op if run is the one that was last started, whatever came of it.
	// A unit active under an older run is stopped first, its stop commands included, then started. The run of a unit that a fence,
	// a power cut or the loss of its processes ended is forgotten (State.Run 0), so it can be asked for again.
	// An exclusive unit is refused with fault.Conflict while no fence runs: see Fence. A unit that runs because another pulled it in
	// (run 0) goes on and takes the run over.
	Start(ctx context.Context, name unit.Name, run uint64) error
	// Stop asks for the unit to be stopped and returns when the request is taken. No-op when it is not running.
	// It also ends waiting for an automatic restart.
	Stop(ctx context.Context, name unit.Name) error
	// Reload runs ExecReload= of an active unit and waits for its end. fault.Conflict if the unit is not active or
	// has no ExecReload=; fault.Failed with the reason if a command fails.
	Reload(ctx context.Context, name unit.Name) error
	// Unload stops the unit if need be, waits until nothing of it is left, and forgets it. NotFound is no error here.
	Unload(ctx context.Context, name unit.Name) error
	// ResetFailed forgets a failure and the start limit counter of a unit.
	ResetFailed(ctx context.Context, name unit.Name) error

	// States gives the state of every loaded unit, sorted by name. Machine is left empty.
	States(ctx context.Context) ([]unit.State, error)
	// Watch calls f with the states of all units first, and then with those that changed, until ctx ends (nil) or
	// the thing behind the driver is lost (fault.Unavailable). The first call has first set. Intermediate states
	// may be skipped, the last one never is. A unit that was unloaded is told once more, with State.Load "not-found".
	Watch(ctx context.Context, f func(states []unit.State, first bool)) error

	// Logs writes what the unit printed, oldest first. fault.NotFound if nothing is known of the unit.
	Logs(ctx context.Context, name unit.Name, o LogOptions, f func(LogLine) error) error
	// Stats gives what the loaded units use now. Units that are not running are left out.
	Stats(ctx context.Context) ([]Stats, error)

	// Fence extends the life of units with [X-Flota] Exclusive=true: they are stopped by force when left has passed
	// since the call without another call. The deadline is kept by what owns the processes, so it holds
	// with a dead or paused agent. left <= 0 stops them now. Of two calls the one that was made later counts, so one that
	// arrives late extends nothing. It must be called before the first exclusive unit is started.
	Fence(ctx context.Context, left time.Duration) error
}

// LogOptions chooses what Logs writes.
type LogOptions struct {
	Lines  int  // the last so many lines; negative is all that is kept
	Follow bool // go on with new lines until ctx ends
}

// LogLine is one line that a unit printed, or one that was said of it ("Started.").
type LogLine struct {
	Time   time.Time `json:"time"`
	Unit   unit.Name `json:"unit,omitempty"`
	Stream string    `json:"stream"` // stdout, or flota for what the supervisor says of the unit
	Text   string    `json:"text"`   // without the line end
}

// Stats is what one unit uses.
type Stats struct {
	Unit      unit.Name `json:"unit"`
	MemBytes  int64     `json:"memBytes"`
	CPUMicros int64     `json:"cpuMicros"` // processor time used since it started
	Tasks     int       `json:"tasks"`
}
