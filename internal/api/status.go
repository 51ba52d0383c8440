package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/unit"
)

// healthPatience bounds the question for the store's health.
const healthPatience = time.Second

// getStatus answers GET /v1/status.
func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) error {
	st := Status{Version: s.Version, Answered: s.Name, Machines: []Machine{}, Units: map[string]int{}, Attention: []string{}, External: s.External}
	ctx, cancel := context.WithTimeout(r.Context(), healthPatience)
	st.Store = s.Store.KV.Health(ctx)
	cancel()
	c, err := s.whole(r.Context())
	switch {
	case err == nil:
	case fault.Is(err, fault.Unavailable): // that, too, is a state of the cluster
		st.Stale = true
		st.Attention = append(st.Attention, err.Error())
		return answerRead(w, true, st)
	default:
		return err
	}
	st.Stale = c.stale
	st.Machines = c.allMachines()
	if c.leader != "" {
		st.Leader = c.name(c.leader)
	}
	waiting := s.waiting(c)
	for name := range c.units {
		st.Units[c.word(name, waiting[name])]++
	}
	st.Attention = s.attention(c, st.Store, waiting, time.Now())
	if text := c.versions(); text != "" {
		st.Attention = append(st.Attention, text)
	}
	st.Attention = append(st.Attention, s.wrongClocks(r.Context(), c)...)
	st.Advice = s.advice(c)
	return answerRead(w, c.stale, st)
}

// word is a unit's state in one word: template, inactive, waiting, loaded, or systemd's word for the worst of its states.
func (c *cluster) word(name unit.Name, waiting string) string {
	u := c.units[name]
	switch {
	case name.IsTemplate():
		return "template"
	case waiting != "":
		return "waiting"
	case u.Target == unit.Inactive:
		return "inactive"
	}
	worst := -1
	order := []string{"active", "reloading", "activating", "deactivating", "inactive", "failed"}
	for _, st := range c.states[name] {
		if st.Load != "loaded" {
			return "failed"
		}
		worst = max(worst, slices.Index(order, st.Active))
	}
	switch {
	case worst < 0:
		return "placing" // no machine has reported it yet
	case u.Target == unit.Loaded && order[worst] == "inactive":
		return "loaded"
	}
	return order[worst]
}

// shown is how many things of one kind Attention names; the rest is counted.
const shown = 10

// attention says what wants a person's attention, most urgent first.
func (s *Server) attention(c *cluster, h store.Health, waiting map[unit.Name]string, now time.Time) []string {
	out := []string{}
	if c.stale || !h.Quorum {
		out = append(out, "no quorum: nothing can be changed; units go on running")
	} else if c.leader == "" {
		out = append(out, "no machine leads: units of lost machines are not moved")
	}
	if text := c.degraded(); text != "" && h.Quorum {
		out = append(out, text)
	}
	if h.Trouble != "" {
		out = append(out, "the store complains: "+h.Trouble)
	}
	if text := s.expiring(now); text != "" {
		out = append(out, text)
	}
	if s.Warnings != nil {
		out = append(out, s.Warnings()...)
	}
	since := s.lostSince(c, now)
	for _, m := range c.sorted() {
		switch c.status(m) {
		case statusGone:
			text := "machine " + m.Name + " is gone"
			if t, ok := since[m.ID]; ok {
				text += " since " + moment(t, now)
			}
			if m.Voter {
				text += s.goneVoter(c, since[m.ID], now)
			}
			out = append(out, text)
		case statusLeaving:
			if !m.Leaving {
				out = append(out, "machine "+m.Name+" is leaving")
				break
			}
			n := len(c.onMachine(m.ID))
			out = append(out, fmt.Sprintf("machine %s is being removed and still has %d %s%s", m.Name, n, plural(n, "unit", "units"), andVote(m)))
		case statusRestarting:
			out = append(out, "machine "+m.Name+" is "+c.status(m))
		case statusDrained:
			if n := len(c.onMachine(m.ID)); n > 0 {
				out = append(out, fmt.Sprintf("machine %s is drained and still has %d %s", m.Name, n, plural(n, "unit", "units")))
			}
		}
	}
	if c.plan != nil && c.plan.Brake != nil {
		out = append(out, c.plan.Brake.Reason)
	}
	out = append(out, clipList(c.failures(), "more units have failed")...)
	var late []string
	for _, name := range slices.Sorted(maps.Keys(waiting)) {
		late = append(late, fmt.Sprintf("%s waits: %s", name, waiting[name]))
	}
	return append(out, clipList(late, "more units wait")...)
}

// andVote says that a machine that is being removed has its vote yet.
func andVote(m machine.Machine) string {
	if m.Voter {
		return " and its vote"
	}
	return ""
}

// voters counts the voters: "3 voters".
func voters(c *cluster) string {
	n, _ := c.voters()
	return fmt.Sprintf("%d %s", n, plural(n, "voter", "voters"))
}

// clipList keeps the first things and counts the others.
func clipList(list []string, more string) []string {
	if len(list) <= shown {
		return list
	}
	return append(list[:shown:shown], fmt.Sprintf("%d %s", len(list)-shown, more))
}

// failures tells of the units that failed or cannot be loaded.
func (c *cluster) failures() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c.units)) {
		for _, st := range c.states[name] {
			if st.Load != "loaded" || st.Active == "failed" {
				out = append(out, fmt.Sprintf("%s failed on %s: %s", name, c.name(st.Machine), failure(st)))
			}
		}
	}
	return out
}

// health answers GET /v1/health: the process is there. It does not ask the store.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, Health{ID: s.ID, Name: s.Name, Time: time.Now().UTC()})
}

// version answers GET /v1/version.
func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, Release{Version: s.Version, Machine: s.Name})
}

// halt answers POST /v1/halt.
func (s *Server) halt(w http.ResponseWriter, r *http.Request) error {
	if s.Halt == nil {
		return fault.New(fault.Unavailable, "this machine cannot be shut down by a request")
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // as long as it takes to start the units elsewhere
	if err := s.Halt(r.Context()); err != nil {
		return fault.Wrap(fault.KindOf(err), err, "shut %s down", s.Name)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
