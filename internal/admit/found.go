package admit

import (
	"context"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// Found makes the records of a new cluster: the cluster's own, and the first machine with its name. It may be repeated: what is there stays.
// fault.Conflict if the store is another cluster's.
func (d *Desk) Found(ctx context.Context) error {
	st, id := d.o.Store, d.o.Identity
	e, ok, err := st.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil {
		return err
	}
	if ok && e.Value.ID != id.Cluster() {
		return fault.WithHint(fault.New(fault.Conflict, "the store is that of cluster %.8s, this machine belongs to cluster %.8s", e.Value.ID, id.Cluster()),
			"a machine changes clusters only with an empty data directory")
	}
	if ok {
		_, err := d.Register(ctx)
		return err
	}
	now := d.now()
	m := machine.Machine{ID: d.o.ID, Name: d.o.Name, Joined: now, Witness: d.o.Witness, Key: id.KeyHash(), Standing: machine.Standing(id.Standing())}
	c := machine.Cluster{ID: id.Cluster(), Epoch: id.Epoch(), Created: now, Trust: string(id.Bundle())}
	old, _, err := st.Machines.Get(ctx, string(m.ID), store.Read{}) // labels that somebody was quick to set
	if err != nil {
		return err
	}
	m.Labels = old.Value.Labels
	done, err := d.commit(ctx, store.Txn{
		If: []store.Cond{st.Cluster.IfAbsent(store.ThisCluster), st.Machines.IfRev(string(m.ID), old.Rev), st.Names.IfAbsent(m.Name)},
		Then: []store.Op{st.Cluster.PutOp(store.ThisCluster, c, 0), st.Machines.PutOp(string(m.ID), m, 0),
			st.Names.PutOp(m.Name, m.ID, 0)},
	})
	if err != nil {
		return err
	}
	if !done {
		return fault.New(fault.Unavailable, "the cluster was made at the same time by somebody else; try again")
	}
	d.o.Log.Info("a cluster was made", "cluster", c.ID, "authority", id.CAHash())
	return nil
}

// Register is what each member does when it starts: it sees that it still is one, and tells its name and whether it is a witness, which may have
// changed. fault.Denied if it was removed, fault.Exists if another machine has the name.
func (d *Desk) Register(ctx context.Context) (machine.Machine, error) {
	c := caller{JoinRequest: JoinRequest{ID: d.o.ID, Name: d.o.Name}, key: d.o.Identity.KeyHash(), arrived: d.now()}
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		s, err := d.look(ctx, c)
		if err != nil {
			return machine.Machine{}, err
		}
		m, txn, err := s.restart(c, d.o.Witness)
		if err != nil || len(txn.Then) == 0 {
			return m, err
		}
		if done, err := d.commit(ctx, txn); err != nil || done {
			return m, err
		}
		if !sleep(ctx, pause) {
			return m, fault.Wrap(fault.Unavailable, ctx.Err(), "register this machine")
		}
	}
}

// restart decides what a member's start changes.
func (s seen) restart(c caller, witness bool) (m machine.Machine, t store.Txn, err error) {
	switch {
	case s.gone.Rev != 0:
		return m, t, removed(s.gone.Value)
	case !s.member():
		return m, t, fault.WithHint(fault.New(fault.Denied, "the cluster does not know this machine (id %s)", c.ID.Short()),
			"join it with a new token and an empty data directory: flota token create, on a machine of the cluster")
	case s.machine.Value.Key != c.key:
		return m, t, fault.WithHint(fault.New(fault.Denied, "the cluster knows %q (id %s) by another key than this machine's", s.machine.Value.Name, c.ID.Short()),
			"if this is a copy of that machine, join it as a new one with an empty data directory")
	case s.name.Rev != 0 && s.name.Value != c.ID:
		return m, t, fault.WithHint(fault.New(fault.Exists, "another machine is named %q already (id %s)", c.Name, s.name.Value.Short()),
			"choose another --name, or flota machine remove %s if it is gone for good", c.Name)
	}
	m = s.machine.Value
	changed := m.Witness != witness
	m.Witness = witness
	m, t, err = s.rename(m, c.Name)
	if changed && len(t.Then) == 0 {
		id := string(m.ID)
		t = store.Txn{If: []store.Cond{s.st.Machines.IfRev(id, s.machine.Rev)}, Then: []store.Op{s.st.Machines.PutOp(id, m, 0)}}
	}
	return m, t, err
}

// removed tells a machine that it is no member any more.
func removed(g machine.Gone) error {
	return fault.WithHint(fault.New(fault.Denied, removedText+" as %q on %s: %s", g.Name, g.Time.UTC().Format(time.DateTime), g.Reason),
		"to let it in as a new machine remove its data directory first, so that it gets another id, and join with a new token")
}

// removedText begins what a removed machine is told; it crosses the wire as text.
const removedText = "this machine was removed from the cluster"

// WasRemoved says whether a refusal tells this machine that it was removed: it is a member never again.
func WasRemoved(err error) bool {
	return fault.Is(err, fault.Denied) && strings.Contains(err.Error(), removedText)
}
