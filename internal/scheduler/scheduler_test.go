package scheduler

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// noon is the time of most plans.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// mid makes the ID of machine mN.
func mid(n int) machine.ID { return machine.ID(fmt.Sprintf("%08x%024x", n, n)) }

// live makes machine mN, which is there, with labels "k=v" and a memory size "512M" in MiB when mem is not 0.
func live(n int, mem int64, labels ...string) Machine {
	name := fmt.Sprintf("m%d", n)
	m := Machine{Machine: machine.Machine{ID: mid(n), Name: name}}
	m.Presence = &machine.Presence{ID: m.ID, Name: name, Labels: map[string]string{}, Size: machine.Size{MemBytes: mem << 20}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		m.Presence.Labels[k] = v
	}
	return m
}

// launched makes a launched unit; options are "Key=value" of [X-Fleet], or "[Section]Key=value".
func launched(name string, options ...string) Unit { return prepared(name, unit.Launched, options...) }

func prepared(name string, target unit.Target, options ...string) Unit {
	u := unit.Unit{Name: unit.Name(name), Target: target}
	for _, o := range options {
		section := "X-Fleet"
		if strings.HasPrefix(o, "[") {
			section, o, _ = strings.Cut(o[1:], "]")
		}
		k, v, _ := strings.Cut(o, "=")
		u.Options = append(u.Options, unit.Option{Section: section, Name: k, Value: v})
	}
	return Prepare(u)
}

func cluster(machines []Machine, units ...Unit) Cluster {
	return Cluster{Machines: machines, Units: units}
}

func threeMachines() []Machine { return []Machine{live(1, 0), live(2, 0), live(3, 0)} }

// settled plans and applies until nothing moves.
func settled(t testing.TB, c Cluster) Cluster {
	t.Helper()
	for range 10 {
		p := Make(c, noon)
		if len(p.Moves) == 0 {
			return c
		}
		c = Apply(c, p)
	}
	t.Fatal("planning does not come to rest")
	return c
}

// where maps each unit to the names of its machines; leaving ones have a minus.
func where(c Cluster) map[unit.Name]string {
	all := map[unit.Name][]string{}
	for _, p := range c.Places {
		name := p.Machine.Short()
		for _, m := range c.Machines {
			if m.ID == p.Machine {
				name = m.Name
			}
		}
		if p.Leaving {
			name = "-" + name
		}
		all[p.Unit.Name] = append(all[p.Unit.Name], name)
	}
	out := map[unit.Name]string{}
	for n, list := range all {
		slices.Sort(list)
		out[n] = strings.Join(list, " ")
	}
	return out
}

func on(c Cluster, name string) string { return where(c)[unit.Name(name)] }

// waits gives why a unit waits, "" if it does not.
func waits(p Plan, name string) string {
	for _, w := range p.Waiting {
		if string(w.Unit) == name {
			return w.Reason
		}
	}
	return ""
}

// text prints moves for comparison: "kind unit from>to".
func text(p Plan) string {
	names := func(id machine.ID) string {
		if id == "" {
			return ""
		}
		var n int
		fmt.Sscanf(id.Short(), "%x", &n)
		return fmt.Sprintf("m%d", n)
	}
	var all []string
	for _, m := range p.Moves {
		all = append(all, fmt.Sprintf("%s %s %s>%s", m.Kind, m.Unit, names(m.From), names(m.To)))
	}
	return strings.Join(all, "\n")
}

// kill takes machine mN away at lost.
func kill(c Cluster, lost time.Time, ns ...int) Cluster {
	c.Machines = slices.Clone(c.Machines)
	for i := range c.Machines {
		for _, n := range ns {
			if c.Machines[i].ID == mid(n) {
				c.Machines[i].Presence, c.Machines[i].Lost = nil, lost
			}
		}
	}
	return c
}

func without(c Cluster, name string) Cluster {
	c.Units = slices.DeleteFunc(slices.Clone(c.Units), func(u Unit) bool { return string(u.Name) == name })
	return c
}

// broken lists what is wrong with the places of c, judged without the scheduler's own code. Machines that take no units and
// units that cannot be read are not judged, nor is room where something is leaving.
func broken(c Cluster) []string {
	var bad []string
	units := map[unit.Name]Unit{}
	for _, u := range c.Units {
		units[u.Name] = u
	}
	homes := map[unit.Name][]machine.ID{}
	byMachine := map[machine.ID][]unit.Place{}
	seen := map[string]bool{}
	for _, p := range c.Places {
		if key := string(p.Machine) + "/" + string(p.Unit.Name); seen[key] {
			bad = append(bad, "stored twice: "+key)
		} else {
			seen[key] = true
		}
		byMachine[p.Machine] = append(byMachine[p.Machine], p)
		if !p.Leaving {
			homes[p.Unit.Name] = append(homes[p.Unit.Name], p.Machine)
		}
	}
	for n, all := range homes {
		if len(all) > 1 && !units[n].Fleet.Global {
			bad = append(bad, fmt.Sprintf("%s is on %d machines", n, len(all)))
		}
	}
	for _, m := range c.Machines {
		if m.Presence == nil || m.Drained || m.Presence.Leaving {
			continue
		}
		bad = append(bad, brokenOn(m, byMachine[m.ID], units, homes)...)
	}
	slices.Sort(bad)
	return bad
}

func brokenOn(m Machine, here []unit.Place, units map[unit.Name]Unit, homes map[unit.Name][]machine.ID) (bad []string) {
	var mem int64
	leaving := false
	for _, p := range here {
		u, ok := units[p.Unit.Name]
		if !ok || u.Bad != "" || p.Leaving {
			leaving = leaving || p.Leaving
			continue
		}
		mem += u.Needs.MemBytes
		if why := refused(m, u, here, units, homes); why != "" {
			bad = append(bad, fmt.Sprintf("%s on %s: %s", u.Name, m.Name, why))
		}
	}
	if size := m.Presence.Size.MemBytes; size > 0 && mem > size && !leaving {
		bad = append(bad, fmt.Sprintf("%s is overcommitted", m.Name))
	}
	return bad
}

// refused says why u cannot be on m among the places there, but for room.
func refused(m Machine, u Unit, here []unit.Place, units map[unit.Name]Unit, homes map[unit.Name][]machine.ID) string {
	labels := machine.Labels(*m.Presence, m.Machine)
	if id := u.Fleet.MachineID; id != "" && id != string(m.ID) && id != m.ID.Short() && id != m.Name {
		return "MachineID"
	}
	for k, values := range u.Fleet.Metadata {
		if have, ok := labels[k]; !ok || !slices.Contains(values, have) {
			return "label " + k
		}
	}
	for _, peer := range u.Fleet.MachineOf {
		if peer != u.Name && !slices.Contains(homes[peer], m.ID) {
			return "MachineOf " + string(peer)
		}
	}
	hit := func(globs []string, n unit.Name) bool {
		return slices.ContainsFunc(globs, func(g string) bool { ok, _ := path.Match(g, string(n)); return ok })
	}
	for _, p := range here {
		v, ok := units[p.Unit.Name]
		if !ok || v.Name == u.Name || p.Leaving {
			continue
		}
		switch {
		case hit(u.Fleet.Conflicts, v.Name) && !hit(v.Fleet.Replaces, u.Name):
			return "Conflicts " + string(v.Name)
		case hit(v.Fleet.Conflicts, u.Name) && !hit(u.Fleet.Replaces, v.Name):
			return "in conflict with " + string(v.Name)
		case hit(u.Fleet.Replaces, v.Name) || hit(v.Fleet.Replaces, u.Name):
			return "replaces " + string(v.Name)
		}
	}
	return ""
}

// reversed gives the cluster with its slices turned round.
func reversed(c Cluster) Cluster {
	c.Machines, c.Units, c.Places = slices.Clone(c.Machines), slices.Clone(c.Units), slices.Clone(c.Places)
	slices.Reverse(c.Machines)
	slices.Reverse(c.Units)
	slices.Reverse(c.Places)
	return c
}
