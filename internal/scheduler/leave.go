package scheduler

import (
	"fmt"
	"slices"

	"flota/internal/unit"
)

// finish removes leaving places whose unit has arrived on its new machine, or will not.
func (p *planner) finish() {
	p.leaving = slices.DeleteFunc(p.leaving, func(l leftover) bool {
		why := p.arrived(l)
		if why == "" {
			return false
		}
		p.move(Move{Kind: KindFinish, Unit: p.items[l.unit].name, From: p.hosts[l.host].ID, Reason: why})
		if p.hosts[l.host].there {
			p.uncountOnly(l.unit, l.host)
		}
		return true
	})
}

// arrived says why a leaving place is no longer needed; "" while it is.
func (p *planner) arrived(l leftover) string {
	it := &p.items[l.unit]
	if it.current == nil || !p.hosts[it.from].there {
		return "" // its new machine is gone as well: it goes on here until it has another
	}
	if !p.hosts[l.host].there {
		return p.hosts[l.host].goneReason()
	}
	name := p.hosts[it.from].name
	if it.u.Target != unit.Launched {
		return "the unit is not to be started on " + name
	}
	if it.u.Exclusive {
		return "the unit is exclusive and placed on " + name
	}
	deadline := it.current.Since.Add(LeaveFor)
	st, ok := p.state(it.from, it.name)
	switch {
	case ok && st.Active == "active":
		return "the unit is active on " + name
	case ok && st.Load != "" && st.Load != "loaded":
		return "the unit cannot be loaded on " + name
	case ok && st.Active == "failed":
		return "the unit has failed on " + name
	case ok && st.Active == "inactive" && st.Run != 0 && st.Run == it.u.Run:
		return "the unit has run on " + name
	case !deadline.After(p.now):
		return fmt.Sprintf("the unit is not active on %s after %s, and is waited for no longer", name, LeaveFor)
	}
	p.again(deadline)
	return ""
}

// state is what a machine reports of a unit.
func (p *planner) state(m int32, n unit.Name) (unit.State, bool) {
	if p.c.States == nil {
		return unit.State{}, false
	}
	return p.c.States(p.hosts[m].ID, n)
}

// emit turns what was decided into moves.
func (p *planner) emit() {
	var moved []int32
	for i := range p.items {
		it := &p.items[i]
		switch {
		case it.from != none && it.home == none:
			p.move(Move{Kind: KindRemove, Unit: it.name, From: p.hosts[it.from].ID, Reason: p.whyOf(int32(i))})
		case it.home != none && it.home != it.from:
			moved = append(moved, int32(i))
		}
	}
	slices.SortFunc(moved, func(a, b int32) int { return int(p.items[a].seq) - int(p.items[b].seq) })
	for _, i := range moved {
		p.emitMove(i)
	}
	for i := range p.items {
		it := &p.items[i]
		if it.stale && it.home != none && it.home == it.from {
			p.emitUpdate(it, it.current)
		}
	}
	p.emitGlobals()
}

func (p *planner) emitMove(i int32) {
	it, reason := &p.items[i], p.notes[p.items[i].note].reason
	to := p.hosts[it.home].ID
	m := Move{Kind: KindPlace, Unit: it.name, To: to, Reason: reason,
		Put: &unit.Place{Machine: to, Unit: it.u.Unit, Since: p.now, Reason: reason}}
	if it.from != none {
		from := &p.hosts[it.from]
		m.From, m.Kind, m.IfGone = from.ID, KindMove, !from.there
		if p.leaves(it) {
			m.Kind = KindLeave
		}
	}
	p.move(m)
}

// leaves says whether the unit, moved off its machine, goes on there until it is active on the new one. One that does not run
// there has nothing to go on with.
func (p *planner) leaves(it *item) bool {
	if !it.gentle || !p.hosts[it.from].there || it.u.Target != unit.Launched || it.u.Exclusive {
		return false
	}
	st, ok := p.state(it.from, it.name)
	return !ok || st.Active != "inactive" && st.Active != "failed"
}

// emitUpdate puts a place again when the unit has changed.
func (p *planner) emitUpdate(it *item, place *unit.Place) {
	why := changed(&place.Unit, &it.u.Unit)
	if place.Leaving {
		why = "it stays after all"
	}
	if why == "" {
		return
	}
	put := *place
	put.Unit, put.Leaving = it.u.Unit, false
	p.move(Move{Kind: KindUpdate, Unit: it.name, To: place.Machine, Put: &put, Reason: why})
}

// changed says what of the unit differs from the copy in its place; "" for nothing.
func changed(have, want *unit.Unit) string {
	switch {
	case same(have, want):
		return ""
	case !slices.Equal(have.Options, want.Options):
		return "the unit's content changed"
	case have.Target != want.Target:
		return fmt.Sprintf("the unit's target is now %s", want.Target)
	}
	return fmt.Sprintf("a start was asked for (run %d)", want.Run)
}

func (p *planner) emitGlobals() {
	for m := range p.here {
		for _, s := range p.here[m] {
			if it := &p.items[s.unit]; it.global && !p.dropped[drop{s.unit, int32(m)}] {
				p.emitUpdate(it, s.place)
			}
		}
	}
}

// drop names a place of a Global unit.
type drop struct{ unit, host int32 }

// placeGlobals puts every Global unit on every machine that takes it, and off drained machines that have nothing else.
// It says whether it placed something.
func (p *planner) placeGlobals() bool {
	placed := false
	for m := range p.hosts {
		if h := &p.hosts[m]; h.there && h.Drained {
			p.clearGlobals(int32(m))
		}
	}
	for _, i := range p.globals {
		it := &p.items[i]
		for m := range p.hosts {
			h := &p.hosts[m]
			if !h.takes || slices.Contains(h.on, i) || p.dropped[drop{i, int32(m)}] {
				continue
			}
			if p.able([]int32{i}, int32(m), false).kind != fits {
				continue
			}
			placed = true
			p.count(i, int32(m))
			const reason = "it is global: it runs on every machine that fits"
			p.move(Move{Kind: KindPlace, Unit: it.name, To: h.ID, Reason: reason,
				Put: &unit.Place{Machine: h.ID, Unit: it.u.Unit, Since: p.now, Reason: reason}})
		}
	}
	return placed
}

// clearGlobals removes Global units from a drained machine once they are alone.
func (p *planner) clearGlobals(m int32) {
	h := &p.hosts[m]
	if slices.ContainsFunc(h.on, func(i int32) bool { return !p.items[i].global }) {
		return
	}
	for _, i := range slices.Clone(h.on) {
		p.uncount(i, m)
		p.dropped[drop{i, m}] = true
		p.move(Move{Kind: KindRemove, Unit: p.items[i].name, From: h.ID, Reason: h.leaveReason()})
	}
}

// reporting lists the machines that report a state of the unit: it may run there, or be about to.
func (p *planner) reporting(n unit.Name) []int32 {
	var all []int32
	if p.c.States == nil {
		return nil
	}
	for m := range p.hosts {
		if p.hosts[m].there {
			if _, ok := p.c.States(p.hosts[m].ID, n); ok {
				all = append(all, int32(m))
			}
		}
	}
	return all
}

// goneReason says that the machine is not there.
func (h *host) goneReason() string {
	if h.Lost.IsZero() {
		return h.name + " is gone"
	}
	return fmt.Sprintf("%s is gone (no sign of life since %s)", h.name, clock(h.Lost))
}

// leaveReason says why a machine that is there takes no units.
func (h *host) leaveReason() string {
	switch {
	case h.Witness:
		return h.name + " is a witness, which runs no units"
	case h.Drained:
		return h.name + " is drained"
	}
	return h.name + " is shutting down"
}
