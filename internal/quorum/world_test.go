package quorum

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"flota/internal/machine"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// world is a model of machines and of the engine's membership, in which plans are carried out.
type world struct {
	now      time.Time
	machines []*Machine // the table
	members  []*Member
	copied   map[string]time.Time // when each learner's copy has started and is complete
	votes    map[machine.ID]machine.Vote
	settings Settings
	joined   int // machines so far
	added    int // members so far
	done     []Step
	fail     func(format string, args ...any)
}

func id(n int) machine.ID { return machine.ID(fmt.Sprintf("%032x", n)) }

func newWorld(fail func(format string, args ...any)) *world {
	w := &world{now: noon, copied: map[string]time.Time{}, votes: map[machine.ID]machine.Vote{}, fail: fail}
	m := w.join("a")
	w.member(m.Peer, m.Name, false)
	w.members[0].Started = true
	return w
}

// join adds a machine to the table.
func (w *world) join(zone string) *Machine {
	w.joined++
	m := &Machine{ID: id(w.joined), Name: fmt.Sprint("m", w.joined), Zone: zone, Peer: fmt.Sprintf("10.0.0.%d:7701", w.joined), Joined: w.now, Alive: true}
	w.machines = append(w.machines, m)
	return m
}

func (w *world) member(peer, name string, learner bool) *Member {
	w.added++
	m := &Member{ID: fmt.Sprint("e", w.added), Peer: peer, Name: name, Learner: learner}
	w.members = append(w.members, m)
	return m
}

func (w *world) kill(m *Machine) {
	if m.Alive {
		m.Alive, m.Lost = false, w.now
	}
}

func (w *world) revive(m *Machine) {
	if !m.Alive {
		m.Alive, m.Back = true, w.now
	}
}

func (w *world) machine(name string) *Machine {
	for _, m := range w.machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// at gives the machine that runs a member: it is known by its address.
func (w *world) at(m *Member) *Machine {
	for _, x := range w.machines {
		if x.Peer == m.Peer {
			return x
		}
	}
	return nil
}

// count is the truth about the voters.
func (w *world) count() (voters, live int) {
	for _, m := range w.members {
		if !m.Learner {
			voters++
			if x := w.at(m); x != nil && x.Alive && m.Started {
				live++
			}
		}
	}
	return voters, live
}

func (w *world) works() bool {
	voters, live := w.count()
	return live >= voters/2+1
}

func (w *world) input() Input {
	in := Input{Votes: w.votes, Settings: w.settings}
	for _, m := range w.machines {
		in.Machines = append(in.Machines, *m)
	}
	for _, m := range w.members {
		in.Members = append(in.Members, *m)
	}
	return in
}

// pass lets time go by: learners on machines that are there start.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for _, m := range w.members {
		x := w.at(m)
		if m.Learner && !m.Started && x != nil && x.Alive && !w.now.Before(w.copied[m.ID]) {
			m.Started, m.Name = true, x.Name
		}
	}
}

// do carries a step out; false when it fails. With half, the steward dies between the engine and the record.
func (w *world) do(s Step, half bool, slow time.Duration) bool {
	if !w.works() {
		return false
	}
	w.done = append(w.done, s)
	find := func() *Member {
		for _, m := range w.members {
			if m.ID == s.Member {
				return m
			}
		}
		w.fail("%v: no such member", s)
		return nil
	}
	write := func(role machine.Role, member string) {
		if half {
			return
		}
		peers := map[string]string{}
		for i, m := range w.members {
			peers[fmt.Sprint(i, m.Name)] = m.Peer
		}
		w.votes[s.Machine] = machine.Vote{Machine: s.Machine, Role: role, Member: member, Peers: peers, Since: w.now, Reason: s.Reason}
	}
	switch s.Kind {
	case Add:
		for _, m := range w.members {
			if m.Peer == s.Peer {
				w.fail("%v: the address is a member's", s)
			}
		}
		m := w.member(s.Peer, "", true)
		w.copied[m.ID] = w.now.Add(slow)
		write(machine.Learner, m.ID)
	case Record:
		find()
		write(s.Role, s.Member)
	case Promote:
		m := find()
		if !m.Learner {
			w.fail("%v: it votes", s)
		}
		if !m.Started {
			return false
		}
		m.Learner = false
		write(machine.Voter, s.Member)
	case Release:
		find()
		write(machine.Client, s.Member)
	case Remove:
		m := find()
		w.members = slices.DeleteFunc(w.members, func(x *Member) bool { return x == m })
		if !half {
			delete(w.votes, s.Machine)
		}
	case Forget:
		delete(w.votes, s.Machine)
	}
	if s.Reason == "" || s.Name == "" {
		w.fail("a step without a reason or a name: %+v", s)
	}
	if !w.works() {
		w.fail("%v: took the majority away", s)
	}
	return true
}

// settle carries out plans until there are none with steps, and gives the last plan.
func (w *world) settle() Plan {
	for range 300 {
		p := Make(w.input(), w.now)
		for _, s := range p.Steps {
			if !w.do(s, false, time.Second) {
				break
			}
		}
		if len(p.Steps) > 0 || !p.Next.IsZero() || w.copying() {
			step := time.Second
			switch {
			case len(p.Steps) > 0:
			case w.copying():
				step = 7 * time.Second
			default:
				step = max(p.Next.Sub(w.now), step)
			}
			w.pass(step)
			continue
		}
		return p
	}
	w.fail("it does not settle: %v", w.done[max(len(w.done)-12, 0):])
	return Plan{}
}

func (w *world) copying() bool {
	return slices.ContainsFunc(w.members, func(m *Member) bool { return !m.Started && w.at(m) != nil && w.at(m).Alive })
}

// names gives the voters and the learners by machine.
func (w *world) names() string {
	var voters, learners []string
	for _, m := range w.members {
		if m.Learner {
			learners = append(learners, m.Name)
		} else {
			voters = append(voters, m.Name)
		}
	}
	slices.Sort(voters)
	slices.Sort(learners)
	out := fmt.Sprint(voters)
	if len(learners) > 0 {
		out += "+" + fmt.Sprint(learners)
	}
	return out
}

// drawHistory lets anything happen, and plans be carried out in between, whole or in part.
func drawHistory(t *rapid.T, w *world) (removals bool) {
	any := func() *Machine { return rapid.SampledFrom(w.machines).Draw(t, "machine") }
	for range rapid.IntRange(1, 40).Draw(t, "events") {
		switch rapid.SampledFrom([]string{"join", "kill", "revive", "reviveAll", "remove", "removing", "leave", "drain", "half", "forget", "pass", "plan", "plan", "plan", "plan"}).Draw(t, "event") {
		case "join":
			if len(w.machines) < 10 {
				m := w.join(rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "zone"))
				m.Witness = rapid.IntRange(0, 4).Draw(t, "witness") == 0
			}
		case "kill":
			w.kill(any())
		case "revive":
			w.revive(any())
		case "reviveAll":
			for _, m := range w.machines {
				w.revive(m)
			}
		case "remove": // as `machine remove` allows it: not if it breaks the majority
			m := any()
			rest := slices.DeleteFunc(slices.Clone(w.machines), func(x *Machine) bool { return x == m })
			old := w.machines
			if w.machines = rest; !w.works() || len(rest) == 0 {
				w.machines = old
			} else {
				removals = true
			}
		case "removing":
			any().Removing, removals = true, true
		case "leave":
			m := any()
			m.Leaving = !m.Leaving
		case "drain":
			m := any()
			m.Drained = !m.Drained
		case "forget": // as a recovery does
			delete(w.votes, any().ID)
		case "half":
			for _, m := range w.machines[:len(w.machines)/2] {
				w.kill(m)
			}
		case "pass":
			w.pass(time.Duration(rapid.SampledFrom([]int{1, 5, 59, 61, 301}).Draw(t, "seconds")) * time.Second)
		case "plan":
			p := Make(w.input(), w.now)
			for i, s := range p.Steps {
				half := rapid.IntRange(0, 9).Draw(t, "half") == 0
				if !w.do(s, half, time.Duration(rapid.IntRange(0, 400).Draw(t, "slow"))*time.Second) || half || i > 0 && rapid.IntRange(0, 5).Draw(t, "dies") == 0 {
					break
				}
			}
			w.pass(time.Second)
		}
	}
	return removals
}

// shuffled gives the same input in another order.
func shuffled(t *rapid.T, in Input) Input {
	in.Machines = rapid.Permutation(in.Machines).Draw(t, "machines")
	in.Members = rapid.Permutation(in.Members).Draw(t, "members")
	return in
}

func testWorld(t testing.TB) *world { return newWorld(t.Fatalf) }
