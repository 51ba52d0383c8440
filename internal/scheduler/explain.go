package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"flota/internal/unit"
)

// waitReason says in an operator's words why a unit is not where it should be.
func (p *planner) waitReason(i int32, members []int32) string {
	if why := p.stopped[i]; why != "" {
		return why
	}
	reason := p.explain(i, members)
	if why := p.whyOf(i); why != "" {
		return why + "; " + reason
	}
	return reason
}

// explain says why a unit can be put on no machine.
func (p *planner) explain(i int32, members []int32) string {
	u := p.items[i].u
	if v := p.rival(i); v != none {
		return fmt.Sprintf("it and %s replace each other, and %s was first", p.items[v].name, p.items[v].name)
	}
	if len(p.hosts) == 0 {
		return "there are no machines"
	}
	for _, peer := range u.Fleet.MachineOf {
		if why, all := p.explainPeer(i, peer, members); all {
			return why
		}
	}
	if id := u.Fleet.MachineID; id != "" {
		for m := range p.hosts {
			if h := &p.hosts[m]; h.is(id) {
				return fmt.Sprintf("it asks for machine %s; %s", h.name, p.clauseOr(i, int32(m), members))
			}
		}
		return fmt.Sprintf("no machine has the ID %s", id)
	}
	key, plain := p.spec([]int32{i})
	if plain = plain && len(members) == 1 && !match(p.patterns, u.Name); plain {
		if text, ok := p.said[key]; ok {
			return text
		}
	}
	text := p.groups(i, members)
	if plain {
		p.said[key] = text
	}
	return text
}

// explainPeer says what is wrong with a unit that MachineOf names; all is true if that is the whole reason.
func (p *planner) explainPeer(i int32, peer unit.Name, members []int32) (why string, all bool) {
	t, ok := p.find(peer)
	switch {
	case !ok:
		return fmt.Sprintf("it must be on the machine of %s, which does not exist", peer), true
	case t == i || p.items[t].global:
		return "", false
	case !p.items[t].wanted:
		return fmt.Sprintf("it must be on the machine of %s, which is %s", peer, cmp.Or(p.items[t].u.Target, unit.Inactive)), true
	case p.items[t].home == none:
		return fmt.Sprintf("it must be on the machine of %s, which is on no machine", peer), true
	case p.items[i].home != none && p.items[i].home == p.items[t].home:
		return "", false // both wait to leave
	}
	m := p.items[t].home
	return fmt.Sprintf("it must be on %s with %s; %s", p.hosts[m].name, peer, p.clauseOr(i, m, members)), true
}

// clauseOr is clause for a machine that the unit was refused; it says so if only its company was refused there.
func (p *planner) clauseOr(i, m int32, members []int32) string {
	v := p.ableOr(i, m)
	if v.kind == fits {
		return p.hosts[m].name + " cannot take it together with " + p.company(i, members)
	}
	return p.clause(i, m, v)
}

// ableOr asks whether i alone can be on m, displacing what it replaces if that can be.
func (p *planner) ableOr(i, m int32) verdict {
	v := p.able([]int32{i}, m, true)
	if v.kind == fits && len(p.kick) > 0 {
		if other := p.kick[0]; !p.canKick(i, m) {
			return verdict{kind: cannotKick, other: other}
		}
	}
	return v
}

func (p *planner) company(i int32, members []int32) string {
	var all []unit.Name
	for _, x := range members {
		if x != i {
			all = append(all, p.items[x].name)
		}
	}
	if len(all) == 0 {
		return "what it has"
	}
	return joinNames(all)
}

// explainGlobals says for each Global unit why it is not on machines that have what it asks for, or on none at all.
func (p *planner) explainGlobals() {
	for _, i := range p.globals {
		placed, refused := false, false
		for m := range p.hosts {
			h := &p.hosts[m]
			switch {
			case slices.Contains(h.on, i):
				placed = true
			case h.takes && p.static(p.items[i].u, h).kind == fits:
				refused = true
			}
		}
		if !placed || refused {
			p.wait(i, p.explain(i, []int32{i}))
		}
	}
}

// refusals is the machines that refuse for the same reason.
type refusals struct {
	v     verdict
	hosts []int32
}

// groups says how many machines refuse the unit for which reason: "2 of 3 machines lack label disk=ssd, 1 is drained (m2)".
func (p *planner) groups(i int32, members []int32) string {
	var all []refusals
	for m := range p.hosts {
		if p.items[i].global && slices.Contains(p.hosts[m].on, i) {
			continue
		}
		v := p.ableOr(i, int32(m))
		found := false
		for k := range all {
			g := &all[k]
			if g.v.kind == v.kind && g.v.label == v.label && g.v.peer == v.peer {
				g.hosts, g.v.free, found = append(g.hosts, int32(m)), max(g.v.free, v.free), true
				break
			}
		}
		if !found {
			all = append(all, refusals{v, []int32{int32(m)}})
		}
	}
	var parts []string
	for kind := fits; kind <= noCPU; kind++ {
		for _, g := range all {
			if g.v.kind == kind {
				parts = append(parts, p.group(i, g, len(parts) == 0, members))
			}
		}
	}
	return strings.Join(parts, ", ")
}

func (p *planner) group(i int32, g refusals, first bool, members []int32) string {
	count := fmt.Sprint(len(g.hosts))
	if first {
		noun := "machines"
		if len(p.hosts) == 1 {
			noun = "machine"
		}
		count = fmt.Sprintf("%d of %d %s", len(g.hosts), len(p.hosts), noun)
	}
	text := count + " " + p.predicate(i, g.v, len(g.hosts) == 1, members)
	switch g.v.kind {
	case noLabel, noMemory, noCPU:
	default:
		text += p.named(g.hosts)
	}
	return text
}

// named lists some machine names in parentheses.
func (p *planner) named(hosts []int32) string {
	const most = 3
	var names []string
	for _, m := range hosts[:min(most, len(hosts))] {
		names = append(names, p.hosts[m].name)
	}
	if len(hosts) > most {
		names = append(names, fmt.Sprintf("and %d more", len(hosts)-most))
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// clause is the refusal of one machine: "m1 is drained".
func (p *planner) clause(i, m int32, v verdict) string {
	if v.kind == gone {
		return p.hosts[m].goneReason()
	}
	return p.hosts[m].name + " " + p.predicate(i, v, true, nil)
}

// predicate is what follows the machine or machines in a refusal.
func (p *planner) predicate(i int32, v verdict, one bool, members []int32) string {
	u := p.items[i].u
	be, have := "are", "have"
	if one {
		be, have = "is", "has"
	}
	switch v.kind {
	case gone:
		return be + " gone"
	case drained:
		return be + " drained"
	case witness:
		if one {
			return "is a witness, which runs no units"
		}
		return "are witnesses, which run no units"
	case closing:
		return be + " shutting down"
	case otherID:
		return fmt.Sprintf("%s not machine %s", be, u.Fleet.MachineID)
	case noLabel:
		lack := "lack"
		if one {
			lack = "lacks"
		}
		return lack + " label " + labelWish(v.label, u.Fleet.Metadata[v.label])
	case noPeer:
		if t, ok := p.find(v.peer); ok && p.items[t].home != none {
			return fmt.Sprintf("%s not the machine of %s, which is on %s", be, v.peer, p.hosts[p.items[t].home].name)
		}
		return fmt.Sprintf("%s not the machine of %s", be, v.peer)
	case inConflict:
		return fmt.Sprintf("%s %s, which it conflicts with", have, p.others(v.other, one))
	case replacedBy:
		return fmt.Sprintf("%s %s, which replaces it", have, p.others(v.other, one))
	case cannotKick:
		return fmt.Sprintf("%s %s, which it replaces and which can go nowhere else", have, p.others(v.other, one))
	case noMemory:
		return fmt.Sprintf("%s out of memory (needs %s, %s free)", be, mebi(u.Needs.MemBytes), mebi(v.free))
	case noCPU:
		return fmt.Sprintf("%s out of CPU (needs %s, %s free)", be, cores(u.Needs.CPUMillis), cores(v.free))
	}
	return "cannot take it together with " + p.company(i, members)
}

// others names the unit in the way; of several machines it is one example.
func (p *planner) others(x int32, one bool) string {
	if one {
		return string(p.items[x].name)
	}
	return "units such as " + string(p.items[x].name)
}

// mebi prints bytes as people write them.
func mebi(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 || n == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// cores prints thousandths of a core.
func cores(n int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", float64(n)/1000), "0"), ".") + " cores"
}
