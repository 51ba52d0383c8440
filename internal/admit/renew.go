package admit

import (
	"context"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// Renew gives the member with the ID a new certificate; csr (DER) names the addresses that others reach it by. id is the one that its connection
// proved, whose certificate may have expired: so the machine table is asked, by a read that sees every removal. fault.Denied for a machine that is no member, or
// brings another key; fault.Unavailable without a quorum, or on a machine that issues nothing.
func (d *Desk) Renew(ctx context.Context, id machine.ID, csr []byte) (trust.Grant, error) {
	who, key, err := trust.ReadRequest(csr)
	if err != nil {
		return trust.Grant{}, err
	}
	if who.ID != id {
		return trust.Grant{}, fault.New(fault.Denied, "machine %s asks for the certificate of %s", id.Short(), who.ID.Short())
	}
	issuer, cluster, err := d.issuer(ctx)
	if err != nil {
		return trust.Grant{}, err
	}
	m, err := d.member(ctx, id, key)
	if err != nil {
		return trust.Grant{}, err
	}
	g, err := d.grant(issuer, cluster, trust.Subject{ID: id, Name: m.Name, IPs: who.IPs}, csr)
	if err == nil {
		d.o.Log.Debug("a certificate was renewed", "machine", m.Name, "id", id, "authority", issuer.Hash())
	}
	return g, err
}

// member gives the record of a member that has shown key. fault.Denied if it is none.
func (d *Desk) member(ctx context.Context, id machine.ID, key string) (machine.Machine, error) {
	gone, was, err := d.o.Store.Removed.Get(ctx, string(id), store.Read{})
	if err != nil {
		return machine.Machine{}, err
	}
	if was {
		return machine.Machine{}, removed(gone.Value)
	}
	e, ok, err := d.o.Store.Machines.Get(ctx, string(id), store.Read{})
	if err != nil {
		return machine.Machine{}, err
	}
	if m := e.Value; !ok || m.Key == "" || m.Key != key {
		return machine.Machine{}, fault.WithHint(fault.New(fault.Denied, "machine %s with this key is no member of the cluster", id.Short()),
			"join it with a new token and an empty data directory: flota token create, on a machine of the cluster")
	}
	return e.Value, nil
}

// Authority gives the authorities with their keys, PEM, to a machine that is to become a voter or is one, by the table of votes; with an external store to
// any member. Whoever calls it has the machine's ID proven by its certificate. fault.Denied for any other machine.
func (d *Desk) Authority(ctx context.Context, id machine.ID) ([]byte, error) {
	if _, was, err := d.o.Store.Removed.Get(ctx, string(id), store.Read{}); err != nil || was {
		if err == nil {
			err = fault.New(fault.Denied, "machine %s was removed", id.Short())
		}
		return nil, err
	}
	may, err := d.mayHold(ctx, id)
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, fault.New(fault.Denied, "machine %s does not hold the store and gets no authority's key", id.Short())
	}
	if !d.Holds() {
		return nil, fault.WithHint(fault.New(fault.Unavailable, "%s holds no authority's key", d.o.Name), "ask a voter")
	}
	keys, err := d.o.Identity.Keys()
	if err == nil {
		d.o.Log.Info("the authority's key was handed to a machine that holds the store", "id", id)
	}
	return keys, err
}

// mayHold says whether a machine is to hold the authority's key.
func (d *Desk) mayHold(ctx context.Context, id machine.ID) (bool, error) {
	if d.o.External {
		m, _, err := d.o.Store.Machines.Get(ctx, string(id), store.Read{})
		return isMember(m.Value) && !m.Value.Leaving, err
	}
	v, _, err := d.o.Store.Voters.Get(ctx, string(id), store.Read{})
	return v.Value.Role == machine.Voter || v.Value.Role == machine.Learner, err
}
