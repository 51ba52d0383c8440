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
	statusLeaving    = "leaving"    // it shuts down cleanly
	statusRestarting = "restarting" // its agent announced a restart
)

// status is the machine's one word.
func (c *cluster) status(m machine.Machine) string {
	p, there := c.alive[m.ID]
	switch {
	case !there:
		return statusGone
	case p.Leaving:
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
		if m.Drained == yes {
			return keep
		}
		m.Drained = yes
		return put
	}
}

// removeMachine answers DELETE /v1/machines/{name}.
func (s *Server) removeMachine(w http.ResponseWriter, r *http.Request) error {
	c, m, err := s.pathMachine(r)
	if err != nil {
		return err
	}
	if err := c.mayRemove(m, r.URL.Query().Get("force") == "true"); err != nil {
		return err
	}
	_, _, err = modify(r.Context(), s, s.Store.Machines, string(m.ID), func(old machine.Machine, exists bool) (machine.Machine, act, error) {
		if !exists {
			return old, keep, nil
		}
		return old, remove, nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// mayRemove refuses to forget a machine that is still needed: fault.Conflict.
func (c *cluster) mayRemove(m machine.Machine, force bool) error {
	_, there := c.alive[m.ID]
	n := c.counts()[m.ID]
	switch {
	case there && m.Voter:
		return fault.WithHint(fault.New(fault.Conflict, "machine %s is there and holds a copy of the store", m.Name),
			"shut it down first")
	case m.Voter && !force:
		return fault.WithHint(fault.New(fault.Conflict, "machine %s is gone, but still counts as a voter of the store", m.Name),
			"--force removes it if it never comes back")
	case there && !force && (!m.Drained || n > 0):
		return fault.WithHint(fault.New(fault.Conflict, "machine %s is there, %s, with %d %s on it", m.Name, c.status(m), n, plural(n, "unit", "units")),
			"flota machine drain %s, and wait until it is empty", m.Name)
	}
	return nil
}

// Register stores the record of a machine that starts or joins: its name, that it votes, and when it joined first. Labels and
// drain that were set stay. fault.Exists if another machine has the name, fault.Unavailable for as long as another one is there with the ID.
func (s *Server) Register(ctx context.Context, m machine.Machine) error {
	if err := machine.CheckName(m.Name); err != nil {
		return err
	}
	all, _, err := s.Store.Machines.List(ctx, "", storeRead{})
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Value.Name == m.Name && e.Value.ID != m.ID {
			return fault.WithHint(fault.New(fault.Exists, "another machine is named %q already (id %s)", m.Name, e.Value.ID.Short()),
				"choose another --name, or flota machine remove %s if it is gone for good", m.Name)
		}
	}
	there, ok, err := s.Store.Alive.Get(ctx, string(m.ID), storeRead{})
	if err != nil {
		return err
	}
	if p := there.Value; ok && p.Name != m.Name && !p.Restarting {
		return fault.New(fault.Unavailable, "machine %s at %s runs with this machine id (%s)", p.Name, p.Addr, m.ID.Short())
	}
	_, _, err = modify(ctx, s, s.Store.Machines, string(m.ID), func(old machine.Machine, exists bool) (machine.Machine, act, error) {
		was := old
		old.ID, old.Name = m.ID, m.Name
		old.Voter = old.Voter || m.Voter // a machine with a copied ID must not take the vote of the one that has it
		if old.Joined.IsZero() {
			old.Joined = time.Now().UTC()
		}
		if exists && was.Name == old.Name && was.Voter == old.Voter && was.Joined.Equal(old.Joined) {
			return old, keep, nil
		}
		return old, put, nil
	})
	return err
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
