// Package launch starts one command of a unit: from typed settings to a running process with the right cgroup, limits,
// namespaces, mounts, user, capabilities and seccomp filters.
//
// The invariant: the process that Start makes is the process the unit runs in, with the same PID from fork to end, and
// nothing of the unit's program runs before every protection is in place. Between fork and exec it is this same binary
// under the name flota-exec (package child), which only obeys the numbers of a Spec.
//
// Plan is where meaning is: settings in, Spec and notes out. Launch never waits for a child and never reaps: the
// caller owns all processes. What this machine cannot honour is told by Host.Honoured, never dropped in silence.
//
// Start reading at Plan, then Start.
package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"flota/internal/driver/launch/child"
)

// The words of a Spec, see package child.
type (
	Spec    = child.Spec
	Stdio   = child.Stdio
	Failure = child.Failure
)

// Child is a process that Start made. Its fields do not change.
type Child struct {
	PID    int
	status *os.File
	early  *Failure // of a step that Start did; the process ends for it
}

// Exec waits until the program has been executed (nil) or a step before that failed (*Failure). An end without
// either, such as a kill, is nil too: the exit status tells it. ctx's error if it ends first; Exec may be called again then.
// It needs one goroutine at a time.
func (c *Child) Exec(ctx context.Context) error {
	if c.early != nil {
		return c.early
	}
	stop := context.AfterFunc(ctx, func() { c.status.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			c.status.SetReadDeadline(time.Time{})
		}
	}()
	text, err := io.ReadAll(io.LimitReader(c.status, 1<<16))
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("read status of process %d: %w", c.PID, err)
	}
	if len(text) == 0 {
		return nil
	}
	f := new(Failure)
	if err := json.Unmarshal(text, f); err != nil {
		return fmt.Errorf("status of process %d: %w", c.PID, err)
	}
	return f
}

// Close frees what belongs to the Child value, not the process. Safe to call more than once.
func (c *Child) Close() error {
	c.status.Close()
	return nil
}
