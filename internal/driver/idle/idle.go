// Package idle is the driver of a machine that runs no units: a witness, which only votes.
//
// The invariant: it never starts anything, and says so. The scheduler places nothing on such a machine, so nobody sees its refusals but
// who asks a witness for the logs of a unit.
//
// Start reading at Driver.
package idle

import (
	"context"
	"time"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/unit"
)

// Driver refuses every unit. The zero value is ready.
type Driver struct{}

var _ driver.Driver = Driver{}

// none is the answer to a question for a unit.
func none(name unit.Name) error {
	return fault.New(fault.NotFound, "%s is not on this machine: it is a witness, which runs no units", name)
}

// Load implements driver.Driver: fault.Invalid.
func (Driver) Load(_ context.Context, u unit.Unit) error {
	return fault.New(fault.Invalid, "%s cannot run here: this machine is a witness, which runs no units", u.Name)
}

// Start implements driver.Driver: fault.NotFound, as nothing is ever loaded.
func (Driver) Start(_ context.Context, name unit.Name, _ uint64) error { return none(name) }

// Stop implements driver.Driver: fault.NotFound.
func (Driver) Stop(_ context.Context, name unit.Name) error { return none(name) }

// Reload implements driver.Driver: fault.NotFound.
func (Driver) Reload(_ context.Context, name unit.Name) error { return none(name) }

// Unload implements driver.Driver; there never is anything to do.
func (Driver) Unload(context.Context, unit.Name) error { return nil }

// ResetFailed implements driver.Driver: fault.NotFound.
func (Driver) ResetFailed(_ context.Context, name unit.Name) error { return none(name) }

// States implements driver.Driver: there are none.
func (Driver) States(context.Context) ([]unit.State, error) { return nil, nil }

// Watch implements driver.Driver: it tells of no units, and of nothing after that.
func (Driver) Watch(ctx context.Context, f func([]unit.State, bool)) error {
	f(nil, true)
	<-ctx.Done()
	return nil
}

// Logs implements driver.Driver: fault.NotFound.
func (Driver) Logs(_ context.Context, name unit.Name, _ driver.LogOptions, _ func(driver.LogLine) error) error {
	return none(name)
}

// Stats implements driver.Driver: there are none.
func (Driver) Stats(context.Context) ([]driver.Stats, error) { return nil, nil }

// Fence implements driver.Driver; nothing runs that it could stop.
func (Driver) Fence(context.Context, time.Duration) error { return nil }
