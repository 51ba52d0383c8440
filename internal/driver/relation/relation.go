// Package relation says which units of one machine start and stop because another one does: Wants=, Requires=, BindsTo= and PartOf= of [Unit],
// and WantedBy= and RequiredBy= of [Install], for which systemd would want the unit enabled.
//
// The invariant: an answer depends on nothing but the names in the units' files, and names no unit twice nor the one that is asked about,
// so that units which want each other in a circle come to an end.
//
// It does not know what runs, starts nothing and orders nothing but a unit after the one that it was started for:
// room supervise acts on the answers.
//
// Start reading at Bonds, then Loaded.
package relation

import (
	"slices"

	"flota/internal/service"
	"flota/internal/unit"
)

// Bonds are what a unit's file says of others, specifiers expanded. The zero value says nothing.
type Bonds struct {
	Wants    []unit.Name // are started with this unit: Wants=, Requires= and BindsTo=
	WantedBy []unit.Name // this unit is started with them: WantedBy= and RequiredBy=
	BindsTo  []unit.Name // this unit stops whenever one of them does: BindsTo=
	PartOf   []unit.Name // it stops when one of them is stopped by request: Requires= and PartOf=
	NeededBy []unit.Name // they stop when this unit is stopped by request: RequiredBy=
	After    []unit.Name // when started for one of them, it waits until that is started
	Before   []unit.Name // they wait for this unit when started for it
}

// Of reads the bonds of a service.
func Of(s *service.Service) Bonds {
	d, i := &s.Deps, &s.Install
	return Bonds{Wants: names(d.Wants, d.Requires, d.BindsTo), WantedBy: names(i.WantedBy, i.RequiredBy), BindsTo: names(d.BindsTo),
		PartOf: names(d.Requires, d.PartOf), NeededBy: names(i.RequiredBy), After: names(d.After), Before: names(d.Before)}
}

// names joins lists.
func names(lists ...[]string) (all []unit.Name) {
	for _, l := range lists {
		for _, n := range l {
			all = append(all, unit.Name(n))
		}
	}
	return all
}

// Loaded are the bonds of the units that one machine has.
type Loaded map[unit.Name]Bonds

// Pulled gives the loaded units that start because x does: now as soon as x begins to start, later once x is started. Sorted.
func (l Loaded) Pulled(x unit.Name) (now, later []unit.Name) {
	own := l[x]
	for n, b := range l {
		switch {
		case n == x, !slices.Contains(own.Wants, n) && !slices.Contains(b.WantedBy, x):
		case slices.Contains(b.After, x) || slices.Contains(own.Before, n):
			later = append(later, n)
		default:
			now = append(now, n)
		}
	}
	slices.Sort(now)
	slices.Sort(later)
	return now, later
}

// Bound gives the loaded units that stop because x is not active any more, for whatever reason. Sorted.
func (l Loaded) Bound(x unit.Name) (all []unit.Name) {
	for n, b := range l {
		if n != x && slices.Contains(b.BindsTo, x) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// Following gives the loaded units that stop, or restart if they run, because x is stopped or restarted by request: those bound to x, those
// that require it or are part of it, and those that follow these in turn. Sorted.
func (l Loaded) Following(x unit.Name) (all []unit.Name) {
	seen := map[unit.Name]bool{x: true}
	for next := []unit.Name{x}; len(next) > 0; next = next[1:] {
		for n, b := range l {
			if !seen[n] && l.follows(n, b, next[0]) {
				seen[n] = true
				next, all = append(next, n), append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all
}

// follows says whether unit n with bonds b goes down with x by request.
func (l Loaded) follows(n unit.Name, b Bonds, x unit.Name) bool {
	return slices.Contains(b.BindsTo, x) || slices.Contains(b.PartOf, x) || slices.Contains(l[x].NeededBy, n)
}
