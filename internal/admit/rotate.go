package admit

import (
	"context"
	"slices"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// Trust is the cluster's authority for people.
type Trust struct {
	Cluster     string         `json:"cluster"`
	Authorities []string       `json:"authorities"`        // those that are trusted, the issuing one first, each by its hash
	Rotation    trust.Rotation `json:"rotation,omitempty"` // the step of a change of it; "": none
	Reason      string         `json:"reason,omitempty"`   // what the step waits for, or does next
}

// Trust tells of the cluster's authority.
func (d *Desk) Trust(ctx context.Context) (Trust, error) {
	c, err := d.cluster(ctx)
	if err != nil {
		return Trust{}, err
	}
	hashes, err := trust.BundleHashes([]byte(c.Value.Trust))
	if err != nil {
		return Trust{}, fault.Wrap(fault.Internal, err, "read the cluster's authorities")
	}
	t := Trust{Cluster: c.Value.ID, Authorities: hashes, Rotation: trust.Rotation(c.Value.Rotation)}
	if t.Rotation != trust.Steady {
		seats, err := d.seats(ctx)
		if err != nil {
			return Trust{}, err
		}
		t.Reason = trust.NextStep(t.Rotation, hashes, seats).Reason
	}
	return t, nil
}

// Rotate begins a change of the authority; Run of the voters carries it on, and Trust says how far it is. fault.Conflict if one is under
// way, fault.Unavailable on a machine that does not hold the issuing authority's key.
func (d *Desk) Rotate(ctx context.Context) error {
	if _, err := d.authority(); err != nil {
		return err
	}
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		c, err := d.cluster(ctx)
		if err != nil {
			return err
		}
		hashes, err := trust.BundleHashes([]byte(c.Value.Trust))
		if err != nil {
			return fault.Wrap(fault.Internal, err, "read the cluster's authorities")
		}
		step, err := trust.Begin(trust.Rotation(c.Value.Rotation), hashes)
		if err != nil {
			return err
		}
		if done, err := d.take(ctx, c, step); err != nil || done {
			return err
		}
		if !sleep(ctx, pause) {
			return fault.Wrap(fault.Unavailable, ctx.Err(), "change the authority")
		}
	}
}

// advance takes the next step of a change of the authority, if there is one and its time has come.
func (d *Desk) advance(ctx context.Context) error {
	c, ok, err := d.o.Store.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil || !ok || c.Value.Rotation == string(trust.Steady) {
		return err
	}
	hashes, err := trust.BundleHashes([]byte(c.Value.Trust))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "read the cluster's authorities")
	}
	seats, err := d.seats(ctx)
	if err != nil {
		return err
	}
	step := trust.NextStep(trust.Rotation(c.Value.Rotation), hashes, seats)
	if step.Wait {
		d.o.Log.Debug("the change of the authority waits", "step", step.Rotation, "reason", step.Reason)
		return nil
	}
	_, err = d.take(ctx, c, step) // not done: another voter was faster, and the change of the record wakes this one again
	return err
}

// take stores a step, if the record is still the one that it was made from.
func (d *Desk) take(ctx context.Context, c store.Entry[machine.Cluster], step trust.Step) (done bool, err error) {
	st := d.o.Store
	var more []byte
	txn := store.Txn{If: []store.Cond{st.Cluster.IfRev(c.Key, c.Rev)}}
	if step.Make {
		a, err := d.successor(c.Value, step)
		if err != nil {
			return false, err
		}
		more = a.Certificate()
		// In the same transaction, so that no voter takes the key for lost: that this machine holds it.
		m, ok, err := st.Machines.Get(ctx, string(d.o.ID), store.Read{})
		if err != nil || !ok {
			return false, err
		}
		m.Value.Standing.Holds = append(slices.Clone(m.Value.Standing.Holds), a.Hash())
		txn.If = append(txn.If, st.Machines.IfRev(m.Key, m.Rev))
		txn.Then = append(txn.Then, st.Machines.PutOp(m.Key, m.Value, 0))
	}
	bundle, err := trust.Arrange([]byte(c.Value.Trust), step.Trust, more)
	if err != nil {
		return false, err
	}
	v := c.Value
	v.Trust, v.Rotation = string(bundle), string(step.Rotation)
	txn.Then = append(txn.Then, st.Cluster.PutOp(c.Key, v, 0))
	done, err = d.commit(ctx, txn)
	if done {
		d.o.Log.Info("the cluster's authority is being changed", "step", step.Rotation, "reason", step.Reason)
	}
	return done, err
}

// successor gives the authority that is to come; its key lies on this machine's disk before anybody hears of it.
func (d *Desk) successor(c machine.Cluster, step trust.Step) (*trust.Authority, error) {
	i := d.o.Identity
	if len(step.Trust) > 0 && i.CAHash() != step.Trust[0] { // the step goes back to an older one, as the newer one's key is lost
		back, err := trust.Arrange([]byte(c.Trust), step.Trust, nil)
		if err == nil {
			err = i.SetBundle(back)
		}
		if err != nil {
			return nil, err
		}
	}
	return i.Successor()
}

// seats gives all machines as a change of the authority sees them.
func (d *Desk) seats(ctx context.Context) ([]trust.Seat, error) {
	st, r := d.o.Store, store.Read{}
	machines, _, err := st.Machines.List(ctx, "", r)
	if err != nil {
		return nil, err
	}
	alive, _, err := st.Alive.List(ctx, "", r)
	if err != nil {
		return nil, err
	}
	votes, _, err := st.Voters.List(ctx, "", r)
	if err != nil {
		return nil, err
	}
	there, keys := map[machine.ID]bool{}, map[machine.ID]bool{}
	for _, e := range alive {
		there[e.Value.ID] = true
	}
	for _, e := range votes {
		keys[e.Value.Machine] = e.Value.Role == machine.Voter || e.Value.Role == machine.Learner
	}
	var out []trust.Seat
	for _, e := range machines {
		if m := e.Value; isMember(m) {
			out = append(out, trust.Seat{ID: m.ID, Name: m.Name, Live: there[m.ID], Voter: keys[m.ID] || d.o.External && there[m.ID], Standing: trust.Standing(m.Standing)})
		}
	}
	return out, nil
}

// mayAct says whether this machine holds the key of any trusted authority: enough to carry on a change, also when the new one's is lost.
func (d *Desk) mayAct() bool {
	s := d.o.Identity.Standing()
	return slices.ContainsFunc(s.Holds, func(h string) bool { return slices.Contains(s.Trusts, h) })
}
