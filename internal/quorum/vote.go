package quorum

import (
	"fmt"
	"strings"
)

// voters plans promotions and removals of voters, one at a time, each as if those before had been done.
func (p *planner) voters() {
	for range 4 * MaxVoters { // far more than there can be
		if !p.vote() {
			return
		}
	}
}

// vote plans the next change of the voters; false: there is none now.
func (p *planner) vote() bool {
	s := p.s
	voters, live := s.count()
	drops, ready := p.drops(), p.ready()
	if voters > 1 && len(drops) > 0 && !drops[0].live {
		// It weighs on the majority and adds nothing: away with it first, so that at no moment one more machine is needed than before. But
		// one that may return stays until its successor is ready.
		d := drops[0]
		if !d.known || voters > p.w.size || voters == p.w.size && len(ready) > 0 {
			p.remove(d, "%s", p.fault(d))
			s.sweep()
			return true
		}
	}
	switch {
	case voters > p.w.size && len(drops) > 0:
		return p.drop(drops[0], voters, live)
	case voters < p.w.size && len(ready) >= 1+voters%2, // from an odd number by two, as an even one is no better
		voters == p.w.size && len(drops) > 0 && len(ready) > 0:
		p.promote(p.first(ready, voters))
		return true
	}
	return false
}

// ready gives the learners that should vote, have started, and live.
func (p *planner) ready() (out []*part) {
	for _, m := range p.need() {
		if at := p.s.of[m.ID]; at != nil && at.live && !at.leaves {
			out = append(out, at)
		}
	}
	return out
}

// first chooses whom to promote. Of two that make an odd number of voters odd again it is the younger learner: if its copy is not complete yet, the
// promotion fails before the number is even, and the other's succeeds for sure.
func (p *planner) first(ready []*part, voters int) *part {
	best := ready[0]
	for _, m := range ready[1:] {
		if voters%2 == 1 && voters < p.w.size && p.s.votes[m.owner].Since.After(p.s.votes[best.owner].Since) {
			best = m
		}
	}
	return best
}

// promote makes a learner a voter.
func (p *planner) promote(m *part) {
	p.step(Promote, m, "%s", p.why(p.s.byID[m.owner]))
	m.Learner = false
}

// drop removes a voter that lives, if a majority of the others lives too. false: not now.
func (p *planner) drop(d *part, voters, live int) bool {
	s := p.s
	if d.live {
		live--
	}
	if live < majority(voters-1) {
		p.wait("%s: is to stop voting (%s), but without it %d of %d voters would be there, which is no majority (%s)",
			s.name(d), p.fault(d), live, voters-1, p.away())
		return false
	}
	if !p.remove(d, "%s", p.fault(d)) {
		return false
	}
	s.sweep()
	return true
}

// away names the voters that are not there.
func (p *planner) away() string {
	var names []string
	for i := range p.s.parts {
		if m := &p.s.parts[i]; !m.Learner && !m.live {
			names = append(names, p.s.name(m))
		}
	}
	switch len(names) {
	case 0:
		return "none is away"
	case 1:
		return names[0] + " is away"
	}
	return strings.Join(names, ", ") + " are away"
}

// explain says what is not as it should be and not about to be changed by a step of this plan.
func (p *planner) explain() {
	s := p.s
	for _, m := range p.need() {
		at := s.of[m.ID]
		switch {
		case at == nil:
		case !m.Alive:
			p.wait("%s: is to vote, but the machine is away", m.Name)
		case !at.Started && s.stalled(at):
			p.wait("%s: is to vote, but its copy of the store has not started since %s; can the other machines reach %s?", m.Name, clock(s.votes[m.ID].Since), at.Peer)
		case !at.Started:
			p.wait("%s: is to vote when its copy of the store has started", m.Name)
		case len(p.Steps) == 0:
			p.wait("%s: is ready to vote, and waits for another machine, so that the number of voters stays odd", m.Name)
		}
	}
	for i := range s.parts {
		m := &s.parts[i]
		x := s.byID[m.owner]
		switch {
		case m.Learner:
		case m.dead && p.w.voters[m.owner]:
			p.wait("%s: %s, and no machine can take its place", s.name(m), p.fault(m))
		case x.Removing:
			if voters, _ := s.count(); voters == 1 {
				p.wait("%s: is to be removed, but it is the only voter, and no machine can take its place", s.name(m))
			}
		}
	}
	if voters, _ := s.count(); p.w.size < p.w.ideal && voters == p.w.size {
		p.Waiting = append(p.Waiting, fmt.Sprintf("%d voters are wanted for the machines in the table, but too few of them are there: %s until they are", p.w.ideal, plural(p.w.size)))
	}
}

// plural is "1 voter", "3 voters".
func plural(n int) string {
	if n == 1 {
		return "1 voter"
	}
	return fmt.Sprintf("%d voters", n)
}
