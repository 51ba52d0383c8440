package show

import (
	"flota/internal/api"
	"flota/internal/machine"
	"flota/internal/unit"
)

// Row is a unit on one machine, or on none.
type Row struct {
	Unit  api.Unit
	State *api.State // nil: no machine reports it
}

// Rows gives one row for each unit and machine that reports it. With waiting also those that want a machine and that none reports.
func Rows(units []api.Unit, waiting bool) []Row {
	var out []Row
	for _, u := range units {
		for i := range u.States {
			out = append(out, Row{Unit: u, State: &u.States[i]})
		}
		if waiting && len(u.States) == 0 && u.Target != unit.Inactive && !u.Name.IsTemplate() {
			out = append(out, Row{Unit: u})
		}
	}
	return out
}

// Where names a machine in style s: "m2/127.7.0.2", or as fleetctl "a0000000.../10.0.0.1". full shows the whole id.
func Where(s Style, id machine.ID, name, addr string, full bool) string {
	text := string(id)
	switch {
	case id == "":
		return ""
	case !full && s == Fleet:
		text = id.Short() + "..."
	case !full && name != "":
		text = name
	}
	if addr != "" {
		text += "/" + addr
	}
	return text
}

// Units are the columns of list-units.
func Units(s Style) Columns[Row] {
	state := func(f func(api.State) string) func(Row, bool) string {
		return func(r Row, _ bool) string {
			if r.State == nil {
				return ""
			}
			return f(*r.State)
		}
	}
	c := Columns[Row]{
		Usual: []string{"unit", "machine", "active", "sub"},
		Cells: map[string]func(Row, bool) string{
			"unit": func(r Row, _ bool) string { return string(r.Unit.Name) },
			"machine": func(r Row, full bool) string {
				if r.State != nil {
					return Where(s, r.State.Machine, r.State.Name, r.State.Addr, full)
				}
				for _, p := range r.Unit.Places {
					return Where(s, p.Machine, p.Name, p.Addr, full)
				}
				return ""
			},
			"active": func(r Row, _ bool) string {
				if r.State == nil {
					return "waiting"
				}
				return r.State.Active
			},
			"sub":  state(func(st api.State) string { return st.Sub }),
			"load": state(func(st api.State) string { return st.Load }),
			"hash": func(r Row, full bool) string {
				if r.State != nil && r.State.Hash != "" {
					return Hash(r.State.Hash, full)
				}
				return Hash(r.Unit.Hash, full)
			},
		},
	}
	if s == Flota {
		c.Cells["target"] = func(r Row, _ bool) string { return string(r.Unit.Target) }
		c.Cells["desc"] = func(r Row, _ bool) string { return Description(r.Unit) }
		c.Cells["why"] = func(r Row, _ bool) string {
			if r.State == nil {
				return r.Unit.Waiting
			}
			return r.State.Message
		}
	}
	return c
}

// Hash is the first seven digits, or with full all of them.
func Hash(h string, full bool) string {
	if full || len(h) < 7 {
		return h
	}
	return h[:7]
}

// UnitFiles are the columns of list-unit-files.
func UnitFiles(s Style) Columns[api.Unit] {
	target := func(u api.Unit, full bool) string {
		if u.Global {
			return "global"
		}
		for _, p := range u.Places {
			if !p.Leaving {
				return Where(s, p.Machine, p.Name, p.Addr, full)
			}
		}
		return ""
	}
	return Columns[api.Unit]{
		Usual: []string{"unit", "hash", "dstate", "state", "target"},
		Cells: map[string]func(api.Unit, bool) string{
			"unit":   func(u api.Unit, _ bool) string { return string(u.Name) },
			"hash":   func(u api.Unit, full bool) string { return Hash(u.Hash, full) },
			"desc":   func(u api.Unit, _ bool) string { return Description(u) },
			"dstate": func(u api.Unit, _ bool) string { return string(u.Target) },
			"state": func(u api.Unit, _ bool) string {
				if u.Global {
					return ""
				}
				return string(u.Current)
			},
			"global": func(u api.Unit, _ bool) string {
				if u.Global {
					return "true"
				}
				return "false"
			},
			"target":   target,
			"tmachine": target,
		},
	}
}

// Machines are the columns of list-machines and machine list.
func Machines(s Style) Columns[api.Machine] {
	c := Columns[api.Machine]{
		Usual: []string{"machine", "ip", "metadata"},
		Cells: map[string]func(api.Machine, bool) string{
			"machine": func(m api.Machine, full bool) string {
				if s == Fleet {
					return Where(s, m.ID, m.Name, "", full)
				}
				if full {
					return string(m.ID)
				}
				return m.Name
			},
			"ip": func(m api.Machine, _ bool) string {
				if m.Presence == nil {
					return ""
				}
				return m.Presence.Addr
			},
			"metadata": func(m api.Machine, _ bool) string { return machine.PrintLabels(m.All) },
		},
	}
	if s == Flota {
		c.Cells["id"] = func(m api.Machine, full bool) string {
			if full {
				return string(m.ID)
			}
			return m.ID.Short()
		}
		c.Cells["status"] = func(m api.Machine, _ bool) string { return m.Status }
		c.Cells["units"] = func(m api.Machine, _ bool) string { return itoa(m.Units) }
		c.Cells["role"] = func(m api.Machine, _ bool) string { return role(m) }
		c.Cells["version"] = func(m api.Machine, _ bool) string {
			if m.Presence == nil {
				return ""
			}
			return m.Presence.Version
		}
	}
	return c
}

// role says what a machine is in the store, and whether it leads the cluster: "voter", "learner", "witness" or "client", with ",leader" behind.
func role(m api.Machine) string {
	text := "client"
	switch {
	case m.Witness:
		text = "witness"
	case m.Voter:
		text = "voter"
	case m.Learner:
		text = "learner"
	}
	if m.Leader {
		text += ",leader"
	}
	return text
}

// roleInWords says it at length.
func roleInWords(m api.Machine) string {
	text := "client: it holds no copy of the store"
	switch {
	case m.Voter:
		text = "voter: it holds a copy of the store and votes"
	case m.Learner:
		text = "learner: it holds a copy of the store and does not vote"
	}
	if m.Witness {
		text = "witness, " + text + "; no unit is placed on it"
	}
	if m.Leader {
		text += "; it leads the cluster"
	}
	return text
}
