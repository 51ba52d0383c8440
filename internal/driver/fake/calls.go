package fake

import (
	"context"
	"maps"
	"slices"
	"time"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/unit"
)

// names gives the loaded units in order. The lock is held.
func (d *Driver) names() []unit.Name { return slices.Sorted(maps.Keys(d.units)) }

// wake tells followers of logs that there may be news. The lock is held.
func (d *Driver) wake() {
	close(d.news)
	d.news = make(chan struct{})
}

// power gives fault.Unavailable while the machine is off, and ctx's error. The lock is held.
func (d *Driver) power(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.off {
		return fault.New(fault.Unavailable, "the machine has no power")
	}
	return nil
}

// find gives a loaded unit. The lock is held.
func (d *Driver) find(ctx context.Context, name unit.Name) (*member, error) {
	if err := d.power(ctx); err != nil {
		return nil, err
	}
	m := d.units[name]
	if m == nil {
		return nil, fault.New(fault.NotFound, "unit %q is not loaded here", name)
	}
	return m, nil
}

// Load implements driver.Driver.
func (d *Driver) Load(ctx context.Context, u unit.Unit) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.power(ctx); err != nil {
		return err
	}
	m := d.units[u.Name]
	if m == nil {
		m = &member{d: d, st: unit.State{Unit: u.Name, Active: "inactive", Sub: "dead", Since: time.Now()}}
		d.units[u.Name] = m
	}
	m.u = u
	b := d.behaviour(u)
	if !m.alive {
		m.does = b
	}
	m.st.Load, m.st.Notes, m.st.Hash = "loaded", b.Notes, u.Hash()
	if b.Bad != "" {
		m.st.Load, m.st.Message = "bad-setting", b.Bad
	}
	d.board.Set(m.st)
	return nil
}

// Start implements driver.Driver.
func (d *Driver) Start(ctx context.Context, name unit.Name, run uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.find(ctx, name)
	switch {
	case err != nil:
		return err
	case run != 0 && (run == m.pending || m.pending == 0 && run == m.st.Run):
		return nil
	case m.st.Load != "loaded":
		return fault.New(fault.Invalid, "unit %q cannot start: %s", name, m.st.Message)
	case d.behaviour(m.u).Exclusive && !time.Now().Before(d.fence):
		return fault.New(fault.Conflict, "exclusive unit %q cannot start: the fence has run out", name)
	}
	m.pending = run
	m.stop()
	return nil
}

// Stop implements driver.Driver.
func (d *Driver) Stop(ctx context.Context, name unit.Name) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.find(ctx, name)
	if err != nil {
		return err
	}
	m.pending = 0
	m.stop()
	return nil
}

// Reload implements driver.Driver.
func (d *Driver) Reload(ctx context.Context, name unit.Name) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.find(ctx, name)
	switch {
	case err != nil:
		return err
	case m.st.Active != "active":
		return fault.New(fault.Conflict, "unit %q is not active", name)
	case m.does.Reload == "":
		return fault.New(fault.Conflict, "unit %q has no ExecReload=", name)
	case m.does.Reload == "fail":
		return fault.New(fault.Failed, "reload of %q: command exited with status 1", name)
	}
	return nil
}

// Unload implements driver.Driver.
func (d *Driver) Unload(ctx context.Context, name unit.Name) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		m, err := d.find(ctx, name)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		m.pending = 0
		m.stop()
		if !m.alive {
			m.cancel()
			delete(d.units, name)
			d.board.Remove(name)
			d.wake()
			return nil
		}
		gone := make(chan struct{})
		m.waiters = append(m.waiters, gone)
		d.mu.Unlock()
		select {
		case <-gone:
		case <-ctx.Done():
		}
		d.mu.Lock()
	}
}

// ResetFailed implements driver.Driver.
func (d *Driver) ResetFailed(ctx context.Context, name unit.Name) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.find(ctx, name)
	if err != nil {
		return err
	}
	m.starts = nil
	if m.st.Active == "failed" {
		m.st.Result, m.st.ExitCode, m.st.Signal = "", 0, ""
		m.set("inactive", "dead", "")
	}
	return nil
}

// States implements driver.Driver.
func (d *Driver) States(ctx context.Context) ([]unit.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.power(ctx); err != nil {
		return nil, err
	}
	return d.board.All(), nil
}

// Watch implements driver.Driver.
func (d *Driver) Watch(ctx context.Context, f func(states []unit.State, first bool)) error {
	d.mu.Lock()
	err := d.power(ctx)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.board.Watch(ctx, func(states []unit.State, first bool) error {
		f(states, first)
		return nil
	})
}

// Logs implements driver.Driver.
func (d *Driver) Logs(ctx context.Context, name unit.Name, o driver.LogOptions, f func(driver.LogLine) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.find(ctx, name)
	if err != nil {
		return err
	}
	lines := slices.Clone(m.lines)
	last := len(lines)
	if o.Lines >= 0 && o.Lines < len(lines) {
		lines = lines[len(lines)-o.Lines:]
	}
	for {
		news := d.news
		d.mu.Unlock()
		for _, l := range lines {
			if err := f(l); err != nil {
				d.mu.Lock()
				return err
			}
		}
		if o.Follow {
			select {
			case <-news:
			case <-ctx.Done():
			}
		}
		d.mu.Lock()
		if !o.Follow || ctx.Err() != nil || d.units[name] != m {
			return nil
		}
		if err := d.power(ctx); err != nil {
			return err
		}
		last = min(last, len(m.lines))
		lines = slices.Clone(m.lines[last:])
		last = len(m.lines)
	}
}

// Stats implements driver.Driver. The figures are made up but plausible.
func (d *Driver) Stats(ctx context.Context) ([]driver.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.power(ctx); err != nil {
		return nil, err
	}
	var out []driver.Stats
	for _, name := range d.names() {
		if m := d.units[name]; m.alive {
			used := time.Since(m.st.Since).Microseconds() / 100 // 1 % of a core
			out = append(out, driver.Stats{Unit: name, MemBytes: 1 << 20, CPUMicros: used, Tasks: 1})
		}
	}
	return out, nil
}

// Fence implements driver.Driver.
func (d *Driver) Fence(ctx context.Context, left time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.power(ctx); err != nil {
		return err
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.fence = time.Now().Add(left)
	if left <= 0 {
		d.fenceOut()
		return nil
	}
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fenceOut()
	})
	return nil
}

// fenceOut ends the exclusive units if the fence has run out. The lock is held.
func (d *Driver) fenceOut() {
	if time.Now().Before(d.fence) {
		return
	}
	for _, name := range d.names() {
		if m := d.units[name]; m.does.Exclusive {
			m.fenced()
		}
	}
}
