// Package wire is the protocol between the process driver and its supervisor: what crosses the unix socket.
//
// The invariant: fields are added, never renamed or reused: an agent of one version speaks to a supervisor of another until it has
// re-executed it. It does no I/O.
//
// Start reading at Call.
package wire

import (
	"time"

	"flota/internal/fault"
	"flota/internal/unit"
)

// The bodies of the protocol: HTTP with JSON on the unix socket. A call is POST /v1/<name>; an answer other than 200 carries a
// Problem. Streams (watch, logs) are JSON lines. Every answer names the supervisor's binary in header BinaryHeader.

// BinaryHeader is the header with the home.Fingerprint of the supervisor's binary.
const BinaryHeader = "Flota-Binary"

// MaxBody bounds a request; a unit file of 1 MiB fits with its escapes.
const MaxBody = 16 << 20

// Call names a unit, with what the call needs beside.
type Call struct {
	Unit   unit.Name     `json:"unit,omitempty"`
	Run    uint64        `json:"run,omitempty"`    // start
	At     time.Duration `json:"at,omitempty"`     // fence: when the call was made, since boot
	Until  time.Duration `json:"until,omitempty"`  // fence: since boot, 0 is now
	Exe    string        `json:"exe,omitempty"`    // reexec
	Lines  int           `json:"lines,omitempty"`  // logs
	Follow bool          `json:"follow,omitempty"` // logs
}

// Loading is the body of load. Strict refuses a unit with restricting keys that are not honoured.
type Loading struct {
	Unit   unit.Unit `json:"unit"`
	Strict bool      `json:"strict,omitempty"`
}

// Told is one line of a watch.
type Told struct {
	States []unit.State `json:"states"`
	First  bool         `json:"first,omitempty"`
}

// Problem is an error on the wire; its kind survives. It ends a stream too.
type Problem struct {
	Kind    fault.Kind `json:"kind"`
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`
}

// Err gives the error back.
func (p Problem) Err() error {
	err := fault.New(p.Kind, "%s", p.Message)
	if p.Hint != "" {
		err = fault.WithHint(err, "%s", p.Hint)
	}
	return err
}

// Logged is one line of a logs stream: a line, or its end (End, or the problem). A stream cut off has neither.
type Logged struct {
	Time    time.Time `json:"time,omitzero"`
	Stream  string    `json:"stream,omitempty"`
	Text    string    `json:"text,omitempty"`
	End     bool      `json:"end,omitempty"`
	Problem *Problem  `json:"problem,omitempty"`
}

// Alive answers hello.
type Alive struct {
	PID    int    `json:"pid"`
	Binary string `json:"binary"`
	Units  int    `json:"units"`
	Fresh  bool   `json:"fresh"` // no re-exec has been asked of this supervisor
}
