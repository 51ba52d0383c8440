package quorum

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"flota/internal/machine"
)

// maxLearners is how many learners there may be at once. Source: the engine's own limit, which room store/etcd sets to 8.
const maxLearners = 8

// planner makes one plan. While it does, s is changed as if each step had been carried out.
type planner struct {
	s *state
	w want
	Plan
}

// Make gives the next steps from in towards what should be. They are to be carried out in their order; after the first that fails, and after the
// last, the next plan is to be made from what there is then. It is deterministic, and the order of in's lists does not matter.
func Make(in Input, now time.Time) Plan {
	s := read(in, now)
	if len(s.parts) == 0 {
		return Plan{Waiting: []string{"the store's engine lists no members"}}
	}
	p := &planner{s: s, w: s.want()}
	p.Voters = p.w.size
	if voters, live := s.count(); live < majority(voters) {
		p.wait("%d of %d voters are there, which is no majority: nothing can be changed until another one returns (%s), or until one of the machines that hold a copy is told to recover",
			live, voters, p.away())
	} else {
		p.records()
		p.learners()
		p.voters()
		p.adds()
		p.explain()
	}
	p.Next = s.next
	return p.Plan
}

// step appends one.
func (p *planner) step(k Kind, at *part, reason string, args ...any) *Step {
	p.Steps = append(p.Steps, Step{Kind: k, Machine: at.owner, Name: p.s.name(at), Member: at.ID, Peer: at.Peer, Reason: fmt.Sprintf(reason, args...)})
	return &p.Steps[len(p.Steps)-1]
}

func (p *planner) wait(format string, args ...any) {
	p.Waiting = append(p.Waiting, fmt.Sprintf(format, args...))
}

// records brings the votes that are written down in line with the members, whatever a steward left half done.
func (p *planner) records() {
	s := p.s
	for i := range s.parts {
		m := &s.parts[i]
		if !m.known || s.of[m.owner] != m {
			continue
		}
		role := machine.Voter
		if m.Learner {
			role = machine.Learner
		}
		v, written := s.votes[m.owner]
		switch {
		case !written || v.Member != m.ID:
			p.step(Record, m, "it holds a copy of the store already").Role = role
		case m.leaves && !p.w.voters[m.owner] && !(m.Learner && p.wanted(m.owner)): // as it should be: it is to be removed
		case v.Role != role:
			p.step(Record, m, "it is a %s of the store already", role).Role = role
			m.leaves = false
		case !m.Started && !p.complete(v.Peers):
			p.step(Record, m, "the members that its own is to be started beside have changed").Role = role
		}
	}
	for _, id := range sortedIDs(s.votes) {
		if s.of[id] == nil {
			p.step(Forget, &part{owner: id, Member: Member{Name: s.byID[id].Name}}, "it has no member of the store any more")
		}
	}
}

// complete says whether peers names exactly the members that there are.
func (p *planner) complete(peers map[string]string) bool {
	if len(peers) != len(p.s.parts) {
		return false
	}
	for _, m := range p.s.parts {
		found := false
		for _, addr := range peers {
			found = found || addr == m.Peer
		}
		if !found {
			return false
		}
	}
	return true
}

func sortedIDs(votes map[machine.ID]machine.Vote) []machine.ID {
	var ids []machine.ID
	for id := range votes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// wanted says whether a machine should hold a copy.
func (p *planner) wanted(id machine.ID) bool { return p.w.voters[id] || p.w.copy == id && id != "" }

// need gives the machines that should vote and do not, the older first.
func (p *planner) need() (out []Machine) {
	for _, m := range p.s.machines {
		if at := p.s.of[m.ID]; p.w.voters[m.ID] && (at == nil || at.Learner) {
			out = append(out, m)
		}
	}
	return out
}

// learners removes those that are of no use. One that is well stays until the voters are as they should be: it is the next to take a place.
func (p *planner) learners() {
	full := len(p.need()) == 0
	for i := range p.s.parts {
		m := &p.s.parts[i]
		x := p.s.byID[m.owner]
		switch {
		case !m.Learner || p.wanted(m.owner) && p.s.of[m.owner] == m:
		case !m.known:
			p.remove(m, "its machine is not one of the cluster's")
		case p.s.of[m.owner] != m:
			p.remove(m, "%s has another member", p.s.name(m))
		case x.Removing:
			p.remove(m, "the machine is to be removed")
		case m.dead:
			p.remove(m, "%s", p.fault(m))
		case full:
			p.remove(m, "%s", p.enough())
		}
	}
	p.s.sweep()
}

// enough is why one member more is of no use.
func (p *planner) enough() string {
	if p.w.size == 1 {
		return "one voter, and one copy beside it, are enough for the machines that there are"
	}
	return fmt.Sprintf("%d voters are enough for the machines that there are", p.w.size)
}

// remove takes a member out, after its machine, if it is there, has had time to move off it. false: not in this plan.
func (p *planner) remove(m *part, reason string, args ...any) bool {
	s := p.s
	if m.live {
		v := s.votes[m.owner]
		if !m.leaves {
			p.step(Release, m, reason, args...)
			return false
		}
		if !v.Since.After(s.now) && !s.past(v.Since.Add(s.Handoff)) { // a time to come is another machine's wrong clock
			p.wait("%s: moves to the members of other machines before its own is removed", s.name(m))
			return false
		}
	}
	p.step(Remove, m, reason, args...)
	m.ID = "" // for sweep
	return true
}

// sweep forgets removed members.
func (s *state) sweep() {
	s.parts = slices.DeleteFunc(s.parts, func(m part) bool { return m.ID == "" })
	clear(s.of)
	for i := range s.parts {
		if m := &s.parts[i]; m.owner != "" {
			if had := s.of[m.owner]; had == nil || had.Learner && !m.Learner {
				s.of[m.owner] = m
			}
		}
	}
}

// adds makes learners of the machines that should hold a copy and have none.
func (p *planner) adds() {
	s := p.s
	learners, taken := 0, map[string]bool{}
	for _, m := range s.parts {
		taken[m.Peer] = true
		if m.Learner {
			learners++
		}
	}
	add := func(m Machine, reason string) {
		switch {
		case s.of[m.ID] != nil:
		case taken[m.Peer]:
			p.wait("%s: cannot hold a copy yet: its address %s is still that of another member", m.Name, m.Peer)
		case learners >= maxLearners:
			p.wait("%s: is to hold a copy when the others that are copying now are ready", m.Name)
		case m.Alive:
			learners++
			taken[m.Peer] = true
			p.Steps = append(p.Steps, Step{Kind: Add, Machine: m.ID, Name: m.Name, Peer: m.Peer, Reason: reason})
		}
	}
	for _, m := range p.need() {
		add(m, p.why(m))
	}
	if p.w.copy != "" && len(p.need()) == 0 {
		add(s.byID[p.w.copy], "a store with one voter keeps a complete copy on a second machine")
	}
}

// why says why m is to be a voter.
func (p *planner) why(m Machine) string {
	var places []string
	for _, d := range p.drops() {
		places = append(places, fmt.Sprintf("%s (%s)", p.s.name(d), p.fault(d)))
	}
	if voters, _ := p.s.count(); voters >= p.w.size && len(places) > 0 {
		return "it takes the place of " + strings.Join(places, " or ")
	}
	return fmt.Sprintf("%d voters are wanted for the machines that there are", p.w.size)
}

// fault says why a voter is not to be one.
func (p *planner) fault(d *part) string {
	m := p.s.byID[d.owner]
	switch {
	case !d.known:
		return "its machine is not one of the cluster's"
	case m.Removing:
		return "the machine is to be removed"
	case d.dead && !m.Alive && m.Lost.IsZero():
		return "the machine is gone"
	case d.dead && !m.Alive:
		return fmt.Sprintf("the machine is gone: no sign of life since %s", clock(m.Lost))
	case d.dead:
		return "its copy of the store is gone"
	case m.Leaving:
		return "the machine shuts down"
	case m.Drained:
		return "the machine is drained"
	case len(p.w.voters) == p.w.size && len(p.need()) > 0:
		return "voters are better spread, or on machines that run units, without it"
	}
	return p.enough()
}

// drops gives the voters that should not be, those first that are missed least.
func (p *planner) drops() (out []*part) {
	for i := range p.s.parts {
		m := &p.s.parts[i]
		if !m.Learner && !(p.w.voters[m.owner] && p.s.of[m.owner] == m) {
			out = append(out, m)
		}
	}
	rank := func(m *part) int {
		x := p.s.byID[m.owner]
		switch {
		case !m.known:
			return 0
		case !m.live:
			return 1
		case x.Removing:
			return 2
		case x.Leaving:
			return 3
		}
		return 4
	}
	slices.SortStableFunc(out, func(a, b *part) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}
