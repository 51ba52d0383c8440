package admit

import (
	"maps"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// member says whether a machine with the ID was let in. A record without a key holds only labels that were set before it came.
func (s seen) member() bool { return s.machine.Rev != 0 && s.machine.Value.Key != "" }

// decide says what becomes of a request: the machine and what to write (nothing if it is a member already and the request is repeated), or
// why it is refused. A stranger hears nothing but what is wrong with its token.
func (s seen) decide(c caller) (machine.Machine, store.Txn, error) {
	same := s.member() && s.machine.Value.Key == c.key // it proved that it has the key
	repeated := same && s.machine.Value.Token == c.secret.ID
	if err := s.tokenOpens(c, repeated); err != nil {
		return machine.Machine{}, store.Txn{}, err
	}
	if err := s.refuse(c, same, repeated); err != nil {
		return machine.Machine{}, store.Txn{}, err
	}
	if same {
		return s.rename(s.machine.Value, c.Name)
	}
	return s.letIn(c)
}

// tokenOpens refuses what the token does not allow: fault.Denied. A machine that is in needs no use of it: its answer may have been lost.
func (s seen) tokenOpens(c caller, repeated bool) error {
	t := s.token.Value
	switch {
	case s.token.Rev == 0 && repeated:
		return nil // the token is gone by now; the key shows who asks
	case s.token.Rev == 0:
		return fault.WithHint(fault.New(fault.Denied, "join token %s is not known to this cluster: it was revoked, or expired more than a day ago, "+
			"or another cluster made it", c.secret.ID), "make a new one on a machine of this cluster: flota token create")
	case !c.secret.Opens(t):
		return fault.WithHint(fault.New(fault.Denied, "join token %s is wrong: its second half is not the one that was made", t.ID),
			"copy the whole line that flota token create printed")
	case repeated:
		return nil
	case t.Expired(c.arrived):
		return fault.WithHint(fault.New(fault.Denied, "join token %s expired %s ago", t.ID, span(c.arrived.Sub(t.Expires))),
			"make a new one: flota token create; --ttl lets it live longer")
	case t.Uses <= 0:
		return fault.WithHint(fault.New(fault.Denied, "join token %s is used up: %d %s joined with it", t.ID, len(t.Used), plural(len(t.Used), "machine", "machines")),
			"make a new one: flota token create; --uses lets more machines in")
	}
	return nil
}

// refuse says why a machine with a good token is not let in all the same.
func (s seen) refuse(c caller, same, repeated bool) error {
	skew := c.Clock.Sub(c.arrived)
	was := s.machine.Value
	switch {
	case skew > maxSkew || skew < -maxSkew:
		return fault.WithHint(fault.New(fault.Denied, "the clock of this machine is %s: it says %s, the cluster's says %s", offBy(skew),
			c.Clock.UTC().Format(time.DateTime), c.arrived.UTC().Format(time.DateTime)),
			"set it right, at best by NTP (timedatectl set-ntp true), and try again; up to %s are well", maxSkew)
	case s.gone.Rev != 0:
		return removed(s.gone.Value)
	case s.member() && !same:
		return fault.WithHint(fault.New(fault.Exists, "machine id %s is that of %q already, with another key", c.ID.Short(), was.Name),
			"if this is a copy of that machine, remove the data directory here, so that it gets an id of its own; "+
				"if it is the same machine installed anew: flota machine remove %s --force, and then likewise", was.Name)
	case same && !repeated && s.there:
		return fault.WithHint(fault.New(fault.Exists, "this machine is a member of the cluster already, as %q", was.Name), "start it without --join: flota up")
	case s.name.Rev != 0 && s.name.Value != c.ID:
		return fault.WithHint(fault.New(fault.Exists, "another machine is named %q already (id %s)", c.Name, s.name.Value.Short()),
			"choose another --name, or flota machine remove %s if it is gone for good", c.Name)
	}
	return nil
}

// letIn is the transaction that makes a machine a member. The conditions are what look saw: the use of the token, that nobody has the ID or the
// name, and that it was not removed.
func (s seen) letIn(c caller) (machine.Machine, store.Txn, error) {
	t := s.token.Value
	t.Uses--
	t.Used = append(slices.Clone(t.Used), string(c.ID))
	m := s.machine.Value // labels that were set before it came, or nothing
	m.Labels = maps.Clone(m.Labels)
	if m.Labels == nil && len(t.Labels) > 0 {
		m.Labels = map[string]string{}
	}
	maps.Copy(m.Labels, t.Labels)
	m.ID, m.Name, m.Joined, m.Witness, m.Key, m.Token = c.ID, c.Name, c.arrived.UTC(), c.Witness, c.key, t.ID
	id := string(c.ID)
	return m, store.Txn{
		If: []store.Cond{s.st.Joins.IfRev(t.ID, s.token.Rev), s.st.Machines.IfRev(id, s.machine.Rev),
			s.st.Names.IfRev(c.Name, s.name.Rev), s.st.Removed.IfAbsent(id)},
		Then: []store.Op{s.st.Joins.PutOp(t.ID, t, 0), s.st.Machines.PutOp(id, m, 0), s.st.Names.PutOp(c.Name, c.ID, 0)},
	}, nil
}

// rename is the transaction that gives a member another name; none if it has it. The caller has seen that nobody else has it.
func (s seen) rename(m machine.Machine, name string) (machine.Machine, store.Txn, error) {
	if m.Name == name && s.name.Rev != 0 {
		return m, store.Txn{}, nil
	}
	old := m.Name
	m.Name = name
	id := string(m.ID)
	t := store.Txn{
		If:   []store.Cond{s.st.Machines.IfRev(id, s.machine.Rev), s.st.Names.IfRev(name, s.name.Rev), s.st.Removed.IfAbsent(id)},
		Then: []store.Op{s.st.Machines.PutOp(id, m, 0), s.st.Names.PutOp(name, m.ID, 0)},
	}
	if old != "" && old != name {
		t.Then = append(t.Then, s.st.Names.DeleteOp(old))
	}
	return m, t, nil
}
