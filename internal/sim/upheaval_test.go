package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"flota/internal/machine"
)

// The limits of a random story with voters: IDs are told apart by one digit, and somebody must be left to run units.
const (
	mostMachines  = 12
	fewestStaying = 3
)

// staying gives the machines that nobody has asked to remove.
func (s *chaos) staying() (all []*Node) {
	for _, n := range s.all() {
		if !n.isGone() && !slices.Contains(s.asked, n.i) {
			all = append(all, n)
		}
	}
	return all
}

// members does something that changes who votes, or may.
func (s *chaos) members() {
	stay := s.staying()
	n := stay[s.rnd.IntN(len(stay))]
	switch s.rnd.IntN(12) {
	case 0, 1, 2:
		if len(s.all()) < mostMachines {
			s.join(fmt.Sprint("zone", s.rnd.IntN(3)), s.rnd.IntN(4) == 0)
		}
	case 3, 4:
		s.remove(n, false)
	case 5:
		if n.current() == nil && s.engine().Without(n.peer) {
			s.remove(n, true)
		}
	case 6:
		s.half(stay)
	case 7, 8:
		for _, n := range stay {
			s.Pause(n.i, false)
			n.cut(0)
			s.Boot(n.i)
		}
		s.Pass(time.Duration(s.rnd.IntN(40)) * time.Second)
	case 9:
		s.tell("--- the engine's answers are lost")
		s.engine().Lose(1 + s.rnd.IntN(3))
	case 10:
		s.engine().Copying(time.Duration(s.rnd.IntN(30000)) * time.Millisecond)
	case 11:
		s.Kill(n.i)
		s.Pass(time.Duration(s.rnd.IntN(40)) * time.Second)
	}
}

// remove has a machine removed while the story goes on.
func (s *chaos) remove(n *Node, force bool) {
	running := 0
	for _, n := range s.staying() {
		if !n.witness {
			running++
		}
	}
	if running <= fewestStaying {
		return
	}
	s.asked = append(s.asked, n.i)
	s.Remove(n.i, force, func(error) {})
}

// half cuts the power of half of the machines at once, for some time.
func (s *chaos) half(stay []*Node) {
	s.rnd.Shuffle(len(stay), func(i, j int) { stay[i], stay[j] = stay[j], stay[i] })
	for _, n := range stay[:(len(stay)+1)/2] {
		s.Kill(n.i)
	}
	s.Pass(time.Duration(s.rnd.IntN(90)) * time.Second)
	for _, n := range stay {
		if s.rnd.IntN(4) > 0 {
			s.Boot(n.i)
		}
	}
}

// heal brings to an end what operators have begun: a removal is asked for again, and taken back if the cluster refuses.
func (s *chaos) heal() {
	if s.council == nil {
		return
	}
	s.engine().Lose(0)
	s.engine().Copying(time.Second)
	for deadline := time.Now().Add(time.Minute); !s.engine().Quorum(); s.Pass(time.Second) {
		if time.Now().After(deadline) {
			s.fail("quorum: all machines are well for a minute, and there is no majority: %+v", s.engine().Members())
			return
		}
	}
	s.council.acts.Wait()
	for _, i := range s.asked {
		n := s.node(i)
		if n.isGone() {
			continue
		}
		s.Remove(i, false, func(err error) {
			if err == nil {
				return
			}
			_, err = s.truth.Machines.Update(context.Background(), string(n.id), func(m *machine.Machine) error {
				m.Leaving, m.Drained = false, false
				return nil
			})
			s.tell("--- resume %s: %v", n.name, err)
		})
	}
	s.council.acts.Wait()
}
