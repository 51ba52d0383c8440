package api

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/unit"
)

// How long a read waits.
const (
	freshPatience = 1500 * time.Millisecond // for a quorum; DESIGN: an election takes 1 to 2 s
	stalePatience = 1500 * time.Millisecond // for the local copy
	// Soon after a read found no quorum others wait less for one, so that a command of several requests is still quick.
	lostFor       = 3 * time.Second
	briefPatience = 200 * time.Millisecond
)

// cluster is what the store holds, as one answer sees it: of one revision if whole was read.
type cluster struct {
	machines map[machine.ID]machine.Machine
	alive    map[machine.ID]machine.Presence
	votes    map[machine.ID]machine.Vote
	units    map[unit.Name]unit.Unit
	places   map[unit.Name][]unit.Place // by machine; those that are not leaving first
	states   map[unit.Name][]unit.State // by machine
	leader   machine.ID
	stale    bool // read without a quorum
	plan     *scheduler.Plan
	prepared map[unit.Name]scheduler.Unit
}

func newCluster() *cluster {
	return &cluster{machines: map[machine.ID]machine.Machine{}, alive: map[machine.ID]machine.Presence{}, votes: map[machine.ID]machine.Vote{},
		units: map[unit.Name]unit.Unit{}, places: map[unit.Name][]unit.Place{}, states: map[unit.Name][]unit.State{},
		prepared: map[unit.Name]scheduler.Unit{}}
}

// read calls f with a linearizable read, and if no quorum answers in time once more with a stale one. It gives whether the
// answer may be old.
func (s *Server) read(ctx context.Context, f func(ctx context.Context, r store.Read) error) (stale bool, err error) {
	patience := freshPatience
	if time.Since(time.UnixMilli(s.lost.Load())) < lostFor {
		patience = briefPatience
	}
	try, cancel := context.WithTimeout(ctx, patience)
	err = f(try, store.Read{})
	cancel()
	if err == nil {
		s.lost.Store(0)
		return false, nil
	}
	if ctx.Err() != nil || !unavailable(err) {
		return false, err
	}
	s.lost.Store(time.Now().UnixMilli())
	try, cancel = context.WithTimeout(ctx, stalePatience)
	defer cancel()
	if again := f(try, store.Read{Stale: true}); again != nil {
		if ctx.Err() == nil && unavailable(again) {
			return true, s.noQuorum(ctx, nil)
		}
		return true, again
	}
	return true, nil
}

// unavailable says whether err means that no quorum answered.
func unavailable(err error) bool {
	return fault.Is(err, fault.Unavailable) || fault.Is(err, fault.TimedOut) || errors.Is(err, context.DeadlineExceeded)
}

// whole reads everything that the store holds, as of one revision.
func (s *Server) whole(ctx context.Context) (*cluster, error) {
	var c *cluster
	stale, err := s.read(ctx, func(ctx context.Context, r store.Read) error {
		items, _, err := s.Store.KV.List(ctx, store.Prefix, r)
		if err != nil {
			return err
		}
		c = newCluster()
		for _, it := range items {
			c.take(s.Store, it)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.stale = stale
	c.sort()
	s.roles(ctx, c)
	return c, nil
}

// take adds one item. What cannot be read is left out.
func (c *cluster) take(st *store.Store, it store.Item) {
	if it.Key == store.Prefix+"leader" {
		c.leader = machine.ID(it.Value)
	} else if _, ok := st.Machines.Match(it.Key); ok {
		if e, err := st.Machines.Decode(it); err == nil {
			c.machines[e.Value.ID] = e.Value
		}
	} else if _, ok := st.Alive.Match(it.Key); ok {
		if e, err := st.Alive.Decode(it); err == nil {
			c.alive[e.Value.ID] = e.Value
		}
	} else if _, ok := st.Voters.Match(it.Key); ok {
		if e, err := st.Voters.Decode(it); err == nil {
			c.votes[e.Value.Machine] = e.Value
		}
	} else if _, ok := st.Units.Match(it.Key); ok {
		if e, err := st.Units.Decode(it); err == nil {
			c.units[e.Value.Name] = e.Value
		}
	} else if _, ok := st.Places.Match(it.Key); ok {
		if e, err := st.Places.Decode(it); err == nil {
			c.places[e.Value.Unit.Name] = append(c.places[e.Value.Unit.Name], e.Value)
		}
	} else if _, ok := st.States.Match(it.Key); ok {
		if e, err := st.States.Decode(it); err == nil {
			c.states[e.Value.Unit] = append(c.states[e.Value.Unit], e.Value)
		}
	}
}

// sort puts places and states in their order, and forgets records of machines that never joined: fleet's API may set labels
// of a machine before it comes.
func (c *cluster) sort() {
	for _, ps := range c.places {
		slices.SortFunc(ps, func(a, b unit.Place) int {
			if a.Leaving != b.Leaving {
				if a.Leaving {
					return 1
				}
				return -1
			}
			return cmp.Compare(a.Machine, b.Machine)
		})
	}
	for _, ss := range c.states {
		slices.SortFunc(ss, func(a, b unit.State) int { return cmp.Compare(a.Machine, b.Machine) })
	}
	for id, m := range c.machines {
		if _, there := c.alive[id]; m.Name == "" && !there {
			delete(c.machines, id)
		}
	}
	for id, p := range c.alive {
		m := c.machines[id]
		if m.ID == "" {
			m.ID = id
		}
		if m.Name == "" {
			m.Name = p.Name
		}
		c.machines[id] = m
	}
}

// atOnce is how many keys of a unit are asked for at the same time: there are two for each machine.
const atOnce = 32

// one reads all machines and a single unit with its places and states, key by key; the unit is missing in c if there is none. What it costs
// grows with the number of machines, and not with that of units.
func (s *Server) one(ctx context.Context, name unit.Name) (*cluster, error) {
	var c *cluster
	stale, err := s.read(ctx, func(ctx context.Context, r store.Read) error {
		c = newCluster()
		return s.readOne(ctx, r, name, c)
	})
	if err != nil {
		return nil, err
	}
	c.stale = stale
	c.sort()
	return c, nil
}

// readOne fills c for one.
func (s *Server) readOne(ctx context.Context, r store.Read, name unit.Name, c *cluster) error {
	if err := s.readMachines(ctx, r, c); err != nil {
		return err
	}
	ids := slices.Sorted(maps.Keys(c.machines))
	for id := range c.alive {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	keys := []string{s.Store.Units.Prefix() + string(name)}
	for _, id := range ids {
		keys = append(keys, s.Store.Places.Prefix()+store.PlaceKey(id, name), s.Store.States.Prefix()+store.PlaceKey(id, name))
	}
	found := make([]*store.Item, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, key := range keys {
		g.Go(func() error {
			it, ok, err := s.Store.KV.Get(ctx, key, r)
			if ok && err == nil {
				found[i] = &it
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, it := range found {
		if it != nil {
			c.take(s.Store, *it)
		}
	}
	return nil
}

// readMachines reads the machines, their presences and the leader.
func (s *Server) readMachines(ctx context.Context, r store.Read, c *cluster) error {
	g, ctx := errgroup.WithContext(ctx)
	var got [3][]store.Item
	for i, prefix := range []string{s.Store.Machines.Prefix(), s.Store.Alive.Prefix(), s.Store.Voters.Prefix()} {
		g.Go(func() (err error) {
			got[i], _, err = s.Store.KV.List(ctx, prefix, r)
			return err
		})
	}
	g.Go(func() (err error) {
		c.leader, err = s.Store.Leader(ctx, r)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, items := range got {
		for _, it := range items {
			c.take(s.Store, it)
		}
	}
	return nil
}

// name is what people call the machine.
func (c *cluster) name(id machine.ID) string {
	if m := c.machines[id]; m.Name != "" {
		return m.Name
	}
	return id.Short()
}

// find gives the machine with the name, the ID or the only one whose ID starts with ref. fault.NotFound, or fault.Invalid if
// several do.
func (c *cluster) find(ref string) (machine.Machine, error) {
	var hits []machine.Machine
	for id, m := range c.machines {
		if m.Name == ref || string(id) == ref {
			return m, nil
		}
		if ref != "" && strings.HasPrefix(string(id), ref) {
			hits = append(hits, m)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return machine.Machine{}, fault.WithHint(fault.New(fault.NotFound, "there is no machine %q", clip(ref)), "flota list-machines shows them")
	}
	return machine.Machine{}, fault.New(fault.Invalid, "%q is the beginning of the ids of %d machines", clip(ref), len(hits))
}

// sorted gives the machines by name.
func (c *cluster) sorted() []machine.Machine {
	return slices.SortedFunc(maps.Values(c.machines), func(a, b machine.Machine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

// splitPlace parts the key of a place or a state.
func splitPlace(key string) (machine.ID, unit.Name) {
	id, name, _ := strings.Cut(key, "/")
	return machine.ID(id), unit.Name(name)
}

// under gives the inner map of a name, made if need be.
func under[T any](of map[unit.Name]map[machine.ID]T, name unit.Name) map[machine.ID]T {
	m := of[name]
	if m == nil {
		m = map[machine.ID]T{}
		of[name] = m
	}
	return m
}
