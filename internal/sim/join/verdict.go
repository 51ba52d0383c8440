package join

import (
	"slices"
	"strings"

	"flota/internal/machine"
	"flota/internal/store"
)

// because is how the refusals of each kind of machine must read. Machines of other kinds are not refused.
var because = map[string][]string{
	"twin-name": {"another machine is named"},
	"twin-id":   {"already, with another key"},
	"scarce":    {"is used up"},
	"late":      {"expired"},
	"revoked":   {"is not known to this cluster"},
	"half":      {"is wrong: its second half"},
	"other":     {"is not known to this cluster"},
	"skewed":    {"the clock of this machine is"},
	"removed":   {"was removed from the cluster", "does not know this machine"},
}

// verdict checks what became of everybody.
func (c *crowd) verdict() (members, refused int) {
	in := map[*joiner]bool{}
	for _, j := range c.joiners {
		i, out := j.member()
		switch {
		case i != nil:
			in[j] = true
			members++
		case out == nil:
			c.fail("%s is neither in nor refused", j.name)
		case !slices.ContainsFunc(because[j.kind], func(text string) bool { return strings.Contains(out.Error(), text) }):
			c.fail("%s is refused for a wrong reason: %v", j.name, out)
		default:
			refused++
		}
	}
	for _, g := range c.groups {
		n := 0
		for _, j := range g.members {
			if in[j] {
				n++
			}
		}
		if n > g.most || g.all && n < g.most {
			c.fail("%d machines like %s came in, want %d", n, g.members[0].name, g.most)
		}
	}
	c.roll(in)
	return members, refused
}

// roll holds the table of machines against those that came in.
func (c *crowd) roll(in map[*joiner]bool) {
	all, _, err := c.store.Machines.List(c.t.Context(), "", store.Read{})
	c.must(err)
	want := len(c.seats)
	for _, j := range c.joiners {
		if j.kind == "removed" || j.kind == "leaver" && in[j] {
			if !c.wasRemoved(j.id, c.began.AddDate(1, 0, 0)) {
				c.fail("%s is still in", j.name)
			}
			j.shutOut()
			continue
		}
		if !in[j] {
			if j.kind == "twin-id" {
				j.shutOut() // it bears a member's ID, and not its key
			}
			continue
		}
		want++
		i, _ := j.member()
		c.checkIdentity(j, i)
		if !slices.ContainsFunc(all, func(e store.Entry[machine.Machine]) bool { return e.Value.ID == j.id && e.Value.Key == i.KeyHash() }) {
			c.fail("%s came in and is not in the table", j.name)
		}
	}
	if len(all) != want {
		c.fail("there are %d machines, want %d", len(all), want)
	}
}
