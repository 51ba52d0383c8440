package admit

import (
	"context"
	"strings"
	"sync"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// load is what a leaving machine still has.
type load struct {
	units []string     // placed on it
	runs  []string     // units that it tells the state of: it has not let them go yet
	there bool         // it shows signs of life
	role  machine.Role // its part in the store
	vote  bool         // its record of that is there: until it has gone, the store's engine may count on the machine
}

// watcher follows what one machine still has. Made by Desk.follow, ended by end.
type watcher struct {
	st     *store.Store
	id     machine.ID
	cancel context.CancelFunc
	done   sync.WaitGroup
	wake   chan struct{} // holds one token when something changed

	mu      sync.Mutex // guards the fields below
	items   map[string]store.Item
	ready   map[string]bool // which prefixes were listed
	trouble error           // why the store cannot be read now; nil: it can
}

// prefixes are the places of the machine, the states that it tells, its presence and its vote.
func (w *watcher) prefixes() []string {
	id := string(w.id)
	return []string{w.st.Places.Prefix() + id + "/", w.st.States.Prefix() + id + "/", w.st.Alive.Prefix() + id, w.st.Voters.Prefix() + id}
}

// follow begins to follow.
func (d *Desk) follow(ctx context.Context, id machine.ID) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{st: d.o.Store, id: id, cancel: cancel, wake: make(chan struct{}, 1), items: map[string]store.Item{}, ready: map[string]bool{}}
	for _, p := range w.prefixes() {
		w.done.Go(func() { _ = store.Follow(ctx, w.st.KV, p, &part{w: w, prefix: p}, w.setTrouble) }) // ends with ctx
	}
	return w
}

// end ends the watches.
func (w *watcher) end() {
	w.cancel()
	w.done.Wait()
}

// setTrouble notes that the store cannot be read, or can again.
func (w *watcher) setTrouble(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = err
	w.ring()
}

// ring wakes await.
func (w *watcher) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// part is one prefix of a watcher.
type part struct {
	w      *watcher
	prefix string
}

// Reset implements store.Follower.
func (p *part) Reset(items []store.Item, _ int64) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for k := range p.w.items {
		if strings.HasPrefix(k, p.prefix) {
			delete(p.w.items, k)
		}
	}
	for _, it := range items {
		p.w.items[it.Key] = it
	}
	p.w.ready[p.prefix] = true
	p.w.ring()
}

// Apply implements store.Follower.
func (p *part) Apply(u store.Update) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, e := range u.Events {
		if e.Deleted {
			delete(p.w.items, e.Key)
		} else {
			p.w.items[e.Key] = e.Item
		}
	}
	p.w.ring()
}

// look gives what is known; ok is false until everything was read once, and while the store cannot be read: old news must not let a
// machine go.
func (w *watcher) look() (l load, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ready) < len(w.prefixes()) || w.trouble != nil {
		return l, false, w.trouble
	}
	for key, it := range w.items {
		if sub, is := w.st.Places.Match(key); is {
			_, name, _ := strings.Cut(sub, "/")
			l.units = append(l.units, name)
		} else if sub, is := w.st.States.Match(key); is {
			_, name, _ := strings.Cut(sub, "/")
			l.runs = append(l.runs, name)
		} else if _, is := w.st.Alive.Match(key); is {
			l.there = true
		} else if e, err := w.st.Voters.Decode(it); err == nil {
			l.role, l.vote = e.Value.Role, true
		}
	}
	return l, true, nil
}

// await waits until left says "", and tells what it says whenever that changes. It waits through outages of the store, and tells of them.
func (w *watcher) await(ctx context.Context, left func(load) string, tell func(string, ...any)) error {
	said := ""
	for {
		l, ok, err := w.look()
		text := ""
		switch {
		case ok:
			if text = left(l); text == "" {
				return nil
			}
		case err != nil:
			text = "waits for the store: " + err.Error()
		}
		if text != "" && text != said {
			tell("%s", text)
			said = text
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return fault.WithHint(fault.Wrap(fault.TimedOut, ctx.Err(), "%s", orElse(said, "waits for the store")),
				"it stays drained and leaving: ask for it again, or take it back with flota machine resume")
		}
	}
}

// orElse gives text, or other if it is empty.
func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
