package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/unit"
)

// cacheWait is how long the store is waited for before the cached places are acted on. 3 s: a store that is there answers
// sooner, and what the cache starts may have been placed elsewhere meanwhile.
const cacheWait = 3 * time.Second

// gather is how long changes of places are collected before they are cached and acted on: 5 ms make one write of the cache
// out of a burst.
const gather = 5 * time.Millisecond

// source says where the wishes come from.
type source int

const (
	fromNowhere source = iota
	fromCache          // starts only, see allowed
	fromStore
)

// String gives the word shown in Status.
func (s source) String() string { return [...]string{"", "cache", "store"}[s] }

// record says whether the store has this machine's record.
type record int

const (
	recordUnknown record = iota
	recordPresent
	recordMissing
)

// wish is a unit's place here.
type wish struct {
	place     unit.Place
	rev       int64 // of its key; 0 from the cache
	hash      string
	exclusive bool
}

// same says whether the two wish for the same.
func (w wish) same(o wish) bool {
	return w.hash == o.hash && w.place.Unit.Run == o.place.Unit.Run && w.place.Unit.Target == o.place.Unit.Target &&
		w.place.Leaving == o.place.Leaving
}

// wishes is what is known of the places of this machine. The agent's lock guards it.
type wishes struct {
	source source
	list   map[unit.Name]wish // acted on
	record record
	member bool // the record was there once, or the last agent had places: that it is missing is not how a new machine begins

	stored map[unit.Name]wish // as the store has them, or nil when it has not answered yet
	rev    int64              // of stored

	left    []unit.Place // what the last agent cached
	hadLeft bool         // it cached something
}

// makeWish reads a place once.
func makeWish(p unit.Place, rev int64) wish {
	own, err := p.Unit.File().Flota(p.Unit.Name)
	return wish{place: p, rev: rev, hash: p.Unit.Hash(), exclusive: err == nil && own.Exclusive}
}

// placesFollower takes in what store.Follow reads of this machine's places.
type placesFollower struct{ a *Agent }

// followPlaces keeps wanted.stored until ctx ends.
func (a *Agent) followPlaces(ctx context.Context) {
	prefix := a.opts.Store.Places.Prefix() + store.PlaceKey(a.opts.ID, "")
	_ = store.Follow(ctx, a.opts.Store.KV, prefix, placesFollower{a}, func(err error) { a.noteStore("follow the places", err) })
}

// Reset implements store.Follower.
func (f placesFollower) Reset(items []store.Item, rev int64) {
	stored := make(map[unit.Name]wish, len(items))
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	for _, it := range items {
		f.put(stored, it)
	}
	f.a.wanted.stored, f.a.wanted.rev = stored, rev
	poke(f.a.fresh)
}

// Apply implements store.Follower.
func (f placesFollower) Apply(u store.Update) {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	for _, e := range u.Events {
		if e.Deleted {
			delete(f.a.wanted.stored, f.name(e.Key))
		} else {
			f.put(f.a.wanted.stored, e.Item)
		}
	}
	f.a.wanted.rev = u.Rev
	poke(f.a.fresh)
}

// name is the unit of a place's full key.
func (f placesFollower) name(key string) unit.Name {
	sub, _ := f.a.opts.Store.Places.Match(key)
	return unit.Name(sub[min(len(sub), len(f.a.opts.ID)+1):])
}

// put reads a place. One that cannot be read stays what it was known as, wherever from. The lock is held.
func (f placesFollower) put(into map[unit.Name]wish, it store.Item) {
	name := f.name(it.Key)
	if w, ok := f.a.wanted.stored[name]; ok && w.rev == it.Rev {
		into[name] = w
		return
	}
	e, err := f.a.opts.Store.Places.Decode(it)
	if err == nil {
		into[name] = makeWish(e.Value, it.Rev)
		return
	}
	f.a.opts.Log.Error("a place cannot be read; leaving its unit as it is", "unit", name, "err", err)
	if w, ok := f.a.wanted.list[name]; ok {
		into[name] = w
	}
}

// recordFollower takes in whether this machine's record is in the store.
type recordFollower struct{ a *Agent }

// followRecord keeps wanted.record until ctx ends.
func (a *Agent) followRecord(ctx context.Context) {
	_ = store.Follow(ctx, a.opts.Store.KV, a.opts.Store.Machines.Prefix()+string(a.opts.ID), recordFollower{a}, nil)
}

// Reset implements store.Follower.
func (f recordFollower) Reset(items []store.Item, _ int64) { f.a.noteRecord(len(items) > 0) }

// Apply implements store.Follower.
func (f recordFollower) Apply(u store.Update) {
	for _, e := range u.Events {
		f.a.noteRecord(!e.Deleted)
	}
}

// noteRecord keeps whether the cluster knows this machine.
func (a *Agent) noteRecord(there bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was, member := a.wanted.record, a.wanted.member
	a.wanted.record = recordMissing
	if there {
		a.wanted.record, a.wanted.member = recordPresent, true
	}
	switch {
	case was != recordMissing && !there && member:
		a.opts.Log.Error("the cluster does not know this machine any more: its units are left as they are")
	case was == recordUnknown && !there:
		a.opts.Log.Info("this machine has not joined yet")
	case was == recordMissing && there:
		a.opts.Log.Info("the cluster knows this machine")
	}
	poke(a.fresh)
}

// confirmRecord asks the store whether it has this machine's record, before something is unloaded because a place is gone.
func (a *Agent) confirmRecord(ctx context.Context) error {
	_, there, err := a.opts.Store.KV.Get(ctx, a.opts.Store.Machines.Prefix()+string(a.opts.ID), store.Read{})
	if err != nil {
		return err
	}
	if !there {
		a.noteRecord(false)
		return fault.New(fault.NotFound, "the cluster does not know this machine")
	}
	return nil
}

// keepWishes makes what is known of the places into wishes that are acted on, until ctx ends. cached may be nil.
func (a *Agent) keepWishes(ctx context.Context, cached *remembered) {
	late := time.NewTimer(cacheWait)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			a.wishFromCache(cached)
			continue
		case <-a.fresh:
		}
		if !pause(ctx, gather, nil) {
			return
		}
		a.wishFromStore()
	}
}

// wishFromCache acts on the cached places if the store has not answered yet.
func (a *Agent) wishFromCache(cached *remembered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wanted.source != fromNowhere || a.wanted.stored != nil || cached == nil {
		return
	}
	a.opts.Log.Warn("the store has not answered yet: starting what was placed here last", "places", len(cached.Places))
	for _, p := range cached.Places {
		a.wanted.list[p.Unit.Name] = makeWish(p, 0)
	}
	a.wanted.source = fromCache
	a.settleAll()
}

// wishFromStore acts on the stored places, unless the store has answered nothing yet or does not know this machine.
func (a *Agent) wishFromStore() {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := &a.wanted
	if w.stored == nil || w.record != recordPresent {
		return
	}
	var changed []unit.Name
	for name, now := range w.stored {
		if old, ok := w.list[name]; !ok || old.rev != now.rev {
			changed = append(changed, name)
		}
	}
	for name := range w.list {
		if _, ok := w.stored[name]; !ok {
			changed = append(changed, name)
		}
	}
	first := w.source != fromStore
	if len(changed) == 0 && !first {
		return
	}
	if len(changed) > 0 {
		a.save(places(w.stored))
	}
	w.list, w.source = maps.Clone(w.stored), fromStore
	if first {
		a.settleAll()
		return
	}
	for _, name := range changed {
		a.settle(name)
		if w := a.workers[name]; w != nil {
			poke(w.wake) // newest wish wins, also over a pause after an error
		}
	}
}

// places gives the places sorted by unit.
func places(of map[unit.Name]wish) []unit.Place {
	out := make([]unit.Place, 0, len(of))
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, of[name].place)
	}
	return out
}

// findHalfway marks the units that the last agent was unloading when it ended: the driver has them, they do not run, and the
// places known last are without them. They are unloaded to the end before anything else is done with them, because their
// run number tells nothing any more. The lock is held.
func (a *Agent) findHalfway() {
	if !a.wanted.hadLeft {
		return
	}
	a.wanted.hadLeft = false // later the driver's units are our own doing
	placed := map[unit.Name]bool{}
	for _, p := range a.wanted.left {
		placed[p.Unit.Name] = true
	}
	for name, s := range a.units {
		if !placed[name] && !runs(s) {
			a.halfway[name] = true
		}
	}
}
