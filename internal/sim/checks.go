package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"flota/internal/agent"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/unit"
)

// What is checked all the while:
//   - P4: a unit has at most one place that is not leaving (watchPlaces), and an exclusive unit never runs twice (onRun);
//   - P2, P5: no healthy unit ends, and none is started again, while its place says that it is to run as it does (onRun);
//   - one writer per key, and the leader's guard (gatedKV).
// And by Settle: places, states and what runs agree everywhere, all that can run does, and nothing is written any more.

// exclusives and the units that end by themselves are told by their names, whatever the story replaces in them.
const (
	exclusivePrefix = "x-"     // [X-Flota] Exclusive=true
	jobPrefix       = "job-"   // ends by itself
	flakyPrefix     = "flaky-" // crashes, and is restarted by its driver
	globalPrefix    = "global-"
)

func is(n unit.Name, prefix string) bool { return strings.HasPrefix(string(n), prefix) }

// ran is the last run of a unit on a machine.
type ran struct {
	run     uint64
	created int64 // revision that made the place it was started for; 0: there was none
}

// placed gives the place of a unit on the machine and the revision that made it; nil for none.
func (n *Node) placed(name unit.Name) (*unit.Place, int64) {
	e, ok, err := n.c.truth.Places.Get(context.Background(), store.PlaceKey(n.id, name), store.Read{})
	if err != nil || !ok {
		return nil, 0
	}
	return &e.Value, e.Created
}

// onRun is told when a unit's process begins and ends on this machine.
func (n *Node) onRun(name unit.Name, run uint64, started bool) {
	c := n.c
	place, created := n.placed(name)
	c.mu.Lock()
	if c.running[name] == nil {
		c.running[name] = map[int]uint64{}
	}
	if started {
		c.running[name][n.i] = run
	} else {
		delete(c.running[name], n.i)
	}
	twice := len(c.running[name]) > 1
	c.mu.Unlock()
	n.mu.Lock()
	last, power, halted := n.runs[name], n.power, n.halted
	if started {
		n.runs[name] = ran{run, created}
	}
	n.mu.Unlock()

	word := "ends"
	if started {
		word = "runs"
	}
	c.tell("m%d: %s %s (run %d)", n.i, name, word, run)
	asWanted := place != nil && place.Unit.Target == unit.Launched && place.Unit.Run == run && created == last.created
	byItself := is(name, jobPrefix) || is(name, flakyPrefix)
	switch {
	case started && twice && is(name, exclusivePrefix):
		c.fail("P4: the exclusive unit %s runs twice: %v", name, c.running[name])
	case is(name, exclusivePrefix) || !power || halted:
	case !started && asWanted && !byItself:
		c.fail("P2, P5: %s was ended on m%d though it is to run there", name, n.i)
	case started && asWanted && last.run == run && !is(name, flakyPrefix):
		c.fail("P5: %s was started again on m%d under the same run", name, n.i)
	}
}

// placeWatcher knows the places that are not leaving.
type placeWatcher map[unit.Name]map[machine.ID]bool

// watchStore checks each change of the places under prefix as it happens, and hears of removals, until End.
func (c *Cluster) watchStore(prefix string) {
	ctx, cancel := context.WithCancel(context.Background())
	c.endWatch, c.watched = cancel, make(chan struct{})
	known := placeWatcher{}
	updates := c.mem.Watch(ctx, prefix, 0)
	go func() {
		defer close(c.watched)
		for u := range updates {
			for _, e := range u.Events {
				if id, ok := c.truth.Removed.Match(e.Key); ok && !e.Deleted {
					c.byID(machine.ID(id)).gone()
				}
			}
			var places []store.Event
			for _, e := range u.Events {
				if _, ok := c.truth.Places.Match(e.Key); ok {
					places = append(places, e)
					c.watchPlace(known, e)
				}
			}
			for _, e := range places {
				_, name := c.placeKey(e.Key)
				if len(known[name]) > 1 && !is(name, globalPrefix) {
					c.fail("P4: at revision %d %s has %d places", u.Rev, name, len(known[name]))
				}
			}
		}
	}()
}

func (c *Cluster) placeKey(key string) (machine.ID, unit.Name) {
	sub, _ := c.truth.Places.Match(key)
	m, n, _ := strings.Cut(sub, "/")
	return machine.ID(m), unit.Name(n)
}

func (c *Cluster) watchPlace(known placeWatcher, e store.Event) {
	m, name := c.placeKey(e.Key)
	if known[name] == nil {
		known[name] = map[machine.ID]bool{}
	}
	delete(known[name], m)
	if e.Deleted {
		c.tell("%s is off %s (%d)", name, c.nameOf(m), e.Rev)
		return
	}
	p, err := c.truth.Places.Decode(e.Item)
	c.must(err)
	if n := c.byID(m); n != nil && n.witness {
		c.fail("%s, a witness, gets %s", n.name, name)
	}
	if !p.Value.Leaving {
		known[name][m] = true
	}
	c.tell("%s is on %s, %s, run %d, leaving %v (%d): %s", name, c.nameOf(m), p.Value.Unit.Target, p.Value.Unit.Run, p.Value.Leaving, e.Rev, p.Value.Reason)
}

func (c *Cluster) nameOf(id machine.ID) string {
	if n := c.byID(id); n != nil {
		return n.name
	}
	return id.Short()
}

// byID gives a machine, nil if there is none.
func (c *Cluster) byID(id machine.ID) *Node {
	for _, n := range c.all() {
		if n.id == id {
			return n
		}
	}
	return nil
}

// settleWithin bounds how long a cluster without trouble takes to come to rest: the brake (60 s after the last loss), a place
// that leaves (90 s), and a minute.
const settleWithin = scheduler.BrakeFor + scheduler.LeaveFor + time.Minute

// restEvery is how often it is looked whether the cluster is at rest: a look reads everything.
const restEvery = 2 * time.Second

// idleFor is how long nothing may be written after that.
const idleFor = 30 * time.Second

// Settle waits until the cluster is at rest, and checks that it stays so. Machines without power stay so.
func (c *Cluster) Settle() {
	c.t.Helper()
	within := settleWithin
	if c.council != nil {
		within += councilWithin
	}
	if !c.rest(within) {
		return
	}
	if c.council != nil {
		time.Sleep(c.council.calm())
		if !c.rest(within) {
			return
		}
	}
	time.Sleep(time.Second) // what is known may still be on its way to the store
	if written := c.idle(); len(written) > 0 {
		c.fail("%d writes in an idle cluster: %v", len(written), written)
	}
	if off := c.unrest(); off != "" {
		c.fail("the cluster left its rest by itself: %s", off)
	}
}

// rest waits until the cluster is at rest; false if it does not come to it.
func (c *Cluster) rest(within time.Duration) bool {
	c.t.Helper()
	for deadline := time.Now().Add(within); !c.Broken(); time.Sleep(restEvery) {
		off := c.unrest()
		if off == "" {
			return true
		}
		if time.Now().After(deadline) {
			c.fail("P1: the cluster has not come to rest after %s: %s", within, off)
		}
	}
	return false
}

// idle gives what is written while nothing is to be.
func (c *Cluster) idle() (written []string) {
	_, rev, err := c.mem.List(c.t.Context(), "none", store.Read{})
	c.must(err)
	ctx, cancel := context.WithTimeout(c.t.Context(), idleFor)
	defer cancel()
	for u := range c.mem.Watch(ctx, "", rev) {
		for _, e := range u.Events {
			written = append(written, fmt.Sprintf("%s (deleted: %v, %d)", e.Key, e.Deleted, e.Rev))
		}
	}
	return written
}

// picture is the store as it is, and the cluster as the scheduler sees it.
type picture struct {
	places map[machine.ID]map[unit.Name]unit.Place
	states map[machine.ID]map[unit.Name]unit.State
	alive  map[machine.ID]machine.Presence
	mind   scheduler.Cluster
}

func (c *Cluster) picture() picture {
	ctx, all := c.t.Context(), store.Read{}
	p := picture{map[machine.ID]map[unit.Name]unit.Place{}, map[machine.ID]map[unit.Name]unit.State{}, map[machine.ID]machine.Presence{}, scheduler.Cluster{Lease: agent.DefaultTTL}}
	for _, n := range c.all() {
		p.places[n.id], p.states[n.id] = map[unit.Name]unit.Place{}, map[unit.Name]unit.State{}
	}
	places, _, err := c.truth.Places.List(ctx, "", all)
	c.must(err)
	for _, e := range places {
		p.places[e.Value.Machine][e.Value.Unit.Name] = e.Value
		p.mind.Places = append(p.mind.Places, e.Value)
	}
	states, _, err := c.truth.States.List(ctx, "", all)
	c.must(err)
	for _, e := range states {
		p.states[e.Value.Machine][e.Value.Unit] = e.Value
	}
	alive, _, err := c.truth.Alive.List(ctx, "", all)
	c.must(err)
	for _, e := range alive {
		p.alive[e.Value.ID] = e.Value
	}
	machines, _, err := c.truth.Machines.List(ctx, "", all)
	c.must(err)
	for _, e := range machines {
		m := scheduler.Machine{Machine: e.Value}
		if a, ok := p.alive[e.Value.ID]; ok {
			m.Presence = &a
		}
		p.mind.Machines = append(p.mind.Machines, m)
	}
	units, _, err := c.truth.Units.List(ctx, "", all)
	c.must(err)
	for _, e := range units {
		p.mind.Units = append(p.mind.Units, scheduler.Prepare(e.Value))
	}
	p.mind.States = func(m machine.ID, n unit.Name) (unit.State, bool) { s, ok := p.states[m][n]; return s, ok }
	return p
}

// unrest says what is not as it should be in the end; "" when all is.
func (c *Cluster) unrest() string {
	p := c.picture()
	for _, n := range c.all() {
		if off := n.unrest(p); off != "" {
			return off
		}
	}
	if c.council != nil {
		if off := c.discord(); off != "" {
			return off
		}
	}
	if leaders, on := c.leaders(); leaders != 1 && on > 0 {
		return fmt.Sprintf("%d machines lead", leaders)
	}
	plan := scheduler.Make(p.mind, time.Now())
	if len(plan.Moves) > 0 {
		return fmt.Sprintf("there are %d moves to make, first %s %s: %s", len(plan.Moves), plan.Moves[0].Kind, plan.Moves[0].Unit, plan.Moves[0].Reason)
	}
	for _, w := range plan.Waiting {
		for _, u := range p.mind.Units {
			if u.Name == w.Unit && plain(u) && c.takers(p) > 0 {
				return fmt.Sprintf("%s asks for nothing and waits: %s", w.Unit, w.Reason)
			}
		}
	}
	return ""
}

// plain says whether a unit asks for nothing of its machine.
func plain(u scheduler.Unit) bool {
	f := u.Fleet
	return f.MachineID == "" && len(f.MachineOf)+len(f.Metadata)+len(f.Conflicts)+len(f.Replaces) == 0 && !f.Global && is(u.Name, "web")
}

// leaders counts the machines that lead, and those whose process runs.
func (c *Cluster) leaders() (leaders, on int) {
	for _, n := range c.all() {
		n.on(func(p *process) {
			on++
			if d := p.desk.Load(); d != nil && !d.Status().Since.IsZero() {
				leaders++
			}
		})
	}
	return leaders, on
}

// takers counts the machines that take units.
func (c *Cluster) takers(p picture) int {
	n := 0
	for _, m := range p.mind.Machines {
		if m.Presence != nil && !m.Drained && !m.Witness {
			n++
		}
	}
	return n
}

// unrest says what is not as it should be on this machine.
func (n *Node) unrest(p picture) string {
	n.mu.Lock()
	power, proc, removed := n.power, n.proc, n.removed
	n.mu.Unlock()
	a, present := p.alive[n.id]
	if removed {
		if present || len(p.places[n.id])+len(p.states[n.id]) > 0 {
			return n.name + " was removed and is not forgotten"
		}
		return ""
	}
	if !power || proc == nil {
		if present {
			return n.name + " is off and present"
		}
		return ""
	}
	if !present || a.Restarting || a.Leaving {
		return n.name + " is not fully there"
	}
	running := n.fake.Running()
	for name, place := range p.places[n.id] {
		s, ok := p.states[n.id][name]
		_, runs := running[name]
		switch {
		case place.Leaving:
			return fmt.Sprintf("%s is still leaving %s", name, n.name)
		case !ok:
			return fmt.Sprintf("%s has no state on %s", name, n.name)
		case s.Hash != place.Unit.Hash():
			return fmt.Sprintf("%s has old content on %s", name, n.name)
		case place.Unit.Target == unit.Launched && s.Run != place.Unit.Run:
			return fmt.Sprintf("%s runs under %d on %s, not %d", name, s.Run, n.name, place.Unit.Run)
		case place.Unit.Target != unit.Launched && (runs || s.Active == "active"):
			return fmt.Sprintf("%s runs on %s and is not to", name, n.name)
		case place.Unit.Target == unit.Launched && !runs && !is(name, jobPrefix) && !is(name, flakyPrefix):
			return fmt.Sprintf("%s does not run on %s: %s %s", name, n.name, s.Active, s.Message)
		case runs && is(name, jobPrefix):
			return fmt.Sprintf("%s has not ended on %s", name, n.name)
		case runs != (s.Active == "active"):
			return fmt.Sprintf("%s on %s is said to be %s, and runs: %v", name, n.name, s.Active, runs)
		}
	}
	for name := range p.states[n.id] {
		if _, ok := p.places[n.id][name]; !ok {
			return fmt.Sprintf("%s has a state and no place on %s", name, n.name)
		}
	}
	for name := range running {
		if _, ok := p.places[n.id][name]; !ok {
			return fmt.Sprintf("%s runs without a place on %s", name, n.name)
		}
	}
	return ""
}

// Want checks that count instances of name run (the unit of that name for 0), each on one machine.
func (c *Cluster) Want(name string, count int) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names(name, count) {
		if len(c.running[n]) != 1 {
			c.t.Errorf("%s runs on %d machines: %v", n, len(c.running[n]), c.running[n])
		}
	}
}

// Where gives the machines that the unit runs on.
func (c *Cluster) Where(name unit.Name) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var on []int
	for i := range c.running[name] {
		on = append(on, i)
	}
	return on
}
