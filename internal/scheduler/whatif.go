package scheduler

import (
	"cmp"
	"slices"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// Kill gives the cluster without the machines: they are gone, for so long that no brake holds. Unknown IDs are ignored.
func Kill(c Cluster, ids ...machine.ID) Cluster {
	c.Machines = slices.Clone(c.Machines)
	for k := range c.Machines {
		if m := &c.Machines[k]; slices.Contains(ids, m.ID) {
			m.Presence, m.Lost = nil, time.Time{}
		}
	}
	if states := c.States; states != nil {
		c.States = func(id machine.ID, n unit.Name) (unit.State, bool) {
			if slices.Contains(ids, id) {
				return unit.State{}, false
			}
			return states(id, n)
		}
	}
	return c
}

// Drain gives the cluster with the machines drained. Unknown IDs are ignored.
func Drain(c Cluster, ids ...machine.ID) Cluster {
	c.Machines = slices.Clone(c.Machines)
	for k := range c.Machines {
		if m := &c.Machines[k]; slices.Contains(ids, m.ID) {
			m.Drained = true
		}
	}
	return c
}

// Add gives the cluster with the units; they replace those of the same name.
func Add(c Cluster, units ...Unit) Cluster {
	all := slices.DeleteFunc(slices.Clone(c.Units), func(u Unit) bool {
		return slices.ContainsFunc(units, func(x Unit) bool { return x.Name == u.Name })
	})
	c.Units = append(all, units...)
	return c
}

// spot is the key of a place.
type spot struct {
	machine machine.ID
	unit    unit.Name
}

// Apply gives the cluster with the plan's moves carried out. The states stay as they are.
func Apply(c Cluster, p Plan) Cluster {
	places := make(map[spot]unit.Place, len(c.Places)+len(p.Moves))
	for _, place := range c.Places {
		places[spot{place.Machine, place.Unit.Name}] = place
	}
	for _, m := range p.Moves {
		from := spot{m.From, m.Unit}
		switch m.Kind {
		case KindMove, KindRemove, KindFinish:
			delete(places, from)
		case KindLeave:
			old := places[from]
			old.Leaving = true
			places[from] = old
		}
		if m.Put != nil {
			places[spot{m.To, m.Unit}] = *m.Put
		}
	}
	c.Places = make([]unit.Place, 0, len(places))
	for _, place := range places {
		c.Places = append(c.Places, place)
	}
	slices.SortFunc(c.Places, func(a, b unit.Place) int {
		return cmp.Or(cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.Unit.Name, b.Unit.Name))
	})
	return c
}

// Rebalance plans like Make, and also moves units that would be placed better today: instances of a template to zones and
// machines with fewer, then units from full to empty machines as long as the difference is more than a twentieth. Units start
// on the new machine before they stop on the old; exclusive ones, and those that replace others, stay. A unit is moved once
// in a plan, and counts on the machine it leaves until it has left, so a second rebalancing may find a little more to do;
// each gain makes the same sum smaller (see gains), so it comes to an end.
func Rebalance(c Cluster, now time.Time) Plan {
	p := newPlanner(c, now)
	p.balance = true
	return p.run()
}

// rebalance moves units to better machines until none gains.
func (p *planner) rebalance() {
	for moved := true; moved; {
		moved = false
		for i := range p.items {
			if members := p.loose(int32(i)); members != nil && p.improve(members) {
				moved = true
			}
		}
	}
}

// loose gives the units to move together with i, nil if i is not their first or they cannot be moved for balance alone.
func (p *planner) loose(i int32) []int32 {
	it := &p.items[i]
	if !it.movable() || it.home == none || it.home != it.from || !p.hosts[it.home].takes {
		return nil
	}
	members := p.with(i, it.home)
	if members[0] != i {
		return nil
	}
	for _, g := range members {
		x := &p.items[g]
		if x.u.Exclusive || len(x.u.replaces) > 0 || x.home != x.from || x.current.Leaving ||
			slices.ContainsFunc(p.leaving, func(l leftover) bool { return l.unit == g }) {
			return nil
		}
	}
	if _, tied := p.anchor(members); tied {
		return nil
	}
	return members
}

// improve moves the units to the machine that suits them best, if that gains enough.
func (p *planner) improve(members []int32) bool {
	from := p.items[members[0]].home
	lead := p.items[members[0]].u
	with := p.hosts[from].load
	s := p.spreadOf(lead.template)
	for _, g := range members {
		p.hosts[from].dropRank(p.items[g].needs)
		p.spreadAdd(g, from, -1)
	}
	to := p.pick(members, from, false)
	gain := to != none && p.gains(members, s, from, to, with)
	if !gain {
		for _, g := range members {
			p.hosts[from].addRank(p.items[g].needs)
			p.spreadAdd(g, from, 1)
		}
		return false
	}
	for _, g := range members {
		it := &p.items[g]
		it.gentle = true
		p.setWhy(g, "")
		p.setReason(g, "rebalanced from "+p.hosts[from].name+": "+p.why(g, to, nil))
		p.seq++
		it.seq = p.seq
		if !p.leaves(it) {
			p.uncountOnly(g, from)
		}
		p.assign(g, to)
	}
	p.gen++
	return true
}

// gains says whether the units, counted nowhere now, are better on to than on from, whose load was with when they were there.
// Each gain makes the sum over zones, machines, loads smaller, in this order, so rebalancing ends.
func (p *planner) gains(members []int32, s *spread, from, to int32, with int64) bool {
	if s != nil {
		a, b := &p.hosts[from], &p.hosts[to]
		if x, y := s.zone[a.zone], s.zone[b.zone]; x != y {
			return y < x
		}
		if x, y := s.host[from], s.host[to]; x != y {
			return y < x
		}
	}
	h := p.hosts[to]
	for _, g := range members {
		h.addRank(p.items[g].needs)
	}
	return h.load>>20 <= with>>20-with>>20/20-1
}
