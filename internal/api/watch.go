package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/unit"
)

// Pauses of a watch: changes that come together are sent together, and why units wait is thought about now and then only.
const (
	watchPause = 20 * time.Millisecond
	thinkPause = 250 * time.Millisecond
)

// watch answers GET /v1/watch.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	t := &tracker{st: s.Store, wake: make(chan struct{}, 1), failed: make(chan error, 1)}
	var done sync.WaitGroup
	done.Add(1)
	go func() { // ends with ctx
		defer done.Done()
		_ = store.Follow(ctx, s.Store.KV, store.Prefix, t, t.trouble)
	}()
	defer done.Wait()
	defer cancel()
	out := newWriter(w)
	return s.finish(w, r, out, s.tellUnits(ctx, out, t))
}

// tracker keeps everything that the store holds, and which units changed since they were last sent.
type tracker struct {
	st     *store.Store
	wake   chan struct{} // holds one token when something changed
	failed chan error    // the first error before anything was read

	mu       sync.Mutex // guards the fields below
	ready    bool       // Reset was called
	machines map[machine.ID]machine.Machine
	alive    map[machine.ID]machine.Presence
	leader   machine.ID
	units    map[unit.Name]unit.Unit
	places   map[unit.Name]map[machine.ID]unit.Place
	states   map[unit.Name]map[machine.ID]unit.State
	dirty    map[unit.Name]bool
}

// trouble tells the stream of an error while nothing was read yet; later ones pass unseen, since the units stay as last known.
func (t *tracker) trouble(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && !t.ready {
		select {
		case t.failed <- err:
		default:
		}
	}
}

// Reset implements store.Follower.
func (t *tracker) Reset(items []store.Item, _ int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.units
	t.ready = true
	t.machines, t.alive = map[machine.ID]machine.Machine{}, map[machine.ID]machine.Presence{}
	t.units = map[unit.Name]unit.Unit{}
	t.places, t.states = map[unit.Name]map[machine.ID]unit.Place{}, map[unit.Name]map[machine.ID]unit.State{}
	t.dirty = map[unit.Name]bool{}
	for _, it := range items {
		t.put(it)
	}
	for name := range old {
		t.dirty[name] = true
	}
	t.ring()
}

// Apply implements store.Follower.
func (t *tracker) Apply(u store.Update) {
	if len(u.Events) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range u.Events {
		if e.Deleted {
			t.drop(e.Key)
		} else {
			t.put(e.Item)
		}
	}
	t.ring()
}

// ring wakes the stream.
func (t *tracker) ring() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// put takes one item in. The lock is held.
func (t *tracker) put(it store.Item) {
	if it.Key == store.Prefix+"leader" {
		t.leader = machine.ID(it.Value)
	} else if _, ok := t.st.Machines.Match(it.Key); ok {
		if e, err := t.st.Machines.Decode(it); err == nil {
			t.machines[e.Value.ID] = e.Value
		}
	} else if _, ok := t.st.Alive.Match(it.Key); ok {
		if e, err := t.st.Alive.Decode(it); err == nil {
			t.alive[e.Value.ID] = e.Value
		}
	} else if key, ok := t.st.Units.Match(it.Key); ok {
		if e, err := t.st.Units.Decode(it); err == nil {
			t.units[unit.Name(key)] = e.Value
			t.dirty[unit.Name(key)] = true
		}
	} else if key, ok := t.st.Places.Match(it.Key); ok {
		if e, err := t.st.Places.Decode(it); err == nil {
			id, name := splitPlace(key)
			under(t.places, name)[id] = e.Value
			t.dirty[name] = true
		}
	} else if key, ok := t.st.States.Match(it.Key); ok {
		if e, err := t.st.States.Decode(it); err == nil {
			id, name := splitPlace(key)
			under(t.states, name)[id] = e.Value
			t.dirty[name] = true
		}
	}
}

// drop forgets one key. The lock is held.
func (t *tracker) drop(full string) {
	if full == store.Prefix+"leader" {
		t.leader = ""
	} else if key, ok := t.st.Machines.Match(full); ok {
		delete(t.machines, machine.ID(key))
	} else if key, ok := t.st.Alive.Match(full); ok {
		delete(t.alive, machine.ID(key))
	} else if key, ok := t.st.Units.Match(full); ok {
		delete(t.units, unit.Name(key))
		t.dirty[unit.Name(key)] = true
	} else if key, ok := t.st.Places.Match(full); ok {
		id, name := splitPlace(key)
		delete(t.places[name], id)
		t.dirty[name] = true
	} else if key, ok := t.st.States.Match(full); ok {
		id, name := splitPlace(key)
		delete(t.states[name], id)
		t.dirty[name] = true
	}
}

// take gives what is known of the units that changed (all: of all units), and which those are. ok is false while nothing has been read.
func (t *tracker) take(all bool) (c *cluster, changed []unit.Name, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ready {
		return nil, nil, false
	}
	changed = slices.Sorted(maps.Keys(t.dirty))
	t.dirty = map[unit.Name]bool{}
	c = newCluster()
	c.machines, c.alive, c.leader = maps.Clone(t.machines), maps.Clone(t.alive), t.leader
	add := func(name unit.Name) {
		if u, ok := t.units[name]; ok {
			c.units[name] = u
		}
		for _, p := range t.places[name] {
			c.places[name] = append(c.places[name], p)
		}
		for _, st := range t.states[name] {
			c.states[name] = append(c.states[name], st)
		}
	}
	if all {
		for name := range t.units {
			add(name)
		}
	} else {
		for _, name := range changed {
			add(name)
		}
	}
	c.sort()
	return c, changed, true
}

// tellUnits writes all units, and then those that change.
func (s *Server) tellUnits(ctx context.Context, out *writer, t *tracker) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	told := teller{out: out, sent: map[unit.Name]bool{}, missing: map[unit.Name]bool{}, waiting: map[unit.Name]string{}}
	think := time.NewTimer(thinkPause)
	defer think.Stop()
	for {
		select {
		case <-t.wake:
			if c, changed, ok := t.take(false); ok {
				if err := told.tell(c, changed); err != nil {
					return err
				}
			}
			think.Reset(thinkPause)
			if !rest(ctx, watchPause) {
				return ctx.Err()
			}
		case <-think.C:
			if len(told.missing) == 0 {
				continue
			}
			c, changed, ok := t.take(true)
			if !ok {
				continue
			}
			if err := told.think(c, changed, s.waiting(c)); err != nil {
				return err
			}
		case err := <-t.failed:
			if unavailable(err) {
				return s.noQuorum(ctx, nil)
			}
			return fault.Wrap(fault.KindOf(err), err, "watch the units")
		case <-beat.C:
			if err := out.beat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rest waits; false when ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// teller is what one stream of units has been told.
type teller struct {
	out     *writer
	ready   bool
	sent    map[unit.Name]bool   // units that the client knows
	missing map[unit.Name]bool   // units that may lack a place
	waiting map[unit.Name]string // why they wait, as last sent
}

// tell sends the units that changed.
func (t *teller) tell(c *cluster, changed []unit.Name) error {
	for _, name := range changed {
		if err := t.one(c, name); err != nil {
			return err
		}
	}
	if !t.ready {
		t.ready = true
		if err := t.out.put(eventReady, 0, struct{}{}); err != nil {
			return err
		}
	}
	return t.out.flush()
}

// one sends a unit, or that it is gone.
func (t *teller) one(c *cluster, name unit.Name) error {
	if _, ok := c.units[name]; !ok {
		delete(t.missing, name)
		delete(t.waiting, name)
		if !t.sent[name] {
			return nil // what is left of a unit that was deleted before
		}
		delete(t.sent, name)
		return t.out.put(eventDeleted, 0, Unit{Unit: unit.Unit{Name: name}})
	}
	if c.misses(name) {
		t.missing[name] = true
	} else {
		delete(t.missing, name)
		delete(t.waiting, name)
	}
	t.sent[name] = true
	return t.out.put(eventUnit, 0, c.unitOf(name, t.waiting[name]))
}

// think sends the units whose reason to wait is another now.
func (t *teller) think(c *cluster, changed []unit.Name, waiting map[unit.Name]string) error {
	for name := range t.missing {
		if waiting[name] != t.waiting[name] {
			t.waiting[name] = waiting[name]
			if !slices.Contains(changed, name) {
				changed = append(changed, name)
			}
		}
	}
	return t.tell(c, changed)
}
