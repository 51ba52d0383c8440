package scheduler

import (
	"cmp"
	"slices"

	"flota/internal/unit"
)

// class is the machines that take new units and have what some units ask for in MachineID and MachineMetadata. Its heaps
// give the least loaded first. They hold for one p.gen: as long as machines only get fuller.
type class struct {
	hosts []int32
	gen   int
	all   *heap
	zones map[int32]*heap // only those that have a machine of the class
	order []int32         // the zones
}

// spread counts the instances of one template.
type spread struct {
	zone  []int32         // by zone
	host  map[int32]int32 // by machine
	floor map[*heap]int32 // no machine of the heap has fewer
}

// few is the number of machines up to which looking at each is as quick as a heap.
const few = 8

// fewClasses is the number of classes up to which looking at each machine for each class is quicker than an index of all labels:
// about a third of a millisecond against ten, for 5,000 machines.
const fewClasses = 24

// pick finds the machine that suits the units best, but not avoid; none if nothing does. With kick they may displace units.
//
// The rank: fewest instances of the lead's template in the zone, then on the machine; then the least loaded; then the lowest ID.
// A unit that replaces others prefers to take a machine from one of them.
func (p *planner) pick(members []int32, avoid int32, kick bool) int32 {
	lead := p.items[members[0]].u
	key, plain := p.spec(members)
	if plain && avoid == none && len(p.hopeless) > 0 {
		if p.gen != p.hopelessGen {
			clear(p.hopeless)
			p.hopelessGen = p.gen
		}
		if p.hopeless[key] && !match(p.patterns, lead.Name) {
			return none
		}
	}
	c, s := p.classOf(lead), p.spreadOf(lead.template)
	kick = kick && p.replaces(members)
	var m int32
	if p.naive || kick || len(c.hosts) <= few {
		m = p.scan(c.hosts, members, avoid, s, kick)
	} else {
		m = p.quick(c, members, avoid, s)
	}
	if m == none && plain && avoid == none && !p.naive && !match(p.patterns, lead.Name) {
		if p.gen != p.hopelessGen {
			clear(p.hopeless)
			p.hopelessGen = p.gen
		}
		p.hopeless[key] = true
	}
	return m
}

func (p *planner) replaces(members []int32) bool {
	return slices.ContainsFunc(members, func(i int32) bool { return len(p.items[i].u.replaces) > 0 })
}

// spec is what decides whether a unit fits anywhere, if no other unit matters.
type spec struct {
	wants string
	needs unit.Needs
}

// spec gives the unit's spec; plain is false if it names other units. Others may name it all the same: see patterns.
func (p *planner) spec(members []int32) (key spec, plain bool) {
	u := p.items[members[0]].u
	plain = len(members) == 1 && len(u.conflicts) == 0 && len(u.replaces) == 0 && len(u.Fleet.MachineOf) == 0
	return spec{u.wants, u.Needs}, plain
}

// choice is a machine with its rank.
type choice struct {
	host        int32
	takes       bool // it is taken from a unit that is replaced
	zone, count int32
	load        int64
}

func (a choice) compare(b choice) int {
	return cmp.Or(-compareBool(a.takes, b.takes), cmp.Compare(a.zone, b.zone), cmp.Compare(a.count, b.count),
		cmp.Compare(a.load, b.load), cmp.Compare(a.host, b.host))
}

// scan looks at every machine.
func (p *planner) scan(hosts []int32, members []int32, avoid int32, s *spread, kick bool) int32 {
	var all []choice
	best := choice{host: none}
	for _, m := range hosts {
		if m == avoid || p.able(members, m, kick).kind != fits {
			continue
		}
		c := choice{host: m, load: p.hosts[m].load, takes: len(p.kick) > 0}
		if s != nil {
			c.zone, c.count = s.zone[p.hosts[m].zone], s.host[m]
		}
		if kick {
			all = append(all, c)
		} else if best.host == none || c.compare(best) < 0 {
			best = c
		}
	}
	if !kick {
		return best.host
	}
	slices.SortFunc(all, choice.compare)
	for _, c := range all {
		if p.able(members, c.host, true); p.canKick(members[0], c.host) {
			return c.host
		}
	}
	return none
}

// quick looks at the least loaded machines first. The result is that of scan.
func (p *planner) quick(c *class, members []int32, avoid int32, s *spread) int32 {
	if c.gen != p.gen {
		c.gen, c.all, c.zones, c.order = p.gen, nil, nil, nil
	}
	if s == nil {
		if c.all == nil {
			c.all = p.newHeap(c.hosts)
		}
		return p.fromHeap(c.all, members, avoid, nil).host
	}
	if c.zones == nil {
		p.splitZones(c)
	}
	order := c.order
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(s.zone[a], s.zone[b]) })
	best := choice{host: none}
	for k, z := range order {
		if best.host != none && s.zone[z] != s.zone[order[k-1]] {
			break
		}
		if got := p.fromHeap(c.zones[z], members, avoid, s); got.host != none && (best.host == none || got.compare(best) < 0) {
			best = got
		}
	}
	return best.host
}

func (p *planner) splitZones(c *class) {
	hosts := map[int32][]int32{}
	for _, m := range c.hosts {
		z := p.hosts[m].zone
		if hosts[z] == nil {
			c.order = append(c.order, z)
		}
		hosts[z] = append(hosts[z], m)
	}
	c.zones = make(map[int32]*heap, len(hosts))
	for z, in := range hosts {
		c.zones[z] = p.newHeap(in)
	}
}

// fromHeap finds the best machine of a heap, in a zone where all are equal but for the number of instances and the load.
func (p *planner) fromHeap(h *heap, members []int32, avoid int32, s *spread) choice {
	best, floor := choice{host: none}, int32(0)
	if s != nil {
		floor = s.floor[h]
	}
	aside := p.aside[:0]
	lowest := int32(1<<31 - 1)
	for best.host == none || best.count > floor {
		e, ok := h.pop()
		if !ok {
			if s != nil && lowest > floor {
				s.floor[h] = lowest
			}
			break
		}
		if now := p.hosts[e.host].load; now != e.load {
			h.push(entry{now, e.host})
			continue
		}
		aside = append(aside, e)
		c := choice{host: e.host, load: e.load}
		if s != nil {
			c.count, c.zone = s.host[e.host], s.zone[p.hosts[e.host].zone]
			lowest = min(lowest, c.count)
		}
		if e.host == avoid || best.host != none && c.count >= best.count {
			continue
		}
		if p.able(members, e.host, false).kind == fits {
			best = c
		}
	}
	for _, e := range aside {
		h.push(e)
	}
	p.aside = aside
	return best
}

// spreadOf counts the instances of t once and keeps count from then on; nil for no template.
func (p *planner) spreadOf(t unit.Name) *spread {
	if t == "" {
		return nil
	}
	if s := p.spreads[t]; s != nil {
		return s
	}
	s := &spread{zone: make([]int32, p.zones), host: map[int32]int32{}, floor: map[*heap]int32{}}
	for _, i := range p.matching([]glob{{pattern: t.Prefix() + "@*", prefix: t.Prefix() + "@"}}) {
		it := &p.items[i]
		if it.u.template == t && it.home != none && p.hosts[it.home].there {
			s.zone[p.hosts[it.home].zone]++
			s.host[it.home]++
		}
	}
	p.spreads[t] = s
	return s
}

// classOf finds the machines that have what u asks for.
func (p *planner) classOf(u *Unit) *class {
	if c := p.classes[u.wants]; c != nil {
		return c
	}
	c := &class{gen: -1}
	for _, m := range p.candidates(u) {
		if p.hosts[m].takes && p.static(u, &p.hosts[m]).kind == fits {
			c.hosts = append(c.hosts, m)
		}
	}
	p.classes[u.wants] = c
	return c
}

// candidates gives machines among which all that have what u asks for are: few if u asks for something rare.
func (p *planner) candidates(u *Unit) []int32 {
	if len(p.classes) < fewClasses {
		return p.takers()
	}
	p.indexLabels()
	if id := u.Fleet.MachineID; id != "" {
		return p.ids[id]
	}
	best := p.takers()
	for k, values := range u.Fleet.Metadata {
		var any []int32
		for _, v := range values {
			any = append(any, p.labels[k+"\x00"+v]...)
		}
		if len(any) < len(best) {
			best = any
		}
	}
	best = slices.Clone(best)
	slices.Sort(best)
	return slices.Compact(best)
}

// indexLabels finds the machines by label and by ID, once.
func (p *planner) indexLabels() {
	if p.labels != nil {
		return
	}
	p.labels, p.ids = map[string][]int32{}, map[string][]int32{}
	for m := range p.hosts {
		h := &p.hosts[m]
		if !h.takes {
			continue
		}
		for k, v := range h.labels {
			p.labels[k+"\x00"+v] = append(p.labels[k+"\x00"+v], int32(m))
		}
		ids := []string{string(h.ID), h.ID.Short(), h.name}
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			p.ids[id] = append(p.ids[id], int32(m))
		}
	}
}

// takers lists the machines that take new units.
func (p *planner) takers() []int32 {
	if p.every == nil {
		for m := range p.hosts {
			if p.hosts[m].takes {
				p.every = append(p.every, int32(m))
			}
		}
	}
	return p.every
}
