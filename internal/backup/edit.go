package backup

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/etcd"
)

// editor makes the restored store that of a new cluster, before anybody reads it.
type editor struct {
	manifest Manifest
	trust    Trust
	options  RestoreOptions
	key      string // hash of the first machine's public key, as machine.Machine has it

	epoch   int            // set by edit
	dropped map[string]int // set by edit
}

// edit drops what was true of the old machines only, and raises the epoch. Applications' keys stay as they are: those under a lease too,
// which gets its full time again and may be renewed by its owner; if nobody does, it ends, and they go with it, as in any etcd that was away.
//
// Always dropped: presences, states, the election (signs of life of processes that are not there), votes (the member is the one of this
// restore), join tokens (one that was used up, or revoked, since the backup must not open again).
func (e *editor) edit(ctx context.Context, n *etcd.Node, c *clientv3.Client) error {
	// An alarm for a full store would refuse the changes; if the store is still full, etcd raises it again.
	if _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fault.Wrap(fault.Internal, err, "end the old store's alarms")
	}
	s := store.New(n.KV())
	e.dropped = map[string]int{}
	for _, prefix := range []string{s.Alive.Prefix(), s.States.Prefix(), s.Voters.Prefix(), s.Joins.Prefix()} {
		if err := e.drop(ctx, s, prefix); err != nil {
			return err
		}
	}
	if err := e.dropElection(ctx, s); err != nil {
		return err
	}
	if err := e.machines(ctx, s); err != nil {
		return err
	}
	if err := e.raise(ctx, s); err != nil {
		return err
	}
	return e.admit(ctx, s)
}

// admit makes the first machine one of the cluster, as a founding does.
func (e *editor) admit(ctx context.Context, s *store.Store) error {
	o := e.options
	m := machine.Machine{ID: o.Machine, Name: o.Name, Joined: time.Now().UTC(), Key: e.key}
	_, ok, err := s.KV.Commit(ctx, store.Txn{
		If:   []store.Cond{s.Machines.IfAbsent(string(m.ID)), s.Names.IfAbsent(m.Name)},
		Then: []store.Op{s.Machines.PutOp(string(m.ID), m, 0), s.Names.PutOp(m.Name, m.ID, 0)},
	})
	if err == nil && !ok {
		err = fault.New(fault.Exists, "the backup has a machine of the id %s already, under another name than %q", m.ID.Short(), m.Name)
	}
	return err
}

// dropElection deletes the one key that has no table.
func (e *editor) dropElection(ctx context.Context, s *store.Store) error {
	const key = store.Prefix + "leader"
	if _, ok, err := s.KV.Get(ctx, key, store.Read{}); err != nil || !ok {
		return err
	}
	return e.delete(ctx, s, key, []string{key})
}

// machines drops all machines with their names and places or, if they are kept, only the one that this restore takes the place of: the
// first machine has a new ID and key, and wants its name.
func (e *editor) machines(ctx context.Context, s *store.Store) error {
	if !e.options.KeepMachines {
		for _, prefix := range []string{s.Machines.Prefix(), s.Names.Prefix(), s.Places.Prefix()} {
			if err := e.drop(ctx, s, prefix); err != nil {
				return err
			}
		}
		return nil
	}
	all, _, err := s.Machines.List(ctx, "", store.Read{})
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Value.Name != e.options.Name {
			continue
		}
		if err := e.delete(ctx, s, s.Machines.Prefix(), []string{s.Machines.Prefix() + m.Key}); err != nil {
			return err
		}
		if err := e.drop(ctx, s, s.Places.Prefix()+m.Key+"/"); err != nil {
			return err
		}
	}
	name := s.Names.Prefix() + e.options.Name
	if _, ok, err := s.KV.Get(ctx, name, store.Read{}); err != nil || !ok {
		return err
	}
	return e.delete(ctx, s, s.Names.Prefix(), []string{name})
}

// raise sets the cluster's record: one epoch on. A store from before there was such a record gets one.
func (e *editor) raise(ctx context.Context, s *store.Store) error {
	old, ok, err := s.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil {
		return err
	}
	c := old.Value
	if !ok {
		c = machine.Cluster{ID: e.manifest.Cluster, Created: e.manifest.Created, Trust: string(e.trust.Bundle)}
	}
	if c.ID != e.manifest.Cluster {
		return fault.New(fault.Invalid, "the backup is damaged: it is said to be of cluster %s, and holds the store of %s", e.manifest.Cluster, c.ID)
	}
	c.Epoch = max(c.Epoch, e.manifest.Epoch) + 1
	e.epoch = c.Epoch
	return s.Cluster.Put(ctx, store.ThisCluster, c, 0)
}

// drop deletes all keys under prefix.
func (e *editor) drop(ctx context.Context, s *store.Store, prefix string) error {
	items, _, err := s.KV.List(ctx, prefix, store.Read{})
	if err != nil {
		return err
	}
	var keys []string
	for _, it := range items {
		keys = append(keys, it.Key)
	}
	return e.delete(ctx, s, prefix, keys)
}

// delete deletes the keys and counts them under their table.
func (e *editor) delete(ctx context.Context, s *store.Store, prefix string, keys []string) error {
	for some := range slices.Chunk(keys, store.MaxOps) {
		var t store.Txn
		for _, k := range some {
			t.Then = append(t.Then, store.Op{Key: k})
		}
		if _, _, err := s.KV.Commit(ctx, t); err != nil {
			return err
		}
		e.dropped[table(prefix)] += len(some)
	}
	return nil
}
