package daemon

import (
	"context"
	"io"
	"time"

	"flota/internal/api"
	"flota/internal/backup"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
)

// apiOptions is what the API needs of this machine.
func (m *machineNow) apiOptions() api.Options {
	o := api.Options{
		ID: m.home.id, Name: m.Name, Version: m.Version, Store: m.store, View: m.view, Driver: m.driver, Desk: m.desk,
		Dial: m.dial, Halt: m.halt, StoreConn: m.storeConn, KeysConn: m.keysConn, Rebalance: m.rebalance, Warnings: m.warnings,
		Backup: m.backup, Leave: m.goAway, Certificate: m.identity.Valid, ReplaceAfter: m.ReplaceAfter, External: m.External != nil,
		Log: m.Log.With("room", "api"),
	}
	if m.local != nil || m.External != nil {
		o.Recover = func(ctx context.Context, q api.Recover, tell func(string)) error { return m.recover(ctx, q, tell) }
	}
	return o
}

// rebalance has the leader of this machine rebalance, if it leads.
func (m *machineNow) rebalance(ctx context.Context) (scheduler.Plan, error) {
	if p := m.part.Load(); p != nil && p.leads != nil {
		return p.leads.Rebalance(ctx)
	}
	return scheduler.Plan{}, fault.New(fault.Conflict, "this machine does not lead the cluster")
}

// warnings is what a person should know of this machine.
func (m *machineNow) warnings() []string {
	var all []string
	if p := m.part.Load(); p != nil && p.front != nil {
		all = append(all, p.front.Warnings()...)
	}
	all = append(all, m.copies.Warnings()...)
	if m.External != nil && !m.desk.Holds() {
		all = append(all, m.Name+" does not hold the key of the cluster's authority and finds no machine that does: it can let no machine in")
	}
	if m.steward != nil {
		st := m.steward.Status()
		all = append(all, st.Waiting...)
		if st.Trouble != "" {
			all = append(all, "the voters cannot be changed: "+st.Trouble)
		}
	}
	return all
}

// recover makes this machine's copy a store with one voter.
func (m *machineNow) recover(ctx context.Context, _ api.Recover, tell func(string)) error {
	if m.External != nil {
		return m.notOurs("there is nothing to recover here", "mend that etcd (its documentation calls it disaster recovery); the machines go on with it by themselves")
	}
	tell(m.Name + ": making this machine's copy of the store the only one")
	if err := m.local.Recover(ctx); err != nil {
		return err
	}
	tell(m.Name + ": it holds the store alone now; other machines become its clients, and voters again, as they come back")
	return nil
}

// backup writes a copy of the store to w, as it is: whoever asks seals it.
func (m *machineNow) backup(ctx context.Context, w io.Writer) error {
	if m.External != nil { // a snapshot of it would be of other people's keys too
		return m.notOurs("flota makes no copies of it", "etcdctl snapshot save FILE, there; keep trust/ of a machine's data directory with it")
	}
	_, err := backup.Write(ctx, w, m.source(m.home.dir), backup.Seal{Plain: true})
	return err
}

// source is what a backup is made from. scratch is a directory for a copy of the database.
func (m *machineNow) source(scratch string) backup.Source {
	return backup.Source{
		About: func() backup.Manifest {
			return backup.Manifest{Version: m.Version, Cluster: m.identity.Cluster(), Epoch: m.identity.Epoch(), Machine: m.home.id, Name: m.Name}
		},
		Snapshot: func(ctx context.Context, w io.Writer) (int64, error) {
			p := m.part.Load()
			if p == nil || p.role.Node() == nil || !p.role.Votes {
				return 0, m.noVoter()
			}
			return p.role.Node().Snapshot(ctx, w)
		},
		Trust: func() (backup.Trust, error) {
			keys, err := m.identity.Keys()
			return backup.Trust{Bundle: m.identity.Bundle(), Key: keys}, err
		},
		Scratch: scratch,
	}
}

// keeper makes what keeps copies of the store on this machine's disk while it votes.
func (m *machineNow) keeper() (*backup.Keeper, error) {
	return backup.New(backup.Options{
		Dir: m.home.path("backups"), Source: m.source(""), Schedule: m.schedule,
		Votes: func() bool { p := m.part.Load(); return p != nil && p.role.Votes && p.role.Node() != nil },
		Log:   m.Log.With("room", "backup"),
	})
}

// scheduleWithin bounds the question for the schedule; without an answer the default is as good.
const scheduleWithin = 2 * time.Second

// schedule is how the cluster wants copies kept.
func (m *machineNow) schedule() machine.Backup {
	ctx, cancel := context.WithTimeout(m.below, scheduleWithin)
	defer cancel()
	e, _, err := m.store.Cluster.Get(ctx, store.ThisCluster, store.Read{Stale: true})
	if err != nil {
		m.log().Debug("the schedule of backups cannot be read", "err", err)
	}
	return e.Value.Backup
}
