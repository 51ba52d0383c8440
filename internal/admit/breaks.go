package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// damage is what the removal of a machine would break. The zero value is nothing.
type damage struct {
	what  string
	fatal bool // nothing would be left: not even Force does it
}

// refusal is the error that says so: fault.Conflict.
func (x damage) refusal(m machine.Machine) error {
	err := fault.New(fault.Conflict, "removing %s would break the quorum: %s", m.Name, x.what)
	if x.fatal {
		return fault.WithHint(fault.New(fault.Conflict, "%s cannot be removed: %s", m.Name, x.what), "to end the cluster stop flota there and remove its data directory")
	}
	return fault.WithHint(err, "start the machines that are gone, or wait until they are replaced (flota status); "+
		"--force removes it all the same, and then nothing can be changed until flota recover")
}

// breaks reads the cluster and says what the removal of m would break.
func (d *Desk) breaks(ctx context.Context, m machine.Machine) (damage, error) {
	st, r := d.o.Store, store.Read{}
	machines, _, err := st.Machines.List(ctx, "", r)
	if err != nil {
		return damage{}, err
	}
	alive, _, err := st.Alive.List(ctx, "", r)
	if err != nil {
		return damage{}, err
	}
	votes, _, err := st.Voters.List(ctx, "", r)
	if err != nil {
		return damage{}, err
	}
	c := council{names: map[machine.ID]string{}, there: map[machine.ID]bool{}}
	for _, e := range machines {
		if isMember(e.Value) {
			c.names[e.Value.ID] = e.Value.Name
		}
	}
	for _, e := range alive {
		c.there[e.Value.ID] = true
	}
	for _, e := range votes {
		if e.Value.Role == machine.Voter {
			c.voters = append(c.voters, e.Value.Machine)
		}
	}
	return c.without(m.ID), nil
}

// council is who votes, and who is there.
type council struct {
	names  map[machine.ID]string // of all members
	there  map[machine.ID]bool
	voters []machine.ID
}

// without says what is broken when the machine goes. The steward moves a vote one step at a time and only while a majority works; so what
// counts is whether the voters that stay have one, or, when none stays, whether a machine is there to take over.
func (c council) without(id machine.ID) damage {
	if len(c.names) <= 1 {
		return damage{what: "it is the only machine of the cluster", fatal: true}
	}
	if !slices.Contains(c.voters, id) {
		return damage{}
	}
	var stay, lost []string
	for _, v := range c.voters {
		if v == id {
			continue
		}
		stay = append(stay, c.name(v))
		if !c.there[v] {
			lost = append(lost, c.name(v))
		}
	}
	if len(stay) == 0 {
		for other := range c.names {
			if other != id && c.there[other] {
				return damage{}
			}
		}
		return damage{what: "it alone holds the store, and no other machine is there to take it over"}
	}
	need, have := len(stay)/2+1, len(stay)-len(lost)
	if have >= need {
		return damage{}
	}
	slices.Sort(stay)
	slices.Sort(lost)
	return damage{what: fmt.Sprintf("%s would vote, %s %s gone; %d of %d %s needed", list(stay), list(lost), plural(len(lost), "is", "are"),
		need, len(stay), plural(need, "is", "are"))}
}

// name is what people call the machine.
func (c council) name(id machine.ID) string { return orElse(c.names[id], id.Short()) }

// list prints names: "m1, m2 and m3".
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
