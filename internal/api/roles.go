package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"flota/internal/machine"
)

// defaultReplace is after how long a voter that is gone is replaced. Source: the issue; room quorum has the same.
const defaultReplace = 60 * time.Second

// rolesWithin bounds the question to the store's engine for its members.
const rolesWithin = 300 * time.Millisecond

// roles writes into the machines what they are in the store: what the votes say. While there are no votes yet, as in the first moments of a
// cluster, the engine's own members count, whose names are those of the machines.
func (s *Server) roles(ctx context.Context, c *cluster) {
	if s.External {
		return
	}
	if len(c.votes) == 0 {
		ask, cancel := context.WithTimeout(ctx, rolesWithin)
		defer cancel()
		for _, x := range s.Store.KV.Health(ask).Members {
			if m, ok := c.named(x.Name); ok {
				c.votes[m.ID] = machine.Vote{Machine: m.ID, Role: machine.Voter}
				if x.Learner {
					c.votes[m.ID] = machine.Vote{Machine: m.ID, Role: machine.Learner}
				}
			}
		}
	}
	c.applyRoles()
}

// applyRoles sets Voter and Learner of all machines.
func (c *cluster) applyRoles() {
	for id, m := range c.machines {
		role := c.votes[id].Role
		m.Voter, m.Learner = role == machine.Voter, role == machine.Learner
		c.machines[id] = m
	}
}

// named gives the machine with the name.
func (c *cluster) named(name string) (machine.Machine, bool) {
	for _, m := range c.machines {
		if m.Name == name {
			return m, true
		}
	}
	return machine.Machine{}, false
}

// voters counts the machines that vote, and those of them that are there.
func (c *cluster) voters() (all, there int) {
	for id, m := range c.machines {
		if !m.Voter {
			continue
		}
		all++
		if _, ok := c.alive[id]; ok {
			there++
		}
	}
	return all, there
}

// explainRole says what the machine is in the store.
func (c *cluster) explainRole(m machine.Machine) []string {
	var out []string
	name := c.name(m.ID)
	switch {
	case m.Voter:
		out = append(out, name+" is one of "+voters(c)+" of the store")
	case m.Learner:
		out = append(out, name+" holds a copy of the store, without a vote")
	}
	if v := c.votes[m.ID]; v.Reason != "" && !v.Since.IsZero() {
		out = append(out, fmt.Sprintf("that is since %s: %s", v.Since.Format(time.DateTime), v.Reason))
	}
	if m.Witness {
		out = append(out, name+" is a witness: it only ever votes, and no unit is placed on it")
	}
	if m.Leaving {
		out = append(out, name+" is being removed: its units and its vote move away first; flota machine resume "+name+" takes that back")
	}
	return out
}

// goneVoter says what becomes of a voter that is gone since a time (zero: it is not known).
func (s *Server) goneVoter(c *cluster, since, now time.Time) string {
	text := "; it is one of " + voters(c) + " of the store"
	var able bool
	for id, m := range c.machines {
		_, there := c.alive[id]
		able = able || there && !m.Voter && !m.Leaving
	}
	switch due := since.Add(s.ReplaceAfter); {
	case !able:
		return text + ", and no machine is there to take its vote"
	case since.IsZero():
		return text + ", and is replaced after " + s.ReplaceAfter.String()
	case due.After(now):
		return text + ", and is replaced at " + due.Format("15:04:05") + " unless it comes back"
	}
	return text + ", and is about to be replaced"
}

// degraded says that the store has lost voters and still works; "" if it has all.
func (c *cluster) degraded() string {
	all, there := c.voters()
	if there == all || there <= all/2 {
		return "" // all is well, or no quorum, which is said elsewhere
	}
	spare := there - all/2 - 1
	if spare == 0 {
		return fmt.Sprintf("the store works with %d of %d voters: if one more is lost nothing can be changed", there, all)
	}
	return fmt.Sprintf("the store works with %d of %d voters: it bears the loss of %d more", there, all, spare)
}

// advice gives what would make the cluster better; nothing is wrong.
func (s *Server) advice(c *cluster) []string {
	var all, witnesses int
	for _, m := range c.machines {
		if m.Leaving {
			continue
		}
		all++
		if m.Witness {
			witnesses++
		}
	}
	if all == 2 && witnesses == 0 && !s.External {
		voter := ""
		for _, m := range c.sorted() {
			if m.Voter {
				voter = m.Name
			}
		}
		if voter != "" {
			return []string{"of two machines only " + voter + " votes: without it nothing can be changed; a third machine, " +
				"or a small one with flota up --witness, lets the cluster bear the loss of any one"}
		}
	}
	return nil
}

// versions says that machines run different versions; "" if they do not.
func (c *cluster) versions() string {
	on := map[string][]string{}
	for id, p := range c.alive {
		on[p.Version] = append(on[p.Version], c.name(id))
	}
	if len(on) < 2 {
		return ""
	}
	var parts []string
	for v, names := range on {
		slices.Sort(names)
		if len(names) > 3 {
			names = append(names[:3:3], fmt.Sprintf("%d more", len(names)-3))
		}
		parts = append(parts, fmt.Sprintf("%s on %s", v, join(names)))
	}
	slices.Sort(parts)
	return "machines run different versions: " + join(parts)
}

// join prints things: "a, b and c".
func join(list []string) string {
	out := ""
	for i, x := range list {
		switch {
		case i == 0:
		case i == len(list)-1:
			out += " and "
		default:
			out += ", "
		}
		out += x
	}
	return out
}

// expiring says that this machine's certificate has not been renewed in time; "" if all is well. It is renewed at half of its life; at a third
// before its end something is wrong.
func (s *Server) expiring(now time.Time) string {
	if s.Certificate == nil {
		return ""
	}
	made, ends := s.Certificate()
	if left := ends.Sub(now); left > ends.Sub(made)/3 {
		return ""
	} else if left <= 0 {
		return "the certificate of " + s.Name + " has ended, and no voter has given it a new one yet: other machines refuse it"
	}
	return "the certificate of " + s.Name + " ends at " + ends.In(now.Location()).Format(time.DateTime) + ", and no voter has given it a new one yet"
}
