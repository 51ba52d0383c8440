package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"flota/internal/driver/fake"
	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

// chaos tells a random story on a cluster.
type chaos struct {
	*Cluster
	rnd   *rand.Rand
	units []unit.Name
	marks int
	asked []int // machines that operators have asked to remove
}

// recipe is a unit that a story may use.
type recipe struct {
	name  unit.Name
	does  fake.Behaviour
	lines []string
}

// recipes gives one or more units for every feature of [X-Fleet] and [X-Flota], and for every way that a unit behaves.
func recipes() []recipe {
	var all []recipe
	add := func(name string, does fake.Behaviour, lines ...string) {
		all = append(all, recipe{unit.Name(name + ".service"), does, lines})
	}
	slow := fake.Behaviour{StartDelay: 2 * time.Second, StopTakes: 3 * time.Second}
	for i := 1; i <= 5; i++ {
		add(fmt.Sprintf("web@%d", i), fake.Behaviour{})
	}
	add("web-slow", slow)
	for i := 1; i <= 2; i++ {
		add(fmt.Sprintf("x-%d", i), fake.Behaviour{}, "X-Flota Exclusive=true")
	}
	add("x-slow", slow, "X-Flota Exclusive=true")
	add("x-ssd", fake.Behaviour{}, "X-Flota Exclusive=true", "X-Fleet MachineMetadata=disk=ssd")
	add("job-1", fake.Behaviour{EndAfter: time.Second})
	add("job-2", fake.Behaviour{EndAfter: 20 * time.Second})
	add("job-3", fake.Behaviour{FailStart: true, ExitCode: 3})
	add("flaky-1", fake.Behaviour{EndAfter: 7 * time.Second, ExitCode: 1, Restart: true})
	for i := 1; i <= 3; i++ {
		add(fmt.Sprintf("alone@%d", i), fake.Behaviour{}, "X-Fleet Conflicts=alone@*.service")
	}
	add("host", fake.Behaviour{})
	add("mate-1", fake.Behaviour{}, "X-Fleet MachineOf=host.service")
	add("mate-2", slow, "X-Fleet MachineOf=host.service")
	add("ssd", fake.Behaviour{}, "X-Fleet MachineMetadata=disk=ssd")
	add("pinned", fake.Behaviour{}, "X-Fleet MachineID=22222222")
	add("pusher", fake.Behaviour{}, "X-Fleet Replaces=host.service")
	add("global-1", fake.Behaviour{}, "X-Fleet Global=true")
	add("global-ssd", slow, "X-Fleet Global=true", "X-Fleet MachineMetadata=disk=ssd")
	add("big@1", fake.Behaviour{}, "X-Flota Memory=600M")
	add("big@2", fake.Behaviour{}, "X-Flota Memory=600M")
	return all
}

// Tell tells a story of so many steps that seed chooses, ends all trouble, and settles.
func Tell(c *Cluster, seed uint64, steps int) {
	s := &chaos{Cluster: c, rnd: rand.New(rand.NewPCG(seed, 0x510a))}
	for _, r := range recipes() {
		s.units = append(s.units, r.name)
		if s.rnd.IntN(3) > 0 {
			s.Submit(r.name, r.does, r.lines...)
			s.Launch(r.name)
		}
	}
	for range steps {
		if c.Broken() {
			return
		}
		s.step()
		s.wait()
	}
	c.Heal()
	s.heal()
	for _, n := range s.units {
		if is(n, flakyPrefix) {
			c.Stop(n) // it would write for ever
		}
	}
	c.Settle()
}

// wait lets some time pass: often none to speak of, sometimes long enough for a lease to end.
func (s *chaos) wait() {
	switch s.rnd.IntN(4) {
	case 0:
		time.Sleep(time.Duration(s.rnd.IntN(50)) * time.Millisecond)
	case 1, 2:
		time.Sleep(time.Duration(s.rnd.IntN(1500)) * time.Millisecond)
	default:
		time.Sleep(time.Duration(s.rnd.IntN(9000)) * time.Millisecond)
	}
}

// machine gives one of the machines.
func (s *chaos) machine() int { return 1 + s.rnd.IntN(len(s.all())) }

// step lets one thing happen.
func (s *chaos) step() {
	switch d := s.rnd.IntN(100); {
	case s.council != nil && d < 25:
		s.members()
	case d < 40:
		s.user()
	case d < 48:
		s.operator()
	case d < 75:
		s.process()
	default:
		s.network()
	}
}

// user does something with a unit.
func (s *chaos) user() {
	all := recipes()
	r := all[s.rnd.IntN(len(all))]
	switch s.rnd.IntN(9) {
	case 0, 1, 2:
		s.Submit(r.name, r.does, r.lines...)
		s.Launch(r.name)
	case 3:
		s.Stop(r.name)
	case 4:
		s.Launch(r.name)
	case 5:
		s.Restart(r.name)
	case 6:
		s.marks++
		s.Replace(r.name, fmt.Sprint("MARK=", s.marks))
	case 7:
		s.Unload(r.name)
	case 8:
		s.Destroy(r.name)
	}
}

// operator does something with a machine.
func (s *chaos) operator() {
	switch i := s.machine(); s.rnd.IntN(6) {
	case 0:
		s.Drain(i, true)
	case 1, 2:
		s.Drain(i, false)
	case 3:
		s.Label(i, "disk", "ssd")
	case 4:
		s.Label(i, "disk", "")
	case 5:
		s.Halt(i)
	}
}

// process does something to the process or the power of a machine.
func (s *chaos) process() {
	switch i := s.machine(); s.rnd.IntN(12) {
	case 0:
		s.Kill(i)
	case 1, 2, 3:
		s.Boot(i)
	case 4:
		s.KillAgent(i)
	case 5:
		s.KillAgent(i)
		s.Boot(i)
	case 6:
		s.StopAgent(i)
	case 7:
		s.StopAgent(i)
		s.Boot(i)
	case 8, 9:
		s.CrashAgent(i, 1+s.rnd.IntN(12), s.rnd.IntN(2) == 0)
	case 10:
		s.Pause(i, true)
	case 11:
		for k := range s.all() {
			s.Pause(k+1, false)
			s.Boot(k + 1)
		}
	}
}

// network does something to a machine's way to the store.
func (s *chaos) network() {
	i := s.machine()
	outage := []mem.Outage{mem.Refused, mem.Hanging, mem.NoQuorum}[s.rnd.IntN(3)]
	with := func(word string, f func(p *process)) {
		s.tell("--- %s of m%d", word, i)
		s.node(i).on(f)
	}
	switch s.rnd.IntN(14) {
	case 0:
		s.Cut(i, outage)
	case 1, 2, 3:
		s.Cut(i, mem.None)
	case 4:
		s.Blackout(outage, time.Duration(s.rnd.IntN(40000))*time.Millisecond)
	case 5:
		with("lost answers", func(p *process) { p.client.LoseNext(1 + s.rnd.IntN(4)) })
	case 6:
		with("failing calls", func(p *process) { p.client.FailNext(1 + s.rnd.IntN(6)) })
	case 7:
		with("lagging watches", func(p *process) { p.client.Lag(time.Duration(s.rnd.IntN(6000)) * time.Millisecond) })
	case 8:
		with("quick watches", func(p *process) { p.client.Lag(0); p.client.Repeat(false); p.client.Pause(false) })
	case 9:
		with("repeated updates", func(p *process) { p.client.Repeat(true) })
	case 10:
		with("compaction for the watches", func(p *process) { p.client.EndWatches(store.ErrCompacted) })
	case 11:
		with("broken watches", func(p *process) { p.client.EndWatches(fault.New(fault.Unavailable, "the stream broke")) })
	case 12:
		with("stalled watches", func(p *process) { p.client.Pause(true) })
	case 13:
		with("a late write", func(p *process) {})
		s.Delay(i, time.Duration(s.rnd.IntN(8000))*time.Millisecond)
	}
}
