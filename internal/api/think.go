package api

import (
	"maps"
	"slices"
	"time"

	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/unit"
	"flota/internal/view"
)

// prepare reads what a unit asks for, once.
func (c *cluster) prepare(name unit.Name) scheduler.Unit {
	p, ok := c.prepared[name]
	if !ok {
		p = scheduler.Prepare(c.units[name])
		c.prepared[name] = p
	}
	return p
}

// view is this machine's picture of the cluster; nil if it is no voter now.
func (s *Server) view() *view.View {
	if s.View == nil {
		return nil
	}
	return s.View()
}

// lostSince gives since when machines are gone, as far as this machine knows.
func (s *Server) lostSince(c *cluster, now time.Time) map[machine.ID]time.Time {
	since := map[machine.ID]time.Time{}
	here := s.view()
	if here == nil {
		return since
	}
	here.Look(func(v *view.Cluster) {
		if v.Rev == 0 {
			return // it has seen nothing yet
		}
		for id := range c.machines {
			if _, there := c.alive[id]; there {
				continue
			}
			if t, lost := v.Lost(id, now); lost {
				since[id] = t
			}
		}
	})
	return since
}

// mind gives the cluster as the scheduler wants it.
func (s *Server) mind(c *cluster, now time.Time) scheduler.Cluster {
	lost := s.lostSince(c, now)
	out := scheduler.Cluster{States: func(id machine.ID, name unit.Name) (unit.State, bool) {
		for _, st := range c.states[name] {
			if st.Machine == id {
				return st, true
			}
		}
		return unit.State{}, false
	}}
	for _, m := range c.sorted() {
		sm := scheduler.Machine{Machine: m, Lost: lost[m.ID]}
		if p, there := c.alive[m.ID]; there {
			sm.Presence = &p
		}
		out.Machines = append(out.Machines, sm)
	}
	for _, name := range slices.Sorted(maps.Keys(c.units)) {
		out.Units = append(out.Units, c.prepare(name))
	}
	for _, ps := range c.places {
		out.Places = append(out.Places, ps...)
	}
	return out
}

// think gives the plan that the leader would make now. c must be whole.
func (s *Server) think(c *cluster) scheduler.Plan {
	if c.plan == nil {
		now := time.Now()
		p := scheduler.Make(s.mind(c, now), now)
		c.plan = &p
	}
	return *c.plan
}

// waiting gives the reasons why units have no place, by unit. c must be whole. It plans only if a unit misses one.
func (s *Server) waiting(c *cluster) map[unit.Name]string {
	missing := false
	for name := range c.units {
		if c.misses(name) {
			missing = true
			break
		}
	}
	if !missing {
		return nil
	}
	out := map[unit.Name]string{}
	for _, w := range s.think(c).Waiting {
		out[w.Unit] = w.Reason
	}
	return out
}

// misses says whether the unit may lack a place that it wants, or has one on a machine that is gone.
func (c *cluster) misses(name unit.Name) bool {
	u := c.units[name]
	if u.Target == unit.Inactive || u.Target == "" || name.IsTemplate() {
		return false
	}
	ps := c.places[name]
	if c.prepare(name).Fleet.Global {
		return len(ps) < len(c.alive)
	}
	for _, p := range ps {
		if _, there := c.alive[p.Machine]; there && !p.Leaving {
			return false
		}
	}
	return true
}
