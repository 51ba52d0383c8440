package scheduler

import (
	"slices"

	"flota/internal/unit"
)

// What a unit and a machine count for ranking where it is not known. They refuse nothing. A small service has some 64 MiB
// and a twentieth of a core; 8 GiB and 4 cores are a common small server.
const (
	nominalMem     = 64 << 20
	nominalCPU     = 50
	nominalSizeMem = 8 << 30
	nominalSizeCPU = 4000
)

// count counts a unit on a machine.
func (p *planner) count(i, m int32) {
	p.countOnly(i, m)
	p.hosts[m].addRank(p.items[i].needs)
}

// addRank counts a unit for ranking.
func (h *host) addRank(needs unit.Needs) {
	h.rank.MemBytes += orNominal(needs.MemBytes, nominalMem)
	h.rank.CPUMillis += orNominal(needs.CPUMillis, nominalCPU)
	h.n++
	h.weigh()
}

// countOnly counts a unit for room and company, but not for ranking: it is leaving.
func (p *planner) countOnly(i, m int32) {
	h, it := &p.hosts[m], &p.items[i]
	h.on = append(h.on, i)
	if it.guards {
		h.guards = append(h.guards, i)
	}
	h.used.MemBytes += it.needs.MemBytes
	h.used.CPUMillis += it.needs.CPUMillis
}

// uncount takes a unit off a machine.
func (p *planner) uncount(i, m int32) {
	p.uncountOnly(i, m)
	p.hosts[m].dropRank(p.items[i].needs)
}

// uncountOnly is uncount for a unit that is not ranked.
func (p *planner) uncountOnly(i, m int32) {
	h, needs := &p.hosts[m], p.items[i].needs
	if k := slices.Index(h.on, i); k >= 0 {
		h.on = slices.Delete(h.on, k, k+1)
	}
	if k := slices.Index(h.guards, i); k >= 0 {
		h.guards = slices.Delete(h.guards, k, k+1)
	}
	h.used.MemBytes -= needs.MemBytes
	h.used.CPUMillis -= needs.CPUMillis
	if h.takes {
		p.gen++
	}
}

// dropRank stops counting a unit for ranking.
func (h *host) dropRank(needs unit.Needs) {
	h.rank.MemBytes -= orNominal(needs.MemBytes, nominalMem)
	h.rank.CPUMillis -= orNominal(needs.CPUMillis, nominalCPU)
	h.n--
	h.weigh()
}

func orNominal(have, nominal int64) int64 {
	if have > 0 {
		return have
	}
	return nominal
}

// weigh sets the machine's load: its fullest resource in millionths, then the number of units.
func (h *host) weigh() {
	mem := (h.rank.MemBytes >> 10) * 1_000_000 / (orNominal(h.size.MemBytes, nominalSizeMem)>>10 + 1)
	cpu := h.rank.CPUMillis * 1_000_000 / orNominal(h.size.CPUMillis, nominalSizeCPU)
	h.load = max(mem, cpu)<<20 | min(h.n, 1<<20-1)
}

// assign puts a unit on a machine.
func (p *planner) assign(i, m int32) {
	p.count(i, m)
	p.items[i].home, p.items[i].counted = m, false
	p.spreadAdd(i, m, 1)
}

// unassign takes a unit off the machine it was put on.
func (p *planner) unassign(i int32) {
	it := &p.items[i]
	p.uncount(i, it.home)
	p.spreadAdd(i, it.home, -1)
	it.home = none
}

func (p *planner) spreadAdd(i, m int32, n int32) {
	if t := p.items[i].u.template; t != "" {
		if s := p.spreads[t]; s != nil {
			s.zone[p.hosts[m].zone] += n
			s.host[m] += n
		}
	}
}

// same says whether a place holds the unit as it is stored now.
func same(a, b *unit.Unit) bool {
	if a.Target != b.Target || a.Run != b.Run || len(a.Options) != len(b.Options) {
		return false
	}
	if len(a.Options) > 0 && &a.Options[0] == &b.Options[0] {
		return true
	}
	return slices.Equal(a.Options, b.Options)
}

// surely says whether a place holds the unit as it is stored now, if that can be told at a glance: it shares the options.
func (it *item) surely(have *unit.Unit) bool {
	return have.Run == it.run && have.Target == it.target && len(have.Options) == int(it.count) &&
		(it.count == 0 || &have.Options[0] == it.options)
}
