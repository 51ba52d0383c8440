package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/unit"
)

// names gives the names of all machines by ID.
func (c *cluster) names() map[machine.ID]string {
	out := map[machine.ID]string{}
	for id := range c.machines {
		out[id] = c.name(id)
	}
	return out
}

// ids finds machines by what people call them.
func (c *cluster) ids(refs []string) ([]machine.ID, error) {
	var out []machine.ID
	for _, ref := range refs {
		m, err := c.find(ref)
		if err != nil {
			return nil, err
		}
		out = append(out, m.ID)
	}
	return out, nil
}

// plan answers POST /v1/plan.
func (s *Server) plan(w http.ResponseWriter, r *http.Request) error {
	var q PlanRequest
	if err := body(r, &q); err != nil {
		return err
	}
	c, err := s.whole(r.Context())
	if err != nil {
		return err
	}
	kill, err := c.ids(q.Kill)
	if err != nil {
		return err
	}
	drain, err := c.ids(q.Drain)
	if err != nil {
		return err
	}
	added, err := addedUnits(q.Add)
	if err != nil {
		return err
	}
	now := time.Now()
	m := scheduler.Add(scheduler.Drain(scheduler.Kill(s.mind(c, now), kill...), drain...), added...)
	make := scheduler.Make
	if q.Rebalance {
		make = scheduler.Rebalance
	}
	return answerRead(w, c.stale, Plan{Plan: tidy(make(m, now)), Names: c.names()})
}

// tidy leaves out what only the leader needs, the whole units, and makes a plan without moves an empty list in JSON, not null.
func tidy(p scheduler.Plan) scheduler.Plan {
	moves := append([]scheduler.Move{}, p.Moves...)
	for i := range moves {
		moves[i].Put = nil
	}
	p.Moves = moves
	return p
}

// addedUnits reads the units that do not exist yet; they are to be launched.
func addedUnits(list []AddUnit) ([]scheduler.Unit, error) {
	var out []scheduler.Unit
	for _, a := range list {
		name, err := unit.ParseName(string(a.Name))
		if err != nil {
			return nil, err
		}
		if err := unit.CanActivate(name); err != nil {
			return nil, err
		}
		f, _, err := unit.Parse(name, []byte(a.Text))
		if err != nil {
			return nil, err
		}
		if err := unit.Validate(name, f); err != nil {
			return nil, err
		}
		out = append(out, scheduler.Prepare(unit.Unit{Name: name, Options: f.Options, Target: unit.Launched, Run: 1}))
	}
	return out, nil
}

// rebalance answers POST /v1/rebalance. The leader is the one writer of places, so carrying it out is the leader's.
func (s *Server) rebalance(w http.ResponseWriter, r *http.Request) error {
	var q RebalanceRequest
	if err := body(r, &q); err != nil {
		return err
	}
	c, err := s.whole(r.Context())
	if err != nil {
		return err
	}
	if !q.Apply {
		now := time.Now()
		return answerRead(w, c.stale, Plan{Plan: tidy(scheduler.Rebalance(s.mind(c, now), now)), Names: c.names()})
	}
	if c.stale {
		outcome := "nothing was changed"
		return s.noQuorum(r.Context(), &outcome)
	}
	p, err := s.applyRebalance(r.Context(), c, forwarded(r))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, Plan{Plan: tidy(p), Names: c.names()})
}

// applyRebalance has the leader carry a rebalancing out: this machine, or the one that it asks.
func (s *Server) applyRebalance(ctx context.Context, c *cluster, hop bool) (scheduler.Plan, error) {
	switch {
	case c.leader == "":
		return scheduler.Plan{}, fault.New(fault.Unavailable, "no machine leads now; nothing was changed")
	case c.leader == s.ID && s.Options.Rebalance != nil:
		return s.Options.Rebalance(ctx)
	case c.leader == s.ID || hop:
		return scheduler.Plan{}, fault.WithHint(fault.New(fault.Conflict, "machine %s does not lead; nothing was changed", s.Name), "try again")
	}
	p, err := s.peerOf(c, c.leader)
	if err != nil {
		return scheduler.Plan{}, err
	}
	defer p.Close()
	plan, err := p.Rebalance(ctx, true)
	return plan.Plan, at(c.name(c.leader), err)
}

// unitNames gives the names of all units, sorted.
func (c *cluster) unitNames() []unit.Name { return slices.Sorted(maps.Keys(c.units)) }
