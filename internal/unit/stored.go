package unit

import (
	"time"

	"flota/internal/machine"
)

// Target is the state that the user wants of a unit; fleet's word is desiredState.
type Target string

// The targets. Inactive: known, not on a machine. Loaded: on a machine, not started. Launched: started.
const (
	Inactive Target = "inactive"
	Loaded   Target = "loaded"
	Launched Target = "launched"
)

// Unit is one thing to run. Stored at units/<name>; the api writes it.
type Unit struct {
	Name    Name     `json:"name"`
	Options []Option `json:"options"`
	Target  Target   `json:"target"`
	// Run counts the times that a start was asked for: every change to launched, every `start` of a unit
	// that is not active and every `restart` adds one. An agent whose unit runs under another number
	// stops it and starts it anew, so no request to restart is lost by being seen late.
	Run     uint64    `json:"run,omitempty"`
	Owner   string    `json:"owner,omitempty"` // who owns the unit; "" is the user
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"` // when options, target or run last changed
}

// File gives the unit's content.
func (u Unit) File() File { return File{Options: u.Options} }

// Hash is fleet's SHA-1 of the normalised text, 40 hex digits.
func (u Unit) Hash() string { return u.File().Hash() }

// Place says that a unit is on a machine. Stored at places/<machine>/<unit>; the leader writes it.
// It holds the whole unit, so that an agent needs to watch nothing but its own places, and can run them from
// its cache when the store is away.
type Place struct {
	Machine machine.ID `json:"machine"`
	Unit    Unit       `json:"unit"`
	Since   time.Time  `json:"since"`
	Reason  string     `json:"reason"` // why here, in an operator's words
	// Leaving: the unit has been placed elsewhere and is to go on here until it is active there
	// (drain and clean shutdown start elsewhere first). A unit has at most one place that is not leaving.
	Leaving bool `json:"leaving,omitempty"`
}

// State is what a machine reports of a unit. Stored at states/<machine>/<unit> under the agent's lease.
// Load, Active and Sub are systemd's words: loaded|not-found|bad-setting|error,
// active|reloading|inactive|failed|activating|deactivating, running|exited|dead|auto-restart|...
type State struct {
	Unit     Name       `json:"unit"`
	Machine  machine.ID `json:"machine"`
	Hash     string     `json:"hash"`          // of the content that is loaded
	Run      uint64     `json:"run,omitempty"` // the Unit.Run that was last started; 0 if never, or started because of another unit
	Load     string     `json:"load"`
	Active   string     `json:"active"`
	Sub      string     `json:"sub"`
	Result   string     `json:"result,omitempty"` // systemd's Result: success exit-code signal timeout oom-kill ...
	MainPID  int        `json:"mainPID,omitempty"`
	ExitCode int        `json:"exitCode,omitempty"` // of the last main process; with Signal empty
	Signal   string     `json:"signal,omitempty"`   // that ended the last main process
	Restarts int        `json:"restarts,omitempty"` // automatic restarts since the last asked-for start
	Since    time.Time  `json:"since"`              // when Active last changed
	Message  string     `json:"message,omitempty"`  // in an operator's words: why it failed, what it waits for
	Status   string     `json:"status,omitempty"`   // what the service said of itself by sd_notify STATUS=
	Notes    []string   `json:"notes,omitempty"`    // keys of the unit file that cannot be honoured here
}
