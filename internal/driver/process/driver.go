package process

import (
	"context"
	"encoding/json"
	"time"

	"flota/internal/driver"
	"flota/internal/driver/proc"
	"flota/internal/driver/wire"
	"flota/internal/fault"
	"flota/internal/unit"
)

// Load implements driver.Driver.
func (d *Driver) Load(ctx context.Context, u unit.Unit) error {
	return d.call(ctx, "load", wire.Loading{Unit: u, Strict: d.o.Strict}, nil)
}

// Start implements driver.Driver.
func (d *Driver) Start(ctx context.Context, name unit.Name, run uint64) error {
	return d.call(ctx, "start", wire.Call{Unit: name, Run: run}, nil)
}

// Stop implements driver.Driver.
func (d *Driver) Stop(ctx context.Context, name unit.Name) error {
	return d.call(ctx, "stop", wire.Call{Unit: name}, nil)
}

// Reload implements driver.Driver.
func (d *Driver) Reload(ctx context.Context, name unit.Name) error {
	return d.call(ctx, "reload", wire.Call{Unit: name}, nil)
}

// Unload implements driver.Driver.
func (d *Driver) Unload(ctx context.Context, name unit.Name) error {
	return d.call(ctx, "unload", wire.Call{Unit: name}, nil)
}

// ResetFailed implements driver.Driver.
func (d *Driver) ResetFailed(ctx context.Context, name unit.Name) error {
	return d.call(ctx, "reset", wire.Call{Unit: name}, nil)
}

// States implements driver.Driver.
func (d *Driver) States(ctx context.Context) (states []unit.State, err error) {
	err = d.call(ctx, "states", wire.Call{}, &states)
	return states, err
}

// Stats implements driver.Driver.
func (d *Driver) Stats(ctx context.Context) (stats []driver.Stats, err error) {
	err = d.call(ctx, "stats", wire.Call{}, &stats)
	return stats, err
}

// Watch implements driver.Driver. It goes on over a supervisor that is replaced: what changed meanwhile is told then, and units that are
// gone are told with Load "not-found".
func (d *Driver) Watch(ctx context.Context, f func(states []unit.State, first bool)) error {
	known := map[unit.Name]bool{}
	first := true
	for {
		answer, err := d.post(ctx, "watch", wire.Call{})
		if ctx.Err() != nil {
			if err == nil {
				answer.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		err = lines(ctx, answer, func(line []byte) error {
			var told wire.Told
			if err := json.Unmarshal(line, &told); err != nil {
				return fault.Wrap(fault.Unavailable, err, "the supervisor's answer was cut off")
			}
			if told.First {
				told.States = append(told.States, lost(known, told.States)...)
			}
			for _, st := range told.States {
				known[st.Unit] = true
			}
			f(told.States, first)
			first = false
			return nil
		})
		if ctx.Err() != nil || err == nil {
			return nil
		}
		if !fault.Is(err, fault.Unavailable) {
			return err
		}
	}
}

// lost gives the units that were known and are not loaded any more.
func lost(known map[unit.Name]bool, now []unit.State) (gone []unit.State) {
	there := map[unit.Name]bool{}
	for _, st := range now {
		there[st.Unit] = true
	}
	for name := range known {
		if !there[name] {
			gone = append(gone, unit.State{Unit: name, Load: "not-found", Active: "inactive", Sub: "dead"})
			delete(known, name)
		}
	}
	return gone
}

// Logs implements driver.Driver. A follow ends with fault.Unavailable when the supervisor is replaced.
func (d *Driver) Logs(ctx context.Context, name unit.Name, o driver.LogOptions, f func(driver.LogLine) error) error {
	answer, err := d.post(ctx, "logs", wire.Call{Unit: name, Lines: o.Lines, Follow: o.Follow})
	if err != nil {
		return err
	}
	ended := false
	err = lines(ctx, answer, func(line []byte) error {
		var l wire.Logged
		if err := json.Unmarshal(line, &l); err != nil {
			return fault.Wrap(fault.Unavailable, err, "the supervisor's answer was cut off")
		}
		switch {
		case l.Problem != nil:
			return l.Problem.Err()
		case l.End:
			ended = true
			return errEnd
		}
		return f(driver.LogLine{Time: l.Time, Unit: name, Stream: l.Stream, Text: l.Text})
	})
	if ended {
		return nil
	}
	return err
}

// Fence implements driver.Driver. The moment is fixed here, on the clock since boot, so that a call that was held up on its way
// does not extend anything.
func (d *Driver) Fence(ctx context.Context, left time.Duration) error {
	call := wire.Call{At: proc.BootTime()}
	if left > 0 {
		call.Until = call.At + left
	}
	return d.call(ctx, "fence", call, nil)
}
