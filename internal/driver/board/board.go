// Package board holds the latest state of every unit of a driver and tells watchers what changed.
//
// The invariant: a watcher is told of every unit's last state; states in between may be skipped, so that a slow watcher
// costs one entry per unit and never holds anybody up. A unit that is removed is told of once, with Load "not-found".
//
// This package knows nothing of how units run; the fake and the supervisor share it.
// Start reading at Board.
package board

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"flota/internal/unit"
)

// Board is the states of all units. Make one with New. Safe for concurrent use.
type Board struct {
	mu       sync.Mutex // guards the fields below
	states   map[unit.Name]unit.State
	watchers map[*watcher]struct{}
}

// watcher is one running Watch: the units that it has not been told of yet.
type watcher struct {
	dirty  map[unit.Name]struct{}
	wake   chan struct{} // capacity 1
	broken error         // ends the watch when not nil
}

// New gives an empty board.
func New() *Board {
	return &Board{states: map[unit.Name]unit.State{}, watchers: map[*watcher]struct{}{}}
}

// Set puts the state of st.Unit.
func (b *Board) Set(st unit.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.states[st.Unit] = st
	b.touch(st.Unit)
}

// Remove forgets a unit.
func (b *Board) Remove(name unit.Name) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.states, name)
	b.touch(name)
}

// touch marks a unit for all watchers. The lock is held.
func (b *Board) touch(name unit.Name) {
	for w := range b.watchers {
		w.dirty[name] = struct{}{}
		w.poke()
	}
}

// Get gives the state of one unit.
func (b *Board) Get(name unit.Name) (unit.State, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st, ok := b.states[name]
	return st, ok
}

// All gives the states of all units, sorted by name.
func (b *Board) All() []unit.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return sorted(slices.Collect(maps.Values(b.states)))
}

// Break ends every running Watch with err. Later ones are not affected.
func (b *Board) Break(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watchers {
		w.broken = err
		w.poke()
	}
}

// Watch calls f with all states and first set, then with those that changed, until ctx ends (nil), Break is called, or
// f gives an error, which is returned. f is called without locks held, from the caller's goroutine.
func (b *Board) Watch(ctx context.Context, f func(states []unit.State, first bool) error) error {
	w := &watcher{dirty: map[unit.Name]struct{}{}, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.watchers[w] = struct{}{}
	all := sorted(slices.Collect(maps.Values(b.states)))
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.watchers, w)
		b.mu.Unlock()
	}()
	if err := f(all, true); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		states, err := b.take(w)
		if err != nil {
			return err
		}
		if len(states) == 0 {
			continue
		}
		if err := f(states, false); err != nil {
			return err
		}
	}
}

// take empties w's list of changed units and gives their states.
func (b *Board) take(w *watcher) ([]unit.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []unit.State
	for name := range w.dirty {
		st, ok := b.states[name]
		if !ok {
			st = unit.State{Unit: name, Load: "not-found", Active: "inactive", Sub: "dead"}
		}
		out = append(out, st)
	}
	clear(w.dirty)
	return sorted(out), w.broken
}

// poke wakes the watcher, once however often it is called before it looks.
func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// sorted orders states by unit name.
func sorted(states []unit.State) []unit.State {
	slices.SortFunc(states, func(a, b unit.State) int { return cmp.Compare(a.Unit, b.Unit) })
	return states
}
