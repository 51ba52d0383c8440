package view

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// Kind says what an event is of. Values cross the wire: never rename.
type Kind string

// The kinds of event.
const (
	KindMachine Kind = "machine" // a machine came, left, was drained, ...
	KindUnit    Kind = "unit"    // somebody submitted, changed or destroyed a unit
	KindPlace   Kind = "place"   // the leader placed a unit or took it off
	KindState   Kind = "state"   // a unit became active, failed, stopped
	KindLeader  Kind = "leader"  // another machine leads
)

// Event is one thing that happened in the cluster, as this machine saw it.
type Event struct {
	ID      uint64     `json:"id"` // counts from 1 on each machine
	Time    time.Time  `json:"time"`
	Kind    Kind       `json:"kind"`
	Unit    unit.Name  `json:"unit,omitempty"`
	Machine machine.ID `json:"machine,omitempty"`
	Text    string     `json:"text"` // a sentence for an operator
}

// keepEvents is how many events are kept. 1,000: an hour of a busy cluster, under 300 KB.
const keepEvents = 1000

// ring holds the last events, and a channel closed when there are more. The View's lock guards it.
type ring struct {
	last   uint64
	events []Event // oldest first, at most 2*keepEvents
	more   chan struct{}
}

func (r *ring) add(e Event) {
	r.last++
	e.ID = r.last
	r.events = append(r.events, e)
	if len(r.events) >= 2*keepEvents { // now and then, so that adding costs nothing
		r.events = slices.Clone(r.events[len(r.events)-keepEvents:])
	}
}

// Events gives the kept events with an ID above after, oldest first, and a channel that is closed when there are more.
// At most the last 1,000 events are kept; 0 asks for all of them.
func (v *View) Events(after uint64) ([]Event, <-chan struct{}) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := v.events.events
	all = all[max(0, len(all)-keepEvents):]
	from, _ := slices.BinarySearchFunc(all, after+1, func(e Event, id uint64) int {
		switch {
		case e.ID < id:
			return -1
		case e.ID > id:
			return 1
		}
		return 0
	})
	return slices.Clone(all[from:]), v.events.more
}

// teller turns the differences of one update into events, and keeps what only differences tell: since when machines are lost.
type teller struct {
	c     *Cluster
	now   time.Time
	ring  *ring
	quiet bool // the first listing: nothing happened, we only learn what is
	told  bool // something was said
	units bool // a unit was put or deleted
}

// flush wakes those that wait for events.
func (t *teller) flush() {
	if t.told {
		close(t.ring.more)
		t.ring.more = make(chan struct{})
	}
}

func (t *teller) say(kind Kind, u unit.Name, m machine.ID, format string, args ...any) {
	if t.quiet {
		return
	}
	t.told = true
	t.ring.add(Event{Time: t.now, Kind: kind, Unit: u, Machine: m, Text: fmt.Sprintf(format, args...)})
}

func (t *teller) leads(id machine.ID) {
	t.say(KindLeader, "", id, "%s leads the cluster", t.c.Name(id))
}

func (t *teller) machine(old *machine.Machine, now machine.Machine) {
	if now.Name != "" {
		t.c.names[now.ID] = now.Name
	}
	name := t.c.Name(now.ID)
	if old == nil {
		t.say(KindMachine, "", now.ID, "%s joined the cluster", name)
		return
	}
	if now.Drained != old.Drained {
		if now.Drained {
			t.say(KindMachine, "", now.ID, "%s is drained: its units move to other machines", name)
		} else {
			t.say(KindMachine, "", now.ID, "%s takes units again", name)
		}
	}
	if !maps.Equal(now.Labels, old.Labels) {
		t.say(KindMachine, "", now.ID, "%s has the labels %s", name, machine.PrintLabels(now.Labels))
	}
}

func (t *teller) removed(old machine.Machine) {
	delete(t.c.lost, old.ID)
	delete(t.c.back, old.ID)
	t.say(KindMachine, "", old.ID, "%s was removed from the cluster", t.c.Name(old.ID))
}

func (t *teller) alive(old *machine.Presence, now machine.Presence) {
	if now.Name != "" && t.c.names[now.ID] == "" {
		t.c.names[now.ID] = now.Name
	}
	name := t.c.Name(now.ID)
	switch {
	case old == nil:
		if since, was := t.c.lost[now.ID]; was {
			t.c.back[now.ID] = since
			t.say(KindMachine, "", now.ID, "%s is back after %s", name, t.now.Sub(since).Round(100*time.Millisecond))
		} else {
			t.say(KindMachine, "", now.ID, "%s is there", name)
		}
		delete(t.c.lost, now.ID)
	case now.Leaving && !old.Leaving:
		t.say(KindMachine, "", now.ID, "%s is shutting down: its units start elsewhere first", name)
	case now.Restarting && !old.Restarting:
		t.say(KindMachine, "", now.ID, "the agent of %s restarts; its units go on meanwhile", name)
	case old.Restarting && !now.Restarting:
		t.say(KindMachine, "", now.ID, "the agent of %s is back", name)
	case !now.Started.Equal(old.Started):
		t.say(KindMachine, "", now.ID, "the agent of %s was restarted", name)
	}
}

func (t *teller) gone(old machine.Presence) {
	t.c.lost[old.ID] = t.now
	name := t.c.Name(old.ID)
	switch {
	case old.Leaving:
		t.say(KindMachine, "", old.ID, "%s was shut down", name)
	case old.Restarting:
		t.say(KindMachine, "", old.ID, "%s is gone: its agent announced a restart and did not come back", name)
	default:
		t.say(KindMachine, "", old.ID, "%s is gone", name)
	}
}

func (t *teller) unit(old *unit.Unit, now unit.Unit) {
	if old == nil {
		t.say(KindUnit, now.Name, "", "%s submitted, to be %s", now.Name, now.Target)
		return
	}
	if !slices.Equal(old.Options, now.Options) {
		t.say(KindUnit, now.Name, "", "%s has new content", now.Name)
	}
	switch {
	case old.Target != now.Target:
		t.say(KindUnit, now.Name, "", "%s is to be %s", now.Name, now.Target)
	case old.Run != now.Run && now.Target == unit.Launched:
		t.say(KindUnit, now.Name, "", "%s is to be started anew", now.Name)
	}
}

func (t *teller) destroyed(old unit.Unit) {
	t.say(KindUnit, old.Name, "", "%s destroyed", old.Name)
}

func (t *teller) place(old *unit.Place, now unit.Place) {
	name, where := now.Unit.Name, t.c.Name(now.Machine)
	switch {
	case old == nil:
		t.say(KindPlace, name, now.Machine, "%s placed on %s: %s", name, where, now.Reason)
	case now.Leaving && !old.Leaving:
		t.say(KindPlace, name, now.Machine, "%s leaves %s when it is active elsewhere: %s", name, where, now.Reason)
	case old.Leaving && !now.Leaving:
		t.say(KindPlace, name, now.Machine, "%s stays on %s: %s", name, where, now.Reason)
	}
}

func (t *teller) unplaced(old unit.Place) {
	t.say(KindPlace, old.Unit.Name, old.Machine, "%s taken off %s", old.Unit.Name, t.c.Name(old.Machine))
}

func (t *teller) state(old *unit.State, now unit.State) {
	was := ""
	if old != nil {
		was = old.Active
		if old.Active == now.Active && old.Run == now.Run {
			return
		}
	}
	where := t.c.Name(now.Machine)
	switch now.Active {
	case "active":
		if was != "reloading" {
			t.say(KindState, now.Unit, now.Machine, "%s active on %s", now.Unit, where)
		}
	case "failed":
		t.say(KindState, now.Unit, now.Machine, "%s failed on %s: %s", now.Unit, where, why(now))
	case "inactive":
		if was != "" {
			t.say(KindState, now.Unit, now.Machine, "%s stopped on %s", now.Unit, where)
		}
	}
}

// why is the shortest account of a failure: "exit-code 1", "signal SEGV", "timeout".
func why(s unit.State) string {
	switch {
	case s.Result == "exit-code":
		return fmt.Sprintf("exit-code %d", s.ExitCode)
	case s.Result == "signal" && s.Signal != "":
		return "signal " + s.Signal
	case s.Result != "" && s.Result != "success":
		return s.Result
	case s.Message != "":
		return s.Message
	}
	return s.Sub
}
