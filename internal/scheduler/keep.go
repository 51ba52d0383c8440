package scheduler

import (
	"cmp"
	"fmt"
	"slices"

	"flota/internal/machine"
	"flota/internal/unit"
)

// readPlaces finds for each unit the stored place that counts, and removes those of nothing.
func (p *planner) readPlaces() {
	last, lastID := none, machine.ID("")
	for k := range p.c.Places {
		place := &p.c.Places[k]
		if place.Machine != lastID || last == none { // places mostly come machine by machine
			lastID, last = place.Machine, none
			if m, ok := p.byID[place.Machine]; ok {
				last = m
			}
		}
		p.readPlace(place, last)
	}
	p.revive()
	p.gather()
	slices.SortFunc(p.plan.Moves, func(a, b Move) int { return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.From, b.From)) })
	slices.SortFunc(p.leaving, func(a, b leftover) int { return cmp.Or(cmp.Compare(a.unit, b.unit), cmp.Compare(a.host, b.host)) })
}

// gather lists for each machine what is there, by unit.
func (p *planner) gather() {
	const spare = 4 // room to count some more units on each machine before its list has to grow
	counts, total := make([]int32, len(p.hosts)), 0
	for i := range p.items {
		if it := &p.items[i]; it.current != nil {
			counts[it.from]++
			total++
		}
	}
	p.here = make([][]stay, len(p.hosts))
	all, on := make([]stay, total), make([]int32, total+spare*len(p.hosts))
	for m, n := range counts {
		p.here[m], all = all[:0:n], all[n:]
		p.hosts[m].on, on = on[:0:n+spare], on[n+spare:]
	}
	for i := range p.items {
		if it := &p.items[i]; it.current != nil {
			p.here[it.from] = append(p.here[it.from], stay{int32(i), it.current})
		}
	}
	for _, g := range p.everywhere {
		p.here[g.host] = append(p.here[g.host], stay{g.unit, g.place})
	}
	if len(p.everywhere) > 0 {
		for _, here := range p.here {
			slices.SortFunc(here, func(a, b stay) int { return cmp.Compare(a.unit, b.unit) })
		}
	}
}

// stay is a unit that is on a machine now.
type stay struct {
	unit  int32
	place *unit.Place
}

// readPlace takes note of one stored place; m is its machine, none if there is no such machine.
func (p *planner) readPlace(place *unit.Place, m int32) {
	i, known := p.find(place.Unit.Name)
	drop := func(format string, args ...any) {
		p.move(Move{Kind: KindRemove, Unit: place.Unit.Name, From: place.Machine, Reason: fmt.Sprintf(format, args...)})
	}
	switch {
	case !known:
		drop("the unit no longer exists")
		return
	case !p.items[i].wanted:
		drop("the unit's target is %s", cmp.Or(p.items[i].u.Target, unit.Inactive))
		return
	case m == none:
		drop("machine %s is no longer in the cluster", place.Machine.Short())
		return
	}
	it := &p.items[i]
	switch {
	case it.global:
		p.everywhere = append(p.everywhere, leftover{i, m, place})
	case place.Leaving:
		p.leaving = append(p.leaving, leftover{i, m, place})
	case it.current == nil:
		it.current, it.from = place, m
		it.stale = place.Leaving || !it.surely(&place.Unit)
	default: // should never be: the store has two; keep one whatever the order
		lose := place
		if p.better(m, place, it.from, it.current) {
			lose, it.current, it.from, it.stale = it.current, place, m, true
		}
		p.twice = append(p.twice, lose)
	}
}

// better says which of two places of one unit is kept: on a machine that is there, then the older, then the lower ID.
func (p *planner) better(am int32, a *unit.Place, bm int32, b *unit.Place) bool {
	if x, y := p.hosts[am].there, p.hosts[bm].there; x != y {
		return x
	}
	if c := a.Since.Compare(b.Since); c != 0 {
		return c < 0
	}
	return am < bm
}

// revive makes a leaving place count again where it is the only one left, and removes second places.
func (p *planner) revive() {
	best := map[int32]leftover{}
	for _, l := range p.leaving {
		it := &p.items[l.unit]
		if it.current != nil || it.global {
			continue
		}
		if b, ok := best[l.unit]; !ok || p.better(l.host, l.place, b.host, b.place) {
			best[l.unit] = l
		}
	}
	p.leaving = slices.DeleteFunc(p.leaving, func(l leftover) bool { return best[l.unit] == l })
	for i, l := range best {
		p.items[i].current, p.items[i].from, p.items[i].stale = l.place, l.host, true
	}
	for _, lose := range p.twice {
		i, _ := p.find(lose.Unit.Name)
		it := &p.items[i]
		p.move(Move{Kind: KindRemove, Unit: it.name, From: lose.Machine,
			Reason: fmt.Sprintf("the unit is also on %s, and may be on one machine only", p.hosts[it.from].name)})
	}
}

// keep decides which units stay where they are without question: the others get home none and a reason.
func (p *planner) keep() {
	for m := range p.hosts {
		h := &p.hosts[m]
		switch {
		case !h.there:
			p.keepGone(int32(m))
		case !h.takes:
			p.keepDrained(int32(m))
		default:
			p.keepLive(int32(m))
		}
	}
	for _, l := range p.leaving {
		if p.hosts[l.host].there {
			p.countOnly(l.unit, l.host)
		}
	}
	p.keepRivals()
	p.keepPeers()
	p.gen = 0
}

func (p *planner) keepGone(m int32) {
	h := &p.hosts[m]
	for _, s := range p.here[m] {
		it := &p.items[s.unit]
		switch {
		case it.global: // it goes on when the machine returns; others have their own
			p.count(s.unit, m)
		case it.bad:
			it.home = m
			p.wait(s.unit, h.goneReason()+"; it cannot be placed: "+it.u.Bad)
		case !h.held.IsZero():
			it.home = m
			p.wait(s.unit, fmt.Sprintf("%s; it is not moved before %s, because %s", h.goneReason(), clock(h.held), p.brake.short()))
		default:
			it.gentle = true
			p.setWhy(s.unit, h.goneReason())
		}
	}
}

func (p *planner) keepDrained(m int32) {
	h := &p.hosts[m]
	for _, s := range p.here[m] {
		it := &p.items[s.unit]
		p.count(s.unit, m)
		switch {
		case it.global:
		case it.bad:
			it.home = m
			p.wait(s.unit, h.leaveReason()+"; it cannot be placed: "+it.u.Bad)
		default:
			it.gentle, it.counted = true, true
			p.setWhy(s.unit, h.leaveReason())
		}
	}
}

// keepLive keeps what still fits on a machine. Where not all can stay, those that replace others, then those whose
// content is as it was, then the older ones have precedence.
func (p *planner) keepLive(m int32) {
	h, here := &p.hosts[m], p.here[m]
	simple := p.harmony(here, h)
	if !simple {
		slices.SortFunc(here, p.precedence)
	}
	for _, s := range here {
		it := &p.items[s.unit]
		v := verdict{}
		if !it.bad {
			if it.picky {
				v = p.static(it.u, h)
			}
			if v.kind == fits && !simple {
				v = p.dynamic(s.unit, m, nil, keeping)
			}
		}
		global := it.global
		switch {
		case v.kind == fits:
			p.count(s.unit, m)
			if !global {
				it.home, it.counted = m, true
			}
		case global:
			p.dropped[drop{s.unit, m}] = true
			p.move(Move{Kind: KindRemove, Unit: it.name, From: h.ID, Reason: p.clause(s.unit, m, v)})
		default:
			p.setWhy(s.unit, p.clause(s.unit, m, v))
		}
	}
	if !simple {
		p.keepReplaced(m)
	}
}

// keepReplaced makes those leave that units with precedence replace and that had precedence themselves.
func (p *planner) keepReplaced(m int32) {
	for _, s := range p.here[m] {
		it := &p.items[s.unit]
		if it.bad || !slices.Contains(p.hosts[m].on, s.unit) {
			continue
		}
		v := p.neighbours(s.unit, m, nil, keeping)
		if v.kind != replacedBy {
			continue
		}
		if it.global {
			p.uncount(s.unit, m)
			p.dropped[drop{s.unit, m}] = true
			p.move(Move{Kind: KindRemove, Unit: it.name, From: p.hosts[m].ID, Reason: p.clause(s.unit, m, v)})
			continue
		}
		p.unfix(s.unit, p.clause(s.unit, m, v))
	}
}

// harmony says whether the units are in nobody's way and have room: then precedence does not matter.
func (p *planner) harmony(here []stay, h *host) bool {
	var sum unit.Needs
	for _, s := range here {
		it := &p.items[s.unit]
		sum.MemBytes += it.needs.MemBytes
		sum.CPUMillis += it.needs.CPUMillis
		if !it.guards {
			continue
		}
		for _, x := range here {
			if x.unit != s.unit && (p.matches(it.u.conflicts, x.unit) || p.matches(it.u.replaces, x.unit)) {
				return false
			}
		}
	}
	return (h.size.MemBytes == 0 || sum.MemBytes <= h.size.MemBytes) && (h.size.CPUMillis == 0 || sum.CPUMillis <= h.size.CPUMillis)
}

func (p *planner) precedence(a, b stay) int {
	x, y := &p.items[a.unit], &p.items[b.unit]
	return cmp.Or(
		-compareBool(len(x.u.replaces) > 0, len(y.u.replaces) > 0),
		-compareBool(same(&a.place.Unit, &x.u.Unit), same(&b.place.Unit, &y.u.Unit)),
		a.place.Since.Compare(b.place.Since),
		cmp.Compare(a.unit, b.unit))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// keepRivals leaves one of each pair of units that replace each other.
func (p *planner) keepRivals() {
	var placed []int32
	for i := range p.items {
		if it := &p.items[i]; it.guards && len(it.u.replaces) > 0 && it.home != none && p.hosts[it.home].takes {
			placed = append(placed, int32(i))
		}
	}
	slices.SortStableFunc(placed, func(a, b int32) int {
		return p.items[a].current.Since.Compare(p.items[b].current.Since)
	})
	for k, i := range placed {
		for _, v := range placed[:k] {
			it := &p.items[i]
			if it.home != none && p.items[v].home != none && rivals(it.u, p.items[v].u) {
				p.unfix(i, fmt.Sprintf("it and %s replace each other", p.items[v].name))
			}
		}
	}
}

// rivals says whether two units replace each other; only one of them is ever placed.
func rivals(a, b *Unit) bool {
	return a != b && match(a.replaces, b.Name) && match(b.replaces, a.Name)
}

// keepPeers unfixes units that are no longer with the units that MachineOf names, and then those that are with them.
func (p *planner) keepPeers() {
	for changed := true; changed; {
		changed = false
		for _, i := range p.peered {
			it := &p.items[i]
			if it.home == none || !p.hosts[it.home].takes {
				continue
			}
			if v := p.peers(i, it.home, nil); v.kind != fits {
				p.unfix(i, p.clause(i, it.home, v))
				changed = true
			}
		}
	}
}

// unfix makes a unit leave the machine it is on.
func (p *planner) unfix(i int32, why string) {
	it := &p.items[i]
	p.uncount(i, it.home)
	it.home, it.counted = none, false
	p.setWhy(i, why)
}
