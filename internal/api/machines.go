package api

import (
	"context"
	"maps"
	"net/http"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/unit"
)

// The words of Machine.Status.
const (
	statusReady      = "ready"
	statusGone       = "gone"       // no sign of life
	statusDrained    = "drained"    // there, and gets no units
	statusLeaving    = "leaving"    // it shuts down cleanly, or is being removed
	statusRestarting = "restarting" // its agent announced a restart
)

// status is the machine's one word.
func (c *cluster) status(m machine.Machine) string {
	p, there := c.alive[m.ID]
	switch {
	case !there:
		return statusGone
	case p.Leaving || m.Leaving:
		return statusLeaving
	case p.Restarting:
		return statusRestarting
	case m.Drained:
		return statusDrained
	}
	return statusReady
}

// machineOf is the machine as it is sent. units are the places on it.
func (c *cluster) machineOf(m machine.Machine, units int) Machine {
	v := c.votes[m.ID].Role
	m.Voter, m.Learner = v == machine.Voter, v == machine.Learner
	out := Machine{Machine: m, Status: c.status(m), Leader: c.leader == m.ID, Units: units}
	p, there := c.alive[m.ID]
	if there {
		out.Presence = &p
	}
	out.All = machine.Labels(p, m)
	return out
}

// counts gives how many places each machine has. c must be whole.
func (c *cluster) counts() map[machine.ID]int {
	n := map[machine.ID]int{}
	for _, ps := range c.places {
		for _, p := range ps {
			n[p.Machine]++
		}
	}
	return n
}

// allMachines gives all machines as they are sent, by name. c must be whole.
func (c *cluster) allMachines() []Machine {
	n := c.counts()
	out := []Machine{}
	for _, m := range c.sorted() {
		out = append(out, c.machineOf(m, n[m.ID]))
	}
	return out
}

// listMachines answers GET /v1/machines.
func (s *Server) listMachines(w http.ResponseWriter, r *http.Request) error {
	c, err := s.whole(r.Context())
	if err != nil {
		return err
	}
	return answerRead(w, c.stale, List[Machine]{Items: c.allMachines(), Stale: c.stale})
}

// pathMachine reads the cluster and finds the machine named in the path.
func (s *Server) pathMachine(r *http.Request) (*cluster, machine.Machine, error) {
	c, err := s.whole(r.Context())
	if err != nil {
		return nil, machine.Machine{}, err
	}
	m, err := c.find(r.PathValue("name"))
	return c, m, err
}

// getMachine answers GET /v1/machines/{name}.
func (s *Server) getMachine(w http.ResponseWriter, r *http.Request) error {
	c, m, err := s.pathMachine(r)
	if err != nil {
		return err
	}
	return answerRead(w, c.stale, c.machineOf(m, c.counts()[m.ID]))
}

// changeMachine changes the record of the machine named in the path, and answers with the machine.
func (s *Server) changeMachine(w http.ResponseWriter, r *http.Request, change func(m *machine.Machine) act) error {
	c, m, err := s.pathMachine(r)
	if err != nil {
		return err
	}
	after, _, err := modify(r.Context(), s, s.Store.Machines, string(m.ID), func(old machine.Machine, exists bool) (machine.Machine, act, error) {
		if !exists { // known by its presence only
			old = machine.Machine{ID: m.ID, Name: m.Name, Joined: time.Now().UTC()}
		}
		old.Labels = maps.Clone(old.Labels)
		do := change(&old)
		return old, do, nil
	})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, c.machineOf(after, c.counts()[m.ID]))
}

// patchMachine answers PATCH /v1/machines/{name}.
func (s *Server) patchMachine(w http.ResponseWriter, r *http.Request) error {
	var p PatchMachine
	if err := body(r, &p); err != nil {
		return err
	}
	if err := checkLabels(p.Labels); err != nil {
		return err
	}
	return s.changeMachine(w, r, func(m *machine.Machine) act { return setLabels(m, p.Labels) })
}

// maxLabel is the longest key or value of a label: 253 bytes, as long as a host name.
const maxLabel = 253

// checkLabels refuses keys that are no label's.
func checkLabels(set map[string]*string) error {
	for k, v := range set {
		if _, _, err := machine.ParseLabel(k + "="); err != nil {
			return err
		}
		if len(k) > maxLabel || v != nil && len(*v) > maxLabel {
			return fault.New(fault.Invalid, "label %q: key and value are at most %d bytes", clip(k), maxLabel)
		}
	}
	return nil
}

// setLabels sets labels; nil removes one. A label that is removed stays as "", which hides what the machine brings itself.
func setLabels(m *machine.Machine, set map[string]*string) act {
	do := keep
	for k, v := range set {
		value := ""
		if v != nil {
			value = *v
		}
		if old, had := m.Labels[k]; had && old == value {
			continue
		}
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[k] = value
		do = put
	}
	return do
}

// drain answers POST /v1/machines/{name}/drain.
func (s *Server) drain(w http.ResponseWriter, r *http.Request) error {
	return s.changeMachine(w, r, drained(true))
}

// resume answers POST /v1/machines/{name}/resume.
func (s *Server) resume(w http.ResponseWriter, r *http.Request) error {
	return s.changeMachine(w, r, drained(false))
}

// drained sets whether a machine is drained.
func drained(yes bool) func(*machine.Machine) act {
	return func(m *machine.Machine) act {
		if m.Drained == yes && (yes || !m.Leaving) {
			return keep
		}
		m.Drained = yes
		m.Leaving = m.Leaving && yes // who takes a drain back takes a removal back too
		return put
	}
}

// label sets labels of the machine with the ID, which need not have joined yet.
func (s *Server) label(ctx context.Context, id machine.ID, set map[string]*string) error {
	_, _, err := modify(ctx, s, s.Store.Machines, string(id), func(old machine.Machine, exists bool) (machine.Machine, act, error) {
		old.ID, old.Labels = id, maps.Clone(old.Labels)
		return old, setLabels(&old, set), nil
	})
	return err
}

// onMachine gives the units with a place on the machine, those that are leaving left out.
func (c *cluster) onMachine(id machine.ID) []unit.Name {
	var out []unit.Name
	for name, ps := range c.places {
		for _, p := range ps {
			if p.Machine == id && !p.Leaving {
				out = append(out, name)
			}
		}
	}
	return out
}
