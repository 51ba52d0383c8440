package scheduler

// entry is a machine with the load it had when it was put into a heap.
type entry struct {
	load int64
	host int32
}

func (a entry) less(b entry) bool { return a.load < b.load || a.load == b.load && a.host < b.host }

// heap gives machines, the least loaded first and the lowest ID first among equals.
type heap struct{ e []entry }

func (p *planner) newHeap(hosts []int32) *heap {
	h := &heap{e: make([]entry, len(hosts))}
	for k, m := range hosts {
		h.e[k] = entry{p.hosts[m].load, m}
	}
	for k := len(h.e)/2 - 1; k >= 0; k-- {
		h.down(k)
	}
	return h
}

func (h *heap) push(x entry) {
	h.e = append(h.e, x)
	for k := len(h.e) - 1; k > 0; {
		up := (k - 1) / 2
		if !h.e[k].less(h.e[up]) {
			return
		}
		h.e[k], h.e[up] = h.e[up], h.e[k]
		k = up
	}
}

func (h *heap) pop() (entry, bool) {
	if len(h.e) == 0 {
		return entry{}, false
	}
	top, last := h.e[0], len(h.e)-1
	h.e[0] = h.e[last]
	h.e = h.e[:last]
	h.down(0)
	return top, true
}

func (h *heap) down(k int) {
	for {
		low := k
		for c := 2*k + 1; c <= 2*k+2 && c < len(h.e); c++ {
			if h.e[c].less(h.e[low]) {
				low = c
			}
		}
		if low == k {
			return
		}
		h.e[k], h.e[low] = h.e[low], h.e[k]
		k = low
	}
}
