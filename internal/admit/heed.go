package admit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// The rhythm of heeding.
const (
	heedEvery  = 30 * time.Second       // when nothing happens: a renewal may have changed what this machine holds
	heedSoon   = 250 * time.Millisecond // while the authority is being changed, and after a failure, whose pause doubles
	heedWithin = 15 * time.Second       // for one attempt
)

// heed makes this machine follow the cluster's authority until ctx ends: it trusts those that cluster/this names, has their keys fetched if it
// holds the store, and writes what it holds into its record. trust.Identity.Run, beside it, gets the certificates.
func (d *Desk) heed(ctx context.Context) {
	c := &chores{st: d.o.Store, wake: make(chan struct{}, 1)}
	follow, end := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer end()
	id := string(d.o.ID)
	for _, p := range []string{c.st.Cluster.Prefix(), c.st.Machines.Prefix() + id, c.st.Voters.Prefix() + id} {
		done.Go(func() { _ = store.Follow(follow, c.st.KV, p, c, nil) }) // ends with follow
	}
	again, pause := time.NewTimer(heedEvery), heedSoon
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-again.C:
		}
		try, cancel := context.WithTimeout(ctx, heedWithin)
		changing, err := d.follows(try)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.o.Log.Debug("follow the cluster's authority", "err", err, "retry", pause)
			again.Reset(pause)
			pause = min(2*pause, heedEvery)
		case changing:
			again.Reset(heedSoon)
		default:
			pause = heedSoon
			again.Reset(heedEvery)
		}
	}
}

// follows does it once. changing: the authority is being changed.
func (d *Desk) follows(ctx context.Context) (changing bool, err error) {
	i := d.o.Identity
	c, ok, err := d.o.Store.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil || !ok {
		return false, err
	}
	changing = c.Value.Rotation != string(trust.Steady)
	if c.Value.ID != i.Cluster() {
		return false, fault.New(fault.Conflict, "the store is that of cluster %.8s", c.Value.ID)
	}
	if c.Value.Trust != "" {
		if err := i.SetBundle([]byte(c.Value.Trust)); err != nil {
			return changing, err
		}
	}
	may, err := d.mayHold(ctx, d.o.ID)
	if err != nil {
		return changing, err
	}
	var late error // what is missing does not keep this machine from telling what it has
	if may && d.o.Keys != nil && !holdsAll(i.Standing()) {
		late = d.fetch(ctx)
	}
	return changing, errors.Join(d.stand(ctx), late)
}

// fetch has the authorities' keys fetched, and keeps them.
func (d *Desk) fetch(ctx context.Context) error {
	keys, err := d.o.Keys(ctx)
	if err == nil {
		err = d.o.Identity.KeepAuthority(keys)
	}
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "fetch the authority's key")
	}
	return nil
}

// stand writes what this machine holds into its record, if that has changed. A machine that has none any more has nothing to tell.
func (d *Desk) stand(ctx context.Context) error {
	_, err := d.o.Store.Machines.Update(ctx, string(d.o.ID), func(m *machine.Machine) error {
		s := machine.Standing(d.o.Identity.Standing())
		if !isMember(*m) || m.Standing.Issuer == s.Issuer && slices.Equal(m.Standing.Trusts, s.Trusts) && slices.Equal(m.Standing.Holds, s.Holds) {
			return store.ErrNoChange
		}
		m.Standing = s
		return nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// holdsAll says whether a machine has the newest authority's key, which is the last of the bundle while it is spread, and the first later. It
// asks for all that it lacks, although the key of one that is on its way out may be lost for good.
func holdsAll(s trust.Standing) bool {
	for _, h := range s.Trusts {
		if !slices.Contains(s.Holds, h) {
			return false
		}
	}
	return true
}
