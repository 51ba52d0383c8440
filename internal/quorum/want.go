package quorum

import (
	"cmp"
	"time"

	"flota/internal/machine"
)

// want is what should be.
type want struct {
	size   int // voters
	ideal  int // voters for all machines of the table, were they there
	voters map[machine.ID]bool
	copy   machine.ID // the learner of a store with one voter; "" for none
}

// bySize is how many voters n machines should have.
func (s *state) bySize(n int) int {
	switch {
	case s.Voters > 0:
		return odd(min(s.Voters, n, MaxVoters))
	case n >= 7:
		return MaxVoters
	case n >= 3:
		return 3
	}
	return 1
}

// odd rounds down to an odd number, at least 1: an even number of voters survives no more failures than one fewer.
func odd(n int) int { return max((n-1)|1, 1) }

// want decides who should hold the store. It grows by the machines that are there, or were until just now; it shrinks only by those that the table
// has lost: machines that are merely away leave the size as it is.
func (s *state) want() want {
	here, all := 0, 0
	for _, m := range s.machines {
		if m.Removing {
			continue
		}
		all++
		if !m.Leaving && (m.Alive || !s.past(m.Lost.Add(s.Replace))) {
			here++
		}
	}
	voters, _ := s.count()
	w := want{ideal: s.bySize(all)}
	// An even number is that of a replacement which is half done: a voter is gone already, or not yet.
	w.size = min(max(odd(voters+1), s.bySize(here)), w.ideal)
	pool := s.pool()
	w.size = min(w.size, odd(len(pool)))
	w.voters = pick(pool, w.size)
	if w.size == 1 && all > 1 {
		w.copy = s.copy(w.voters)
	}
	return w
}

// A grade says how well a machine would do as a voter. All of a better grade are taken before the first of a worse one.
type grade int

const (
	good     grade = iota // there, or a voter or learner that was there until just now
	doubtful              // back only just, or a learner that is not ready for too long
	drained
	leaving
	gone // a voter that is away: kept only as long as nobody can take its place
)

// candidate is a machine that could be a voter.
type candidate struct {
	Machine
	grade   grade
	voter   bool
	learner bool
}

// pool gives the machines that could be voters.
func (s *state) pool() (out []candidate) {
	for _, m := range s.machines {
		p := s.of[m.ID]
		c := candidate{Machine: m, voter: p != nil && !p.Learner, learner: p != nil && p.Learner}
		switch {
		case m.Removing, p == nil && (!m.Alive || m.Peer == "" || m.Leaving), c.learner && p.dead:
			continue
		case c.voter && p.dead:
			c.grade = gone
		case m.Alive && m.Leaving:
			c.grade = leaving
		case m.Alive && m.Drained:
			c.grade = drained
		case !c.voter && !m.Back.IsZero() && !s.past(m.Back.Add(s.Settle)), c.learner && s.stalled(p):
			c.grade = doubtful
		}
		out = append(out, c)
	}
	return out
}

// stalled says whether a learner takes too long to become ready. The copy of a store with one voter is never asked to be.
func (s *state) stalled(p *part) bool {
	v := s.votes[p.owner]
	return !p.Started && v.Member == p.ID && !v.Since.IsZero() && s.past(v.Since.Add(s.Stall))
}

// pick takes n: grade by grade; within one, from the zones that have the fewest so far, real machines before witnesses, those that vote before those
// that learn before others, and the older before the younger.
func pick(pool []candidate, n int) map[machine.ID]bool {
	taken, zones := map[machine.ID]bool{}, map[string]int{}
	for len(taken) < n {
		var best *candidate
		for i := range pool {
			c := &pool[i]
			if !taken[c.ID] && (best == nil || compare(c, best, zones) < 0) {
				best = c
			}
		}
		if best == nil {
			break
		}
		taken[best.ID] = true
		zones[best.Zone]++
	}
	return taken
}

// compare is negative when a is to be taken before b. The pool is sorted by age.
func compare(a, b *candidate, zones map[string]int) int {
	return cmp.Or(
		cmp.Compare(a.grade, b.grade),
		cmp.Compare(zones[a.Zone], zones[b.Zone]),
		cmp.Compare(no(!a.Witness), no(!b.Witness)),
		cmp.Compare(no(a.voter), no(b.voter)),
		cmp.Compare(no(a.learner), no(b.learner)),
	)
}

// no is 0 for true.
func no(yes bool) int {
	if yes {
		return 0
	}
	return 1
}

// copy chooses the machine that holds a copy beside the only voter: one that is there, that has one already, that is not drained, in another zone; else
// one that has a copy and is away.
func (s *state) copy(voters map[machine.ID]bool) (best machine.ID) {
	zones := map[string]int{}
	for id := range voters {
		zones[s.byID[id].Zone]++
	}
	rank := func(m Machine) [6]int {
		p := s.of[m.ID]
		return [6]int{no(m.Alive), no(!m.Leaving), no(!m.Drained), no(p != nil), zones[m.Zone], no(!m.Witness)}
	}
	for _, m := range s.machines {
		p := s.of[m.ID]
		if m.Removing || voters[m.ID] || p == nil && (!m.Alive || m.Peer == "" || m.Leaving) {
			continue
		}
		if best == "" || less(rank(m), rank(s.byID[best])) {
			best = m.ID
		}
	}
	return best
}

func less(a, b [6]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// clock is how a reason writes a time.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }
