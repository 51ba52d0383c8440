package agent

import (
	"cmp"
	"fmt"
	"slices"

	"flota/internal/unit"
)

// Kind says what a task does.
type Kind string

// The kinds of task, as the driver's methods.
const (
	Load   Kind = "load"
	Start  Kind = "start"
	Stop   Kind = "stop"
	Unload Kind = "unload"
)

// Task is one thing to do with a unit.
type Task struct {
	Kind   Kind
	Name   unit.Name
	Unit   unit.Unit // what to load, under which run to start; only the name for unload
	Reason string    // in an operator's words
}

// notFound is State.Load of a unit that the driver does not know (any more).
const notFound = "not-found"

// Tasks gives what must be done so that current becomes what desired wants, sorted by unit, and those of one unit in
// the order to do them. It is empty when all is well. Pure: neither slice is changed.
func Tasks(desired []unit.Place, current []unit.State) []Task {
	places, states := map[unit.Name]*unit.Place{}, map[unit.Name]*unit.State{}
	var names []unit.Name
	for i := range desired {
		places[desired[i].Unit.Name] = &desired[i]
		names = append(names, desired[i].Unit.Name)
	}
	for i := range current {
		states[current[i].Unit] = &current[i]
		names = append(names, current[i].Unit)
	}
	slices.Sort(names)
	var all []Task
	for _, n := range slices.Compact(names) {
		hash := ""
		if p := places[n]; p != nil {
			hash = p.Unit.Hash()
		}
		all = append(all, tasksOf(n, places[n], hash, states[n])...)
	}
	slices.SortStableFunc(all, func(a, b Task) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// tasksOf gives the tasks of one unit: p is its place here and hash that of its content, s its state; nil for none.
func tasksOf(name unit.Name, p *unit.Place, hash string, s *unit.State) []Task {
	if s != nil && s.Load == notFound {
		s = nil
	}
	switch {
	case p == nil && s == nil:
		return nil
	case p == nil:
		return []Task{{Unload, name, unit.Unit{Name: name}, "its place on this machine is gone"}}
	case p.Leaving && s == nil:
		return nil // it is elsewhere already, or soon
	}
	var tasks []Task
	add := func(k Kind, reason string) { tasks = append(tasks, Task{k, name, p.Unit, reason}) }
	fits := s != nil && s.Hash == hash
	switch {
	case s == nil:
		add(Load, "placed on this machine: "+p.Reason)
	case !fits && !p.Leaving:
		add(Load, "its content was changed")
	}
	if p.Unit.Target != unit.Launched {
		// Under run 0 it runs because of another unit (WantedBy=, Requires=), which ends it too.
		if s != nil && s.Run != 0 && runs(*s) {
			add(Stop, fmt.Sprintf("it is wanted %s, not launched", p.Unit.Target))
		}
		return tasks
	}
	switch {
	case p.Leaving, fits && s.Load != "loaded":
		// It starts elsewhere; or it cannot start with this content, as its state says.
	case s == nil || s.Run == 0:
		add(Start, "it is wanted launched")
	case s.Run != p.Unit.Run:
		add(Start, fmt.Sprintf("it was asked to start anew (run %d after %d)", p.Unit.Run, s.Run))
	}
	return tasks
}

// runs says whether there is something to stop.
func runs(s unit.State) bool {
	switch s.Active {
	case "active", "activating", "reloading":
		return true
	}
	return false
}
