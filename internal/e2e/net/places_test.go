package netbed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"flota/internal/api"
	"flota/internal/unit"
)

// runningNames gives who runs now with the machines' names; of the named machines only, or of all.
func (b *bed) runningNames(machines ...int) map[string][]string {
	on := map[string][]string{}
	for u, is := range b.running() {
		for _, i := range is {
			if len(machines) == 0 || slices.Contains(machines, i) {
				on[u] = append(on[u], b.at(i).name)
			}
		}
	}
	return on
}

// placed gives the places of all units as a machine's store has them, with the machines' names, and those that are not active there.
func (b *bed) placed(i int) (on map[string][]string, err error) {
	var us []api.Unit
	if err := b.decode(i, &us, "list-unit-files"); err != nil {
		return nil, err
	}
	on = map[string][]string{}
	for _, u := range us {
		for _, p := range u.Places {
			on[string(u.Name)] = append(on[string(u.Name)], p.Name)
		}
		if len(u.Places) == 0 && u.Target == unit.Launched {
			return nil, fmt.Errorf("%s has no place: %s", u.Name, u.Waiting)
		}
		slices.Sort(on[string(u.Name)])
	}
	return on, nil
}

// agree says where what runs differs from what the store of machine i says.
func (b *bed) agree(i int) error {
	places, err := b.placed(i)
	if err != nil {
		return err
	}
	running := map[string][]string{}
	for u, on := range b.runningNames() {
		running[u+".service"] = on
	}
	return judgePlaces(places, running)
}

// historian watches the places of all units through the API of every machine, and keeps each that should never have been: what a machine
// sees may be old, but it is what the store once was.
type historian struct {
	mu     sync.Mutex // guards what follows
	seen   map[string]int
	faults []error
}

// history watches until the test ends; then, or when told, it is judged.
func (b *bed) history(t *testing.T, exclusive ...string) *historian {
	t.Helper()
	h := &historian{seen: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, m := range b.all {
		c, err := api.NewClient([]string{"unix://" + b.socket(m.i)}, api.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer c.Close()
			for ctx.Err() == nil {
				_ = c.Watch(ctx, func(u api.Unit, _ bool) error { // ends with the machine's agent; then it is asked again
					h.note(m.name, u, slices.Contains(exclusive, string(u.Name)))
					return nil
				})
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
		if err := h.verdict(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// note takes down one state of a unit.
func (h *historian) note(by string, u api.Unit, exclusive bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[by]++
	if err := judgePlacesOf(by, u, exclusive); err != nil {
		h.faults = append(h.faults, err)
	}
}

// judgePlacesOf says when a unit has more places than it may have: one, beside those that it leaves when it is active at the new one; an
// exclusive unit is never at two in any way.
func judgePlacesOf(by string, u api.Unit, exclusive bool) error {
	if u.Global {
		return nil
	}
	stay := 0
	for _, p := range u.Places {
		if !p.Leaving {
			stay++
		}
	}
	if stay > 1 || exclusive && len(u.Places) > 1 {
		return fmt.Errorf("%s saw %s at %d places: %+v", by, u.Name, len(u.Places), u.Places)
	}
	return nil
}

// verdict tells of all places that should not have been, and if nothing was seen at all.
func (h *historian) verdict() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) == 0 {
		return errors.New("no places were seen: the history proves nothing")
	}
	return errors.Join(h.faults[:min(len(h.faults), 10)]...)
}
