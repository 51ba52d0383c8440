package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/unit"
)

// storeRead says how fresh a read must be.
type storeRead = store.Read

// What SetTarget.Anew may be.
const (
	anewDown   = "down"
	anewAlways = "always"
)

// setTarget answers POST /v1/units/{name}/target.
func (s *Server) setTarget(w http.ResponseWriter, r *http.Request) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	var t SetTarget
	if err := body(r, &t); err != nil {
		return err
	}
	if err := checkTarget(name, t); err != nil {
		return err
	}
	if err := s.target(r.Context(), name, t); err != nil {
		return err
	}
	return s.answerUnit(w, r, name, false, nil)
}

// checkTarget refuses what can never be wanted of the unit.
func checkTarget(name unit.Name, t SetTarget) error {
	switch t.Target {
	case unit.Inactive, unit.Loaded, unit.Launched:
	default:
		return fault.New(fault.Invalid, "target %q: want inactive, loaded or launched", clip(string(t.Target)))
	}
	switch t.Anew {
	case "", anewDown, anewAlways:
	default:
		return fault.New(fault.Invalid, `anew %q: want "", "down" or "always"`, clip(t.Anew))
	}
	if t.Target == unit.Inactive {
		return nil
	}
	return fault.WithHint(unit.CanActivate(name), "start an instance of it: %s", name.WithInstance("1"))
}

// target stores the wish for a state of a unit.
func (s *Server) target(ctx context.Context, name unit.Name, t SetTarget) error {
	down := false
	if t.Target == unit.Launched && t.Anew == anewDown {
		c, err := s.one(ctx, name)
		if err != nil {
			return err
		}
		down = c.down(name)
	}
	_, _, err := modify(ctx, s, s.Store.Units, string(name), func(u unit.Unit, exists bool) (unit.Unit, act, error) {
		if !exists {
			return u, keep, noUnit(name)
		}
		now := time.Now().UTC()
		switch {
		case u.Target != t.Target:
			u.Target = t.Target
			if t.Target == unit.Launched {
				u.Run++
			}
		case t.Target == unit.Launched && (t.Anew == anewAlways || down):
			u.Run++
		default:
			return u, keep, nil
		}
		u.Changed = now
		return u, put, nil
	})
	return err
}

// down says whether a launched unit has a place and is neither active nor on its way to be on any of its machines. A unit that
// waits for a place, for its first report or for an automatic restart is on its way.
func (c *cluster) down(name unit.Name) bool {
	u := c.units[name]
	if len(c.places[name]) == 0 {
		return false
	}
	for _, p := range c.places[name] {
		known := false
		for _, st := range c.states[name] {
			if st.Machine != p.Machine {
				continue
			}
			known = true
			switch st.Active {
			case "active", "reloading", "activating":
				return false
			}
			if st.Run != u.Run && st.Load == "loaded" {
				return false // the start last asked for is still to come
			}
		}
		if !known && !p.Leaving {
			return false
		}
	}
	return true
}

// reload answers POST /v1/units/{name}/reload.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) error {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // as long as its ExecReload= takes
	return s.onMachines(w, r, "/reload", func(ctx context.Context, name unit.Name) error { return s.Driver.Reload(ctx, name) })
}

// resetFailed answers POST /v1/units/{name}/reset-failed.
func (s *Server) resetFailed(w http.ResponseWriter, r *http.Request) error {
	return s.onMachines(w, r, "/reset-failed", func(ctx context.Context, name unit.Name) error { return s.Driver.ResetFailed(ctx, name) })
}

// onMachines does here, or on the machines that the unit is on, by asking their API.
func (s *Server) onMachines(w http.ResponseWriter, r *http.Request, verb string, here func(context.Context, unit.Name) error) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	if forwarded(r) {
		if err := here(r.Context(), name); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	c, err := s.one(r.Context(), name)
	if err != nil {
		return err
	}
	if _, ok := c.units[name]; !ok {
		return noUnit(name)
	}
	if len(c.places[name]) == 0 {
		return fault.WithHint(fault.New(fault.Conflict, "%s is on no machine", name), "flota why %s says why", name)
	}
	var failed []string
	var kind fault.Kind
	for _, p := range c.places[name] {
		if p.Machine == s.ID {
			err = here(r.Context(), name)
		} else {
			err = s.ask(r.Context(), c, p.Machine, http.MethodPost, unitPath(string(name), verb))
		}
		if err != nil && !p.Leaving {
			failed = append(failed, "on "+c.name(p.Machine)+": "+err.Error())
			kind = fault.KindOf(err)
		}
	}
	if len(failed) > 0 {
		return fault.New(kind, "%s %s", strings.TrimPrefix(verb, "/")+" "+string(name), strings.Join(failed, "; "))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
