package scheduler

import (
	"slices"
	"strings"

	"flota/internal/unit"
)

// refusal is why a unit cannot be on a machine.
type refusal int

const (
	fits       refusal = iota
	gone               // the machine is not there
	drained            // it is drained
	closing            // it is shutting down
	witness            // it only votes
	otherID            // MachineID names another
	noLabel            // it lacks a label
	noPeer             // a unit of MachineOf is not there
	inConflict         // it has a unit in conflict
	replacedBy         // it has a unit that replaces this one
	cannotKick         // it has a unit that is to be replaced and can go nowhere else
	noMemory
	noCPU
)

// verdict is the answer whether a unit can be on a machine. other is the unit in the way; label the key of the label.
type verdict struct {
	kind  refusal
	other int32
	peer  unit.Name
	label string
	free  int64
}

// static checks what does not depend on other units: MachineID and metadata.
func (p *planner) static(u *Unit, h *host) verdict {
	if u.wants == "" {
		return verdict{}
	}
	if id := u.Fleet.MachineID; id != "" && !h.is(id) {
		return verdict{kind: otherID}
	}
	for k := range u.metadata {
		w := &u.metadata[k]
		if have, ok := h.labels[w.key]; !ok || !slices.Contains(w.values, have) {
			return verdict{kind: noLabel, label: w.key}
		}
	}
	return verdict{}
}

// is says whether id names the machine: its whole ID, its first eight digits, or its name.
func (h *host) is(id string) bool { return id == string(h.ID) || id == h.ID.Short() || id == h.name }

// open checks that the machine takes new units.
func (h *host) open() verdict {
	switch {
	case !h.there:
		return verdict{kind: gone}
	case h.Witness:
		return verdict{kind: witness}
	case h.Drained:
		return verdict{kind: drained}
	case h.Presence.Leaving:
		return verdict{kind: closing}
	}
	return verdict{}
}

// peers checks that every unit of MachineOf is on m, or is placed together with i.
func (p *planner) peers(i, m int32, together []int32) verdict {
	for _, peer := range p.items[i].u.Fleet.MachineOf {
		t, ok := p.find(peer)
		if t == i && ok || ok && slices.Contains(together, t) {
			continue
		}
		if !ok || !p.isOn(t, m) {
			return verdict{kind: noPeer, peer: peer}
		}
	}
	return verdict{}
}

// isOn says whether a unit will be on m.
func (p *planner) isOn(t, m int32) bool {
	it := &p.items[t]
	if it.global {
		return slices.Contains(p.hosts[m].on, t)
	}
	return it.home == m
}

// kicking says what to do about units that are to be replaced.
type kicking int

const (
	refusing   kicking = iota // they are in the way
	collecting                // they have to leave: collect them in p.kick
	keeping                   // they are looked at later, and have to leave then
)

// dynamic checks the units on m: conflicts, replacements, room. Units of together are not in each other's way and need room
// together.
func (p *planner) dynamic(i, m int32, together []int32, k kicking) verdict {
	if v := p.neighbours(i, m, together, k); v.kind != fits {
		return v
	}
	if len(together) > 1 {
		return verdict{}
	}
	return p.room([]int32{i}, m)
}

func (p *planner) neighbours(i, m int32, together []int32, k kicking) verdict {
	h, u := &p.hosts[m], p.items[i].u
	for _, x := range h.guards {
		if x == i || slices.Contains(together, x) {
			continue
		}
		other := p.items[x].u
		if p.matches(other.conflicts, i) && !p.matches(u.replaces, x) {
			return verdict{kind: inConflict, other: x}
		}
		if p.matches(other.replaces, i) && !p.matches(u.replaces, x) {
			return verdict{kind: replacedBy, other: x}
		}
	}
	if len(u.conflicts) == 0 && len(u.replaces) == 0 {
		return verdict{}
	}
	for _, x := range h.on {
		if x == i || slices.Contains(together, x) {
			continue
		}
		if p.matches(u.conflicts, x) {
			return verdict{kind: inConflict, other: x}
		}
		if !p.matches(u.replaces, x) {
			continue
		}
		switch {
		case k == keeping:
		case k == refusing || p.tied(i, x) || !p.items[x].movable() || p.items[x].home != m:
			return verdict{kind: cannotKick, other: x}
		case !slices.Contains(p.kick, x):
			p.kick = append(p.kick, x)
		}
	}
	return verdict{}
}

// room checks that the units fit on m together. What they and p.kick use there already is free.
func (p *planner) room(together []int32, m int32) verdict {
	h := &p.hosts[m]
	var needs unit.Needs
	used := h.used
	free := func(x int32) {
		used.MemBytes -= p.items[x].needs.MemBytes
		used.CPUMillis -= p.items[x].needs.CPUMillis
	}
	for _, i := range together {
		needs.MemBytes += p.items[i].needs.MemBytes
		needs.CPUMillis += p.items[i].needs.CPUMillis
		if p.onAlready(i, m) {
			free(i)
		}
	}
	for _, x := range p.kick {
		free(x)
	}
	if h.size.MemBytes > 0 && needs.MemBytes > 0 && used.MemBytes+needs.MemBytes > h.size.MemBytes {
		return verdict{kind: noMemory, free: max(0, h.size.MemBytes-used.MemBytes)}
	}
	if h.size.CPUMillis > 0 && needs.CPUMillis > 0 && used.CPUMillis+needs.CPUMillis > h.size.CPUMillis {
		return verdict{kind: noCPU, free: max(0, h.size.CPUMillis-used.CPUMillis)}
	}
	return verdict{}
}

// onAlready says whether i is counted on m now.
func (p *planner) onAlready(i, m int32) bool {
	it := &p.items[i]
	return it.counted && it.from == m || len(p.leaving) > 0 && slices.Contains(p.hosts[m].on, i)
}

// able checks that the units of together can all be put on m, which must take new units. p.kick are then the units that have
// to leave for them.
func (p *planner) able(together []int32, m int32, kick bool) verdict {
	p.kick = p.kick[:0]
	k := refusing
	if kick {
		k = collecting
	}
	h := &p.hosts[m]
	if v := h.open(); v.kind != fits {
		return v
	}
	for _, i := range together {
		u := p.items[i].u
		if v := p.static(u, h); v.kind != fits {
			return v
		}
		if len(u.Fleet.MachineOf) > 0 {
			if v := p.peers(i, m, together); v.kind != fits {
				return v
			}
		}
		if v := p.dynamic(i, m, together, k); v.kind != fits {
			return v
		}
	}
	if len(together) == 1 {
		return verdict{}
	}
	return p.room(together, m)
}

// compatible says whether the units can be on one machine at all.
func (p *planner) compatible(members []int32) bool {
	for _, a := range members {
		x := p.items[a].u
		if len(x.conflicts) == 0 && len(x.replaces) == 0 {
			continue
		}
		for _, b := range members {
			if a != b && (match(x.conflicts, p.items[b].name) || match(x.replaces, p.items[b].name)) {
				return false
			}
		}
	}
	return true
}

// labelWish joins the alternatives of a label for a reason.
func labelWish(key string, values []string) string {
	return key + "=" + strings.Join(values, " or "+key+"=")
}

// tied says whether MachineOf ties two units together, over any number of steps.
func (p *planner) tied(a, b int32) bool {
	x, ok := p.root[a]
	y, also := p.root[b]
	return ok && also && x == y
}

// matches says whether one of the globs matches the unit's name.
func (p *planner) matches(all []glob, x int32) bool {
	it := &p.items[x]
	for k := range all {
		if it.head&all[k].mask == all[k].first && match(all[k:k+1], it.name) {
			return true
		}
	}
	return false
}
