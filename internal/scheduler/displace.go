package scheduler

import "fmt"

// relocation is a unit that was put on another machine for one that replaces it.
type relocation struct {
	unit, from int32
	before     item
}

// canKick says whether the units in p.kick, which the last call of able found, can go elsewhere than m. It changes nothing.
func (p *planner) canKick(by, m int32) bool {
	if len(p.kick) == 0 {
		return true
	}
	kick := append([]int32(nil), p.kick...)
	seq := p.seq
	done, ok := p.relocate(kick, m, by)
	p.undo(done)
	p.seq = seq
	return ok
}

// displace makes the units leave m for by; false, and nothing changed, if one of them can go nowhere else.
func (p *planner) displace(kick []int32, m, by int32) bool {
	if len(kick) == 0 {
		return true
	}
	done, ok := p.relocate(kick, m, by)
	if !ok {
		p.undo(done)
	}
	return ok
}

// relocate puts each of the units, with those that MachineOf ties to it, on another machine than m. It never displaces further
// units. An exclusive unit that runs is only taken off m, once it is sure that another machine can take it.
func (p *planner) relocate(kick []int32, m, by int32) (done []relocation, ok bool) {
	why := fmt.Sprintf("%s replaces it on %s", p.items[by].name, p.hosts[m].name)
	for _, v := range kick {
		if p.items[v].home != m {
			continue // it went with another
		}
		group := p.with(v, m)
		for _, g := range group {
			done = append(done, relocation{g, m, p.items[g]})
			p.unassign(g)
			p.items[g].counted, p.items[g].gentle = false, false
			p.setWhy(g, why)
		}
		to := none
		if _, tied := p.anchor(group); !tied {
			to = p.pick(group, m, false)
		}
		if to == none {
			return done, false
		}
		stop := p.exclusiveHere(group)
		for _, g := range group {
			it := &p.items[g]
			p.seq++
			it.seq = p.seq
			p.setReason(g, why+"; "+p.hosts[to].bestReason())
			if stop {
				p.stopped[g] = why + "; it is exclusive, so it is stopped before it starts elsewhere"
				p.setWhy(g, p.stopped[g])
				continue
			}
			p.assign(g, to)
		}
	}
	return done, true
}

// with lists v and the units on m that MachineOf ties to it.
func (p *planner) with(v, m int32) []int32 {
	root, tied := p.root[v]
	if !tied {
		return []int32{v}
	}
	var group []int32
	for _, g := range p.pods[root] {
		if p.items[g].home == m {
			group = append(group, g)
		}
	}
	return p.leadFirst(group)
}

// exclusiveHere says whether one of the units is exclusive and another must stop where it is stored to be.
func (p *planner) exclusiveHere(group []int32) bool {
	exclusive, running := false, false
	for _, g := range group {
		it := &p.items[g]
		exclusive = exclusive || it.u.Exclusive
		running = running || it.from != none && p.hosts[it.from].there
	}
	return exclusive && running
}

// undo puts relocated units back, the last first.
func (p *planner) undo(done []relocation) {
	for k := len(done) - 1; k >= 0; k-- {
		r := done[k]
		if p.items[r.unit].home != none {
			p.unassign(r.unit)
		}
		delete(p.stopped, r.unit)
		p.items[r.unit] = r.before
		p.count(r.unit, r.from)
		p.spreadAdd(r.unit, r.from, 1)
	}
}
