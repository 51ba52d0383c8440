package leader

import (
	"flota/internal/scheduler"
	"flota/internal/unit"
	"flota/internal/view"
)

// units keeps all units as the scheduler wants them, so that each is read once per change and not once per plan.
// The zero value is empty.
type units struct {
	rev  int64            // of the view's units that list is made of
	list []scheduler.Unit // in no order
	at   map[unit.Name]int
	revs []int64 // of the units in list
}

// refresh brings the list to the view's units.
func (u *units) refresh(c *view.Cluster) {
	if u.rev == c.UnitsRev && u.at != nil {
		return
	}
	list := make([]scheduler.Unit, 0, len(c.Units))
	at, revs := make(map[unit.Name]int, len(c.Units)), make([]int64, 0, len(c.Units))
	for name, e := range c.Units {
		at[name] = len(list)
		if i, ok := u.at[name]; ok && u.revs[i] == e.Rev {
			list = append(list, u.list[i])
		} else {
			list = append(list, scheduler.Prepare(e.Value))
		}
		revs = append(revs, e.Rev)
	}
	u.rev, u.list, u.at, u.revs = c.UnitsRev, list, at, revs
}

// get gives a unit; ok is false if there is none of that name.
func (u *units) get(name unit.Name) (one scheduler.Unit, ok bool) {
	i, ok := u.at[name]
	if !ok {
		return one, false
	}
	return u.list[i], true
}

// exclusive says whether the unit must never run twice.
func (u *units) exclusive(name unit.Name) bool {
	one, _ := u.get(name)
	return one.Exclusive
}
