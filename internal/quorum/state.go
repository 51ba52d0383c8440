package quorum

import (
	"cmp"
	"slices"
	"time"

	"flota/internal/machine"
)

// part is one member with what is known of its machine.
type part struct {
	Member
	owner  machine.ID // whose it is; "" when nobody knows
	known  bool       // the owner stands in the table
	live   bool       // it runs, as far as anybody can tell
	dead   bool       // it is not there, and has been away for long enough to be replaced
	leaves bool       // its vote says that its machine moves away from it
}

// state is the input made easy to ask.
type state struct {
	Settings
	now      time.Time
	machines []Machine // by Joined, then ID
	byID     map[machine.ID]Machine
	votes    map[machine.ID]machine.Vote
	parts    []part               // by ID
	of       map[machine.ID]*part // each machine's own member
	next     time.Time
}

// read sorts the input out.
func read(in Input, now time.Time) *state {
	s := &state{Settings: in.Settings, now: now, votes: in.Votes, byID: map[machine.ID]Machine{}, of: map[machine.ID]*part{}}
	s.Replace = cmp.Or(s.Replace, DefaultReplace)
	s.Settle = cmp.Or(s.Settle, DefaultSettle)
	s.Handoff = cmp.Or(s.Handoff, DefaultHandoff)
	s.Stall = cmp.Or(s.Stall, DefaultStall)
	s.machines = slices.Clone(in.Machines)
	slices.SortFunc(s.machines, func(a, b Machine) int {
		return cmp.Or(a.Joined.Compare(b.Joined), cmp.Compare(a.ID, b.ID))
	})
	for _, m := range s.machines {
		s.byID[m.ID] = m
	}
	for _, m := range in.Members {
		s.parts = append(s.parts, part{Member: m})
	}
	slices.SortFunc(s.parts, func(a, b part) int { return cmp.Compare(a.ID, b.ID) })
	s.own()
	for i := range s.parts {
		s.judge(&s.parts[i])
	}
	return s
}

// own finds out whose each member is: what the votes say, then the name that a started member has given itself, then the address of one that has
// not started. A machine owns one member at most; others that fit are nobody's.
func (s *state) own() {
	take := func(p *part, id machine.ID) {
		if s.of[id] == nil && p.owner == "" {
			p.owner, s.of[id] = id, p
		}
	}
	written := map[string]machine.ID{}
	for id, v := range s.votes {
		if other, ok := written[v.Member]; v.Member != "" && (!ok || id < other) {
			written[v.Member] = id
		}
	}
	for i := range s.parts {
		if id, ok := written[s.parts[i].ID]; ok {
			take(&s.parts[i], id)
		}
	}
	for i := range s.parts {
		p := &s.parts[i]
		for _, m := range s.machines {
			if p.Name != "" && p.Name == m.Name || p.Name == "" && p.Peer != "" && p.Peer == m.Peer {
				take(p, m.ID)
			}
		}
	}
}

// judge says how a member is.
func (s *state) judge(p *part) {
	m, known := s.byID[p.owner]
	p.known = known
	v, written := s.votes[p.owner]
	p.leaves = written && v.Member == p.ID && v.Role == machine.Client
	other := m.Member != "" && m.Member != p.ID
	switch {
	case !known:
		p.dead = true
	case !m.Alive:
		p.dead = s.past(m.Lost.Add(s.Replace))
	case other && p.Started: // one that has not started yet runs nowhere
		p.dead = s.past(v.Since.Add(s.Replace))
	default:
		p.live = p.Started
	}
}

// past says whether t has come; if not, the plan changes then.
func (s *state) past(t time.Time) bool {
	if !t.After(s.now) {
		return true
	}
	if s.next.IsZero() || t.Before(s.next) {
		s.next = t
	}
	return false
}

// count gives how many voters there are, and how many of them live.
func (s *state) count() (voters, live int) {
	for _, p := range s.parts {
		if !p.Learner {
			voters++
			if p.live {
				live++
			}
		}
	}
	return voters, live
}

// majority is how many of n voters must live.
func majority(n int) int { return n/2 + 1 }

// name is what people call the owner of a member.
func (s *state) name(p *part) string {
	if m, ok := s.byID[p.owner]; ok && m.Name != "" {
		return m.Name
	}
	if p.Name != "" {
		return p.Name
	}
	if p.owner != "" {
		return p.owner.Short()
	}
	return p.Peer
}
