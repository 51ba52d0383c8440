package view

import (
	"strings"
	"time"

	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/unit"
)

// leaderKey is where store.Campaign keeps the leader's machine ID.
const leaderKey = store.Prefix + "leader"

// Reset implements store.Follower. What is different from before is told as events, but for the first time.
func (v *View) Reset(items []store.Item, rev int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now, first := time.Now(), v.cluster.Rev == 0
	t := &teller{c: &v.cluster, now: now, ring: &v.events, quiet: first}
	seen := make(map[string]bool, len(items))
	for _, it := range items {
		seen[it.Key] = true
		v.put(t, it)
	}
	for _, key := range v.keys() {
		if !seen[key] {
			v.remove(t, key)
		}
	}
	v.advance(t, rev)
}

// Apply implements store.Follower.
func (v *View) Apply(u store.Update) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := &teller{c: &v.cluster, now: time.Now(), ring: &v.events}
	for _, e := range u.Events {
		if e.Deleted {
			v.remove(t, e.Key)
		} else {
			v.put(t, e.Item)
		}
	}
	v.advance(t, u.Rev)
}

// advance ends an update: the view is at rev now. The lock is held.
func (v *View) advance(t *teller, rev int64) {
	t.flush()
	v.cluster.Rev = rev
	if t.units {
		v.cluster.UnitsRev = rev
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// keys gives the full keys of all that is known. The lock is held.
func (v *View) keys() []string {
	c, s := &v.cluster, v.opts.Store
	var keys []string
	for id := range c.Machines {
		keys = append(keys, s.Machines.Prefix()+string(id))
	}
	for id := range c.Alive {
		keys = append(keys, s.Alive.Prefix()+string(id))
	}
	for name := range c.Units {
		keys = append(keys, s.Units.Prefix()+string(name))
	}
	for id, places := range c.Places {
		for name := range places {
			keys = append(keys, s.Places.Prefix()+store.PlaceKey(id, name))
		}
	}
	for id, states := range c.States {
		for name := range states {
			keys = append(keys, s.States.Prefix()+store.PlaceKey(id, name))
		}
	}
	if c.Leader != "" {
		keys = append(keys, leaderKey)
	}
	return keys
}

// put takes one item in. The lock is held.
func (v *View) put(t *teller, it store.Item) {
	c, s := &v.cluster, v.opts.Store
	if it.Key == leaderKey {
		id := machine.ID(it.Value)
		if id != c.Leader {
			c.Leader = id
			t.leads(id)
		}
		return
	}
	if key, ok := s.Machines.Match(it.Key); ok {
		put(v, s.Machines, it, c.Machines, machine.ID(key), t.machine)
		return
	}
	if key, ok := s.Alive.Match(it.Key); ok {
		put(v, s.Alive, it, c.Alive, machine.ID(key), t.alive)
		return
	}
	if key, ok := s.Units.Match(it.Key); ok {
		t.units = true
		put(v, s.Units, it, c.Units, unit.Name(key), t.unit)
		return
	}
	if key, ok := s.Places.Match(it.Key); ok {
		if id, name, ok := split(key); ok {
			put(v, s.Places, it, inner(c.Places, id), name, t.place)
		}
		return
	}
	if key, ok := s.States.Match(it.Key); ok {
		if id, name, ok := split(key); ok {
			put(v, s.States, it, inner(c.States, id), name, t.state)
		}
	}
}

// put reads the item into its map and tells the difference; old is nil for a new key. What cannot be read stays what it
// was, so that one broken value changes nothing.
func put[K comparable, T any](v *View, table store.Table[T], it store.Item, into map[K]store.Entry[T], key K, tell func(old *T, now T)) {
	old, had := into[key]
	if had && old.Rev == it.Rev {
		return
	}
	e, err := table.Decode(it)
	if err != nil {
		v.opts.Log.Error("a stored value cannot be read; leaving it as it was", "key", it.Key, "err", err)
		return
	}
	into[key] = e
	if had {
		tell(&old.Value, e.Value)
	} else {
		tell(nil, e.Value)
	}
}

// remove forgets a key. The lock is held.
func (v *View) remove(t *teller, full string) {
	c, s := &v.cluster, v.opts.Store
	if full == leaderKey {
		c.Leader = ""
		return
	}
	if key, ok := s.Machines.Match(full); ok {
		drop(c.Machines, machine.ID(key), t.removed)
		return
	}
	if key, ok := s.Alive.Match(full); ok {
		drop(c.Alive, machine.ID(key), t.gone)
		return
	}
	if key, ok := s.Units.Match(full); ok {
		t.units = true
		drop(c.Units, unit.Name(key), t.destroyed)
		return
	}
	if key, ok := s.Places.Match(full); ok {
		if id, name, ok := split(key); ok {
			drop(c.Places[id], name, t.unplaced)
			if len(c.Places[id]) == 0 {
				delete(c.Places, id)
			}
		}
		return
	}
	if key, ok := s.States.Match(full); ok {
		if id, name, ok := split(key); ok {
			drop(c.States[id], name, func(unit.State) {})
			if len(c.States[id]) == 0 {
				delete(c.States, id)
			}
		}
	}
}

// drop deletes the key and tells of it if it was there.
func drop[K comparable, T any](from map[K]store.Entry[T], key K, tell func(T)) {
	if old, had := from[key]; had {
		delete(from, key)
		tell(old.Value)
	}
}

// split parts the key of a place or state; ok is false if it has not the form <machine>/<unit>.
func split(key string) (machine.ID, unit.Name, bool) {
	id, name, ok := strings.Cut(key, "/")
	return machine.ID(id), unit.Name(name), ok
}

// inner gives the map of one machine, made if need be.
func inner[T any](of map[machine.ID]map[unit.Name]store.Entry[T], id machine.ID) map[unit.Name]store.Entry[T] {
	m := of[id]
	if m == nil {
		m = map[unit.Name]store.Entry[T]{}
		of[id] = m
	}
	return m
}
