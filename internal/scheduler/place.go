package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"flota/internal/unit"
)

// pod is what is placed together: one unit, or those that MachineOf ties together. The first leads: its wishes rank the machines.
type pod struct {
	members []int32
	moved   bool // one of them was placed before
	pinned  bool
	kicks   bool // the lead replaces others, and so goes before them
	mem     int64
	cpu     int64
}

// makeQueue collects what has to be placed. First those that ran and lost their machine, then those that can go to one machine
// only, then the largest: small ones fit around them.
func (p *planner) makeQueue() {
	for i := range p.items {
		it := &p.items[i]
		if !it.movable() {
			if it.bad && it.wanted && it.home == none {
				p.wait(int32(i), "its options cannot be used: "+it.u.Bad)
			}
			continue
		}
		if it.home != none {
			continue
		}
		root, tied := p.root[int32(i)]
		if !tied {
			p.enqueue([]int32{int32(i)})
			continue
		}
		var members []int32
		for _, k := range p.pods[root] {
			if p.items[k].home == none {
				members = append(members, k)
			}
		}
		if members[0] == int32(i) {
			p.enqueue(p.leadFirst(members))
		}
	}
	slices.SortFunc(p.queue, func(a, b pod) int {
		return cmp.Or(-compareBool(a.moved, b.moved), -compareBool(a.pinned, b.pinned), -compareBool(a.kicks, b.kicks),
			cmp.Compare(b.mem, a.mem), cmp.Compare(b.cpu, a.cpu), cmp.Compare(a.members[0], b.members[0]))
	})
}

// leadFirst puts a unit without MachineOf first: the others go where it goes.
func (p *planner) leadFirst(members []int32) []int32 {
	slices.SortStableFunc(members, func(a, b int32) int {
		return compareBool(len(p.items[a].u.Fleet.MachineOf) > 0, len(p.items[b].u.Fleet.MachineOf) > 0)
	})
	return members
}

func (p *planner) enqueue(members []int32) {
	q := pod{members: members}
	for _, i := range members {
		it := &p.items[i]
		q.moved = q.moved || it.from != none
		q.pinned = q.pinned || it.u.Fleet.MachineID != ""
		q.kicks = q.kicks || len(it.u.replaces) > 0
		q.mem += it.needs.MemBytes
		q.cpu += it.needs.CPUMillis
	}
	p.queue = append(p.queue, q)
}

// placeAll places the queue, again and again while that frees room for what waits.
func (p *planner) placeAll() {
	todo := make([][]int32, len(p.queue))
	for k, q := range p.queue {
		todo[k] = q.members
	}
	p.placeGlobals()
	for {
		gen, before := p.gen, p.seq
		var left [][]int32
		for _, members := range todo {
			if rest := p.place(members); len(rest) > 0 {
				left = append(left, rest)
			}
		}
		more := p.placeGlobals()
		if todo = left; len(todo) == 0 || !more && (p.seq == before || p.gen == gen) {
			break
		}
	}
	p.settle(todo)
}

// place places the units of a pod, all on one machine if that can be, and gives those that have to wait.
func (p *planner) place(members []int32) (left []int32) {
	if p.blocked(members) {
		return members
	}
	if p.compatible(members) {
		if m := p.choose(members); m != none {
			return p.commit(members, m)
		}
	}
	if len(members) == 1 || p.allDraining(members) {
		return members
	}
	left = slices.Clone(members)
	for progress := true; progress; { // each on its own, those that others need first
		progress = false
		for _, i := range slices.Clone(left) {
			if !p.blocked([]int32{i}) {
				if m := p.choose([]int32{i}); m != none && len(p.commit([]int32{i}, m)) == 0 {
					left = slices.DeleteFunc(left, func(x int32) bool { return x == i })
					progress = true
				}
			}
		}
	}
	return left
}

// allDraining says whether all units run on machines that are there and only are to be emptied.
func (p *planner) allDraining(members []int32) bool {
	for _, i := range members {
		it := &p.items[i]
		if it.from == none || !it.gentle || !p.hosts[it.from].there {
			return false
		}
	}
	return true
}

// blocked says whether the units cannot be placed now whatever the machine.
func (p *planner) blocked(members []int32) bool {
	for _, i := range members {
		if p.stopped[i] != "" || p.rival(i) != none {
			return true
		}
	}
	return false
}

// rival finds a placed unit that i replaces and that replaces i.
func (p *planner) rival(i int32) int32 {
	u := p.items[i].u
	for _, v := range p.matching(u.replaces) {
		other := &p.items[v]
		if v != i && other.movable() && (other.home != none || other.gentle) && rivals(u, other.u) {
			return v
		}
	}
	return none
}

// matching lists the units whose names match.
func (p *planner) matching(all []glob) []int32 {
	var found []int32
	for k := range all {
		g := all[k : k+1]
		start, _ := slices.BinarySearchFunc(p.items, g[0].prefix, func(it item, s string) int {
			return strings.Compare(string(it.name), s)
		})
		for i := start; i < len(p.items) && strings.HasPrefix(string(p.items[i].name), g[0].prefix); i++ {
			if match(g, p.items[i].name) {
				found = append(found, int32(i))
			}
		}
	}
	return found
}

// choose finds the machine for the units: where one of them is, else where MachineOf says, else the best.
func (p *planner) choose(members []int32) int32 {
	if m := p.stillOn(members); m != none {
		return m
	}
	if m, tied := p.anchor(members); tied {
		if m == none || p.able(members, m, true).kind != fits || !p.canKick(members[0], m) {
			return none
		}
		return m
	}
	return p.pick(members, none, true)
}

// stillOn finds a machine that already has one of the units, or reports an exclusive one of them, and can take all.
func (p *planner) stillOn(members []int32) int32 {
	best := none
	try := func(m int32) {
		if m != none && p.hosts[m].takes && (best == none || m < best) && p.able(members, m, false).kind == fits {
			best = m
		}
	}
	for _, i := range members {
		try(p.items[i].from)
	}
	for _, i := range members {
		if best == none && p.items[i].u.Exclusive {
			if on := p.reporting(p.items[i].name); len(on) == 1 {
				try(on[0])
			}
		}
	}
	return best
}

// anchor finds the machine of a unit that MachineOf names and that is placed already.
func (p *planner) anchor(members []int32) (m int32, tied bool) {
	for _, i := range members {
		for _, peer := range p.items[i].u.Fleet.MachineOf {
			t, ok := p.find(peer)
			switch {
			case !ok:
				return none, true
			case slices.Contains(members, t) || p.items[t].global:
			default:
				return p.items[t].home, true
			}
		}
	}
	return none, false
}

// commit puts the units on m, or stops the exclusive ones first. It gives those that wait for that.
func (p *planner) commit(members []int32, m int32) (left []int32) {
	if p.stopFirst(members, m) {
		return members
	}
	p.able(members, m, true)
	kicked := slices.Clone(p.kick)
	if !p.displace(kicked, m, members[0]) {
		return members
	}
	for _, i := range members {
		it := &p.items[i]
		p.seq++
		it.seq = p.seq
		if it.from != m {
			p.setReason(i, p.why(i, m, kicked))
		}
		p.dropLeaving(i, m)
		if it.counted && p.leaves(it) {
			p.hosts[it.from].dropRank(it.needs)
		} else if it.counted {
			p.uncount(i, it.from)
		}
		p.assign(i, m)
	}
	return nil
}

// dropLeaving forgets that i is leaving m, because it comes back: its new place overwrites the leaving one.
func (p *planner) dropLeaving(i, m int32) {
	p.leaving = slices.DeleteFunc(p.leaving, func(l leftover) bool {
		if l.unit != i || l.host != m {
			return false
		}
		p.uncountOnly(i, m)
		return true
	})
}

// stopFirst says whether units of a pod with an exclusive one have to stop elsewhere before they can start on m, and if so makes
// them stop. An exclusive unit is started only when no machine that is there has a place or reports a state of it: states are
// reported before the start, and a machine that is not there has stopped its exclusive units.
func (p *planner) stopFirst(members []int32, m int32) bool {
	k := slices.IndexFunc(members, func(i int32) bool { return p.items[i].u.Exclusive })
	if k < 0 {
		return false
	}
	name := p.items[members[k]].name
	for _, i := range members {
		if it := &p.items[i]; it.from != none && it.from != m && p.hosts[it.from].there {
			h := &p.hosts[it.from]
			if it.gentle && !h.Drained {
				p.stopAll(members, fmt.Sprintf("%s; %s is exclusive, so it is started on %s only when %s has stopped it",
					h.leaveReason(), name, p.hosts[m].name, h.name), false)
			} else {
				p.stopAll(members, fmt.Sprintf("%s; %s is exclusive, so it is stopped on %s before it starts on %s",
					p.whyOf(i), name, h.name, p.hosts[m].name), true)
			}
			return true
		}
	}
	for _, i := range members {
		if it := &p.items[i]; it.u.Exclusive && it.from != m {
			for _, on := range p.reporting(it.name) {
				if on != m {
					p.stopAll(members, fmt.Sprintf("%s is exclusive, and %s has not yet stopped it", it.name, p.hosts[on].name), false)
					return true
				}
			}
			for _, l := range p.leaving {
				if l.unit == i && l.host != m && p.hosts[l.host].there {
					p.stopAll(members, fmt.Sprintf("%s is exclusive, and is still leaving %s", it.name, p.hosts[l.host].name), false)
					return true
				}
			}
		}
	}
	return false
}

// stopAll makes the units wait, and with remove takes them off the machines that are there.
func (p *planner) stopAll(members []int32, why string, remove bool) {
	for _, i := range members {
		it := &p.items[i]
		p.stopped[i] = why
		if !remove || it.from == none || !p.hosts[it.from].there {
			continue
		}
		if it.counted {
			p.uncount(i, it.from)
			it.counted = false
		}
		it.gentle = false
		p.setWhy(i, why)
	}
}

// settle decides about those that no machine takes: they stay where they are if they may, else they are removed.
func (p *planner) settle(todo [][]int32) {
	for _, members := range todo {
		for _, i := range members {
			if it := &p.items[i]; it.from != none && it.gentle {
				it.home = it.from
			}
		}
		for changed := true; changed; {
			changed = false
			for _, i := range members {
				it := &p.items[i]
				if it.home != none && len(it.u.Fleet.MachineOf) > 0 {
					if v := p.peers(i, it.home, nil); v.kind != fits {
						p.setWhy(i, p.clause(i, it.home, v))
						it.home, changed = none, true
					}
				}
			}
		}
	}
	for _, members := range todo {
		for _, i := range members {
			p.wait(i, p.waitReason(i, members))
			delete(p.stopped, i)
		}
	}
	for i, why := range p.stopped { // displaced ones, which were not in the queue
		p.wait(i, why)
	}
}

// why says why a unit is put on m.
func (p *planner) why(i, m int32, kicked []int32) string {
	it, h := &p.items[i], &p.hosts[m]
	u := it.u
	reason := ""
	switch {
	case len(u.Fleet.MachineOf) > 0:
		reason = h.name + " has " + joinNames(u.Fleet.MachineOf)
	case u.Fleet.MachineID != "":
		reason = "it asks for machine " + h.name
	case len(kicked) > 0 && len(u.replaces) > 0:
		reason = fmt.Sprintf("it takes %s from %s", h.name, p.items[kicked[0]].name)
	case u.template != "":
		reason = fmt.Sprintf("instances of %s are spread, and %s suits best", u.template, h.name)
	default:
		reason = h.bestReason()
	}
	if why := p.whyOf(i); why != "" && it.from != none {
		return why + "; " + reason
	}
	return reason
}

// bestReason is the commonest reason, made once for each machine.
func (h *host) bestReason() string {
	if h.best == "" {
		h.best = h.name + " is the least loaded machine that can run it"
	}
	return h.best
}

func joinNames(names []unit.Name) string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	return strings.Join(all, ", ")
}
