package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// Make plans: what to change so that every unit that is wanted is on a machine that may run it. It changes nothing it is
// given, and gives the same plan whatever the order of c's slices.
func Make(c Cluster, now time.Time) Plan { return newPlanner(c, now).run() }

// none is no machine or no unit, where an index is meant.
const none = int32(-1)

// planner is the state of making one plan. Machines and units are known by their index in the order of ID and name.
type planner struct {
	now     time.Time
	c       Cluster
	balance bool // also move what would be placed better today
	naive   bool // pick by looking at every machine: what the quick way is tested against

	hosts  []host
	byID   map[machine.ID]int32
	brake  *Brake
	zones  int // number of zones
	items  []item
	byName names

	globals    []int32           // units that are Global and wanted
	peered     []int32           // units with MachineOf that are wanted, not global
	pods       map[int32][]int32 // root unit -> units that MachineOf ties together, only where there are several
	root       map[int32]int32   // unit -> its root in pods
	patterns   []glob            // of all Conflicts and Replaces, each once
	here       [][]stay          // machine -> units whose place there counts
	twice      []*unit.Place     // second places of units, which should never be
	leaving    []leftover        // leaving places that stay for now
	everywhere []leftover        // stored places of Global units
	dropped    map[drop]bool     // places of Global units that are removed

	queue   []pod
	stopped map[int32]string // exclusive units, and those tied to them, that have to stop before they go on: why
	seq     int32            // of the last decision
	notes   []note           // the first is empty
	gen     int              // grows whenever something gets free on a machine that takes new units
	spreads map[unit.Name]*spread

	classes     map[string]*class  // by Unit.wants
	every       []int32            // machines that take new units; with labels and ids nil until needed
	labels      map[string][]int32 // "key\x00value" -> those that have it
	ids         map[string][]int32 // ID, short ID and name -> those called so
	hopeless    map[spec]bool      // fits nowhere, at hopelessGen
	hopelessGen int
	said        map[spec]string // explanations, once everything is decided
	kick        []int32         // result of able: the units that have to leave for the one that is looked at
	aside       []entry         // scratch of fromHeap

	plan Plan
}

// host is a machine while planning.
type host struct {
	*Machine
	name   string
	labels map[string]string
	zone   int32
	there  bool      // has a presence
	takes  bool      // takes new units
	held   time.Time // the brake keeps units here until then; zero: it does not
	size   machine.Size
	used   unit.Needs // of everything counted here
	rank   unit.Needs // the same for ranking: unknown needs have nominal ones, leaving units do not count
	load   int64      // how full, for ranking; lower is better
	n      int64      // units counted for ranking
	on     []int32    // units counted here
	guards []int32    // those of them that have Conflicts or Replaces
	best   string     // see bestReason
}

// item is a unit while planning. Some fields of the unit are here again, because most units are looked at only for these.
type item struct {
	u       *Unit
	current *unit.Place // the stored place that counts: not leaving, the kept one of several
	name    unit.Name
	head    uint64 // of name
	needs   unit.Needs
	options *unit.Option // the first option of the unit; with the next three, what a place is compared with first
	run     uint64
	target  unit.Target
	count   int32 // of options
	note    int32 // in planner.notes
	from    int32 // the machine of current, or none
	home    int32 // the machine it will be on, or none; not used for Global units
	seq     int32 // when home was decided; the order of the moves
	wanted  bool  // it is to be on a machine
	bad     bool  // its options cannot be read
	global  bool  // it runs on every machine that fits
	picky   bool  // it asks for a MachineID or metadata
	guards  bool  // it has Conflicts or Replaces
	counted bool  // it is counted on from, though it may have to leave
	stale   bool  // current may differ from the unit as it is stored
	gentle  bool  // it stays on from if no other machine takes it
}

// note is what is to be said of a unit. Notes are never changed, so that a decision can be undone by taking back the index.
type note struct {
	why    string // why it has to leave the machine it is on
	reason string // why it will be on its new machine
}

// setWhy notes why a unit has to leave.
func (p *planner) setWhy(i int32, why string) {
	p.notes = append(p.notes, note{why, p.notes[p.items[i].note].reason})
	p.items[i].note = int32(len(p.notes) - 1)
}

// setReason notes why a unit will be on its new machine.
func (p *planner) setReason(i int32, reason string) {
	p.notes = append(p.notes, note{p.whyOf(i), reason})
	p.items[i].note = int32(len(p.notes) - 1)
}

func (p *planner) whyOf(i int32) string { return p.notes[p.items[i].note].why }

// leftover is a stored place that is leaving.
type leftover struct {
	unit  int32
	host  int32
	place *unit.Place
}

// newPlanner sorts and indexes the cluster.
func newPlanner(c Cluster, now time.Time) *planner {
	p := &planner{c: c, now: now, classes: map[string]*class{}, spreads: map[unit.Name]*spread{}, hopeless: map[spec]bool{},
		stopped: map[int32]string{}, notes: make([]note, 1), dropped: map[drop]bool{}, said: map[spec]string{}}
	p.indexMachines()
	p.indexUnits()
	return p
}

// run makes the plan.
func (p *planner) run() Plan {
	p.readPlaces()
	p.keep()
	p.finish()
	p.makeQueue()
	p.placeAll()
	if p.balance {
		p.rebalance()
	}
	p.explainGlobals()
	p.emit()
	slices.SortStableFunc(p.plan.Waiting, func(a, b Waiting) int { return cmp.Compare(a.Unit, b.Unit) })
	p.plan.Brake = p.brake
	return p.plan
}

func (p *planner) indexMachines() {
	lease := p.c.Lease
	if lease == 0 {
		lease = DefaultLease
	}
	all := slices.Clone(p.c.Machines)
	slices.SortFunc(all, func(a, b Machine) int { return cmp.Compare(a.ID, b.ID) })
	all = slices.CompactFunc(all, func(a, b Machine) bool { return a.ID == b.ID })
	held, brake := findBrake(all, lease, p.now)
	p.brake = brake
	p.hosts = make([]host, len(all))
	p.byID = make(map[machine.ID]int32, len(all))
	zones := map[string]int32{}
	for i := range all {
		h := &p.hosts[i]
		h.Machine, h.held = &all[i], held[i]
		p.byID[h.ID] = int32(i)
		if !h.held.IsZero() {
			p.again(h.held)
		}
		h.name = h.Name
		if h.Presence != nil {
			h.there, h.size = true, h.Presence.Size
			if h.labels = h.Presence.Labels; len(h.Labels) > 0 {
				h.labels = machine.Labels(*h.Presence, h.Machine.Machine)
			}
			h.takes = !h.Drained && !h.Witness && !h.Presence.Leaving
			h.name = cmp.Or(h.name, h.Presence.Name)
		}
		h.name = cmp.Or(h.name, h.ID.Short())
		zone, ok := zones[h.labels["zone"]]
		if !ok {
			zone = int32(len(zones))
			zones[h.labels["zone"]] = zone
		}
		h.zone = zone
		h.weigh()
	}
	p.zones = len(zones)
}

func (p *planner) indexUnits() {
	refs := make([]*Unit, len(p.c.Units))
	sorted := true
	for i := range p.c.Units {
		refs[i] = &p.c.Units[i]
		sorted = sorted && (i == 0 || refs[i-1].Name < refs[i].Name)
	}
	if !sorted {
		slices.SortFunc(refs, func(a, b *Unit) int { return strings.Compare(string(a.Name), string(b.Name)) })
	}
	p.items = make([]item, 0, len(refs))
	p.byName = newNames(len(refs))
	seen := map[string]bool{}
	for i, u := range refs {
		if i > 0 && u.Name == refs[i-1].Name {
			continue
		}
		index := int32(len(p.items))
		p.byName.add(u.Name, index)
		guards := len(u.conflicts) > 0 || len(u.replaces) > 0
		var first *unit.Option
		if len(u.Options) > 0 {
			first = &u.Options[0]
		}
		p.items = append(p.items, item{u: u, options: first, count: int32(len(u.Options)), run: u.Run, target: u.Target, name: u.Name, head: head(string(u.Name)), needs: u.Needs, from: none, home: none,
			wanted: u.wanted(), global: u.Fleet.Global && u.Bad == "", bad: u.Bad != "", picky: u.wants != "", guards: guards})
		p.learn(seen, u.conflicts)
		p.learn(seen, u.replaces)
		if !u.wanted() || u.Bad != "" {
			continue
		}
		if u.Fleet.Global {
			p.globals = append(p.globals, index)
		} else if len(u.Fleet.MachineOf) > 0 {
			p.peered = append(p.peered, index)
		}
	}
	p.tie()
}

// learn adds globs to those that units have.
func (p *planner) learn(seen map[string]bool, all []glob) {
	for _, g := range all {
		if !seen[g.pattern] {
			seen[g.pattern] = true
			p.patterns = append(p.patterns, g)
		}
	}
}

// tie finds the pods: units that MachineOf ties together, over any number of steps.
func (p *planner) tie() {
	p.pods, p.root = map[int32][]int32{}, map[int32]int32{}
	parent := map[int32]int32{}
	find := func(i int32) int32 {
		for {
			up, ok := parent[i]
			if !ok || up == i {
				return i
			}
			i = up
		}
	}
	for _, i := range p.peered {
		for _, peer := range p.items[i].u.Fleet.MachineOf {
			t, ok := p.find(peer)
			if !ok || t == i || !p.items[t].movable() {
				continue
			}
			a, b := find(i), find(t)
			parent[max(a, b)] = min(a, b)
			for _, x := range []int32{i, t} {
				if _, ok := parent[x]; !ok {
					parent[x] = x
				}
			}
		}
	}
	for i := range parent {
		r := find(i)
		p.root[i] = r
		p.pods[r] = append(p.pods[r], i)
	}
	for _, members := range p.pods {
		slices.Sort(members)
	}
}

// movable says whether the unit is one that is wanted on exactly one machine.
func (it *item) movable() bool { return it.wanted && !it.global && !it.bad }

// again asks to plan again at t though nothing changed.
func (p *planner) again(t time.Time) {
	if p.plan.Next.IsZero() || t.Before(p.plan.Next) {
		p.plan.Next = t
	}
}

// move adds a move to the plan.
func (p *planner) move(m Move) { p.plan.Moves = append(p.plan.Moves, m) }

// wait says why a unit is not where it should be.
func (p *planner) wait(i int32, reason string) {
	p.plan.Waiting = append(p.plan.Waiting, Waiting{Unit: p.items[i].u.Name, Reason: reason})
}
