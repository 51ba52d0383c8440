package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"flota/internal/api/fleet"
	"flota/internal/machine"
	"flota/internal/unit"
)

// fleetBackend is the cluster as room fleet wants it.
type fleetBackend struct{ s *Server }

// fleetUnit is one unit for fleet.
func (c *cluster) fleetUnit(name unit.Name) fleet.Unit {
	out := fleet.Unit{Unit: c.units[name], Global: isGlobal(c.units[name])}
	out.Place, out.State = c.place(name)
	out.States = c.states[name]
	return out
}

// Units implements fleet.Backend.
func (b fleetBackend) Units(ctx context.Context) ([]fleet.Unit, error) {
	c, err := b.s.whole(ctx)
	if err != nil {
		return nil, err
	}
	var out []fleet.Unit
	for _, name := range c.unitNames() {
		out = append(out, c.fleetUnit(name))
	}
	return out, nil
}

// Unit implements fleet.Backend.
func (b fleetBackend) Unit(ctx context.Context, name unit.Name) (fleet.Unit, error) {
	c, err := b.s.one(ctx, name)
	if err != nil {
		return fleet.Unit{}, err
	}
	if _, ok := c.units[name]; !ok {
		return fleet.Unit{}, noUnit(name)
	}
	return c.fleetUnit(name), nil
}

// States implements fleet.Backend.
func (b fleetBackend) States(ctx context.Context) ([]unit.State, error) {
	c, err := b.s.whole(ctx)
	if err != nil {
		return nil, err
	}
	var out []unit.State
	for _, name := range slices.Sorted(maps.Keys(c.states)) {
		out = append(out, c.states[name]...)
	}
	return out, nil
}

// Machines implements fleet.Backend: those that are there, as in fleet.
func (b fleetBackend) Machines(ctx context.Context) ([]fleet.Machine, error) {
	c, err := b.s.machinesOnly(ctx)
	if err != nil {
		return nil, err
	}
	var out []fleet.Machine
	for _, id := range slices.Sorted(maps.Keys(c.alive)) {
		p := c.alive[id]
		out = append(out, fleet.Machine{ID: id, Addr: p.Addr, Metadata: machine.Labels(p, c.machines[id])})
	}
	return out, nil
}

// Put implements fleet.Backend.
func (b fleetBackend) Put(ctx context.Context, name unit.Name, opts []unit.Option, target unit.Target) error {
	file := unit.File{Options: opts}
	_, _, err := modify(ctx, b.s, b.s.Store.Units, string(name), func(u unit.Unit, exists bool) (unit.Unit, act, error) {
		now := time.Now().UTC()
		was := u.Target
		u, do, err := replace(u, exists, name, file, true, now)
		if err != nil || do == keep && was == target {
			return u, keep, err
		}
		if u.Target != target || !exists {
			u.Target, u.Changed = target, now
			if target == unit.Launched {
				u.Run++
			}
		}
		return u, put, nil
	})
	return err
}

// SetTarget implements fleet.Backend.
func (b fleetBackend) SetTarget(ctx context.Context, name unit.Name, target unit.Target) error {
	return b.s.target(ctx, name, SetTarget{Target: target})
}

// Destroy implements fleet.Backend.
func (b fleetBackend) Destroy(ctx context.Context, name unit.Name) error {
	return b.s.destroy(ctx, name)
}

// Label implements fleet.Backend.
func (b fleetBackend) Label(ctx context.Context, id machine.ID, set map[string]*string) error {
	return b.s.label(ctx, id, set)
}
