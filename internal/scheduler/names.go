package scheduler

import (
	"hash/maphash"

	"flota/internal/unit"
)

// names finds units by name: a hash table that is half as dear as a map to fill and to ask, which is most of the work of a
// plan with little to do.
type names struct {
	seed  maphash.Seed
	slots []slot
	mask  uint32
}

// slot is a unit with a part of its name's hash; unit is one more than its index, 0 is an empty slot.
type slot struct{ hash, unit uint32 }

func newNames(n int) names {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return names{seed: maphash.MakeSeed(), slots: make([]slot, size), mask: uint32(size - 1)}
}

// add adds a unit whose name is new.
func (t *names) add(n unit.Name, i int32) {
	h := uint32(maphash.String(t.seed, string(n)))
	at := h & t.mask
	for t.slots[at].unit != 0 {
		at = (at + 1) & t.mask
	}
	t.slots[at] = slot{h, uint32(i + 1)}
}

// find gives the index of a unit.
func (p *planner) find(n unit.Name) (int32, bool) {
	t := &p.byName
	h := uint32(maphash.String(t.seed, string(n)))
	for at := h & t.mask; t.slots[at].unit != 0; at = (at + 1) & t.mask {
		if s := t.slots[at]; s.hash == h && p.items[s.unit-1].name == n {
			return int32(s.unit - 1), true
		}
	}
	return none, false
}
