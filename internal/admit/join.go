package admit

import (
	"context"
	"net/netip"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
	"flota/internal/trust/token"
)

// JoinRequest is what a machine sends to be let in. The same request may be sent again until it was answered.
type JoinRequest struct {
	Token string     `json:"token"`
	ID    machine.ID `json:"id"`
	Name  string     `json:"name"`
	Addr  string     `json:"addr"` // IP that others reach it by
	// Labels are those of its command line. They are checked here, so that the machine is not in before it hears that one is wrong; it brings
	// them itself with its presence.
	Labels  map[string]string `json:"labels,omitempty"`
	Witness bool              `json:"witness,omitempty"`
	Clock   time.Time         `json:"clock"` // its time when it sent this
	CSR     []byte            `json:"csr"`   // DER; names the key that the machine keeps for its life
}

// JoinAnswer is what a machine is answered that was let in.
type JoinAnswer struct {
	trust.Grant
	Name   string   `json:"name"`   // of the machine
	Voters []string `json:"voters"` // API addresses of the machines that hold the store
}

// maxSkew is how far a joining machine's clock may be off: 5 min, a twelfth of what certificates are dated back by. Source: the issue.
const maxSkew = 5 * time.Minute

// caller is a JoinRequest that has been read.
type caller struct {
	JoinRequest
	secret  token.Secret
	key     string // hash of its public key
	ips     []netip.Addr
	arrived time.Time
}

// read checks the form of a request. fault.Invalid, or fault.Denied for what is no token.
func (q JoinRequest) read(now time.Time) (c caller, err error) {
	c = caller{JoinRequest: q, arrived: now}
	if c.secret, err = token.Parse(q.Token); err != nil {
		return c, err
	}
	if _, err := machine.ParseID(string(q.ID)); err != nil {
		return c, err
	}
	if err := machine.CheckName(q.Name); err != nil {
		return c, fault.WithHint(err, "choose one with --name")
	}
	ip, err := netip.ParseAddr(q.Addr)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
		return c, fault.WithHint(fault.New(fault.Invalid, "address %q is not one that other machines can reach", q.Addr), "give it with --addr")
	}
	c.ips = []netip.Addr{ip}
	if err := checkLabels(q.Labels); err != nil {
		return c, err
	}
	who, key, err := trust.ReadRequest(q.CSR)
	if err != nil {
		return c, err
	}
	if who.ID != q.ID {
		return c, fault.New(fault.Invalid, "the certificate request is for machine %s, not for %s", who.ID.Short(), q.ID.Short())
	}
	c.key = key
	return c, nil
}

// Admit lets a machine in and gives it its certificate. Refusals are fault.Denied (token, removed, clock), fault.Exists (name, machine id,
// member already) or fault.Invalid, each with a hint; fault.Unavailable means that the same request may be sent again, here or elsewhere.
func (d *Desk) Admit(ctx context.Context, q JoinRequest) (JoinAnswer, error) {
	c, err := q.read(d.now())
	if err != nil {
		return JoinAnswer{}, err
	}
	issuer, cluster, err := d.issuer(ctx)
	if err != nil {
		return JoinAnswer{}, err
	}
	m, err := d.enter(ctx, c)
	if err != nil {
		if k := fault.KindOf(err); k != fault.Unavailable && k != fault.TimedOut {
			d.o.Log.Info("a machine was refused", "machine", c.Name, "id", c.ID, "addr", c.Addr, "reason", err)
		}
		return JoinAnswer{}, err
	}
	g, err := d.grant(issuer, cluster, trust.Subject{ID: m.ID, Name: m.Name, IPs: c.ips}, c.CSR)
	if err != nil {
		return JoinAnswer{}, err
	}
	voters, err := d.Voters(ctx)
	return JoinAnswer{Grant: g, Name: m.Name, Voters: voters}, err
}

// grant issues a certificate.
func (d *Desk) grant(a *trust.Authority, c machine.Cluster, s trust.Subject, csr []byte) (g trust.Grant, err error) {
	s.Cluster = c.ID
	g = trust.Grant{Cluster: c.ID, Epoch: c.Epoch, Bundle: []byte(c.Trust)}
	if c.Trust == "" {
		g.Bundle = d.o.Identity.Bundle()
	}
	g.Certificate, err = a.Issue(csr, s, d.o.Life, d.now())
	return g, err
}

// enter makes the machine a member, in one transaction, or finds that it is one already.
func (d *Desk) enter(ctx context.Context, c caller) (machine.Machine, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return machine.Machine{}, fault.Wrap(fault.Unavailable, ctx.Err(), "wait for the machines that join at the same time")
	}
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		seen, err := d.look(ctx, c)
		if err != nil {
			return machine.Machine{}, err
		}
		m, txn, err := seen.decide(c)
		if err != nil || len(txn.Then) == 0 {
			return m, err
		}
		done, err := d.commit(ctx, txn)
		if err != nil {
			return m, err
		}
		if done {
			d.o.Log.Info("a machine joined", "machine", m.Name, "id", m.ID, "addr", c.Addr, "token", m.Token)
			return m, nil
		}
		if !sleep(ctx, pause) {
			return m, fault.Wrap(fault.Unavailable, ctx.Err(), "join: too many machines join at the same time")
		}
	}
}

// seen is what the store holds about a machine that asks to be let in.
type seen struct {
	st      *store.Store
	token   store.Entry[token.Token]
	machine store.Entry[machine.Machine] // Rev 0: there is none
	name    store.Entry[machine.ID]      // whose the name is; Rev 0: nobody's
	gone    store.Entry[machine.Gone]    // Rev 0: it was not removed
	there   bool                         // a machine with its ID shows signs of life
}

// look reads it. The parts may be of different moments; the transaction's conditions hold them together.
func (d *Desk) look(ctx context.Context, c caller) (s seen, err error) {
	s.st = d.o.Store
	r := store.Read{}
	if s.token, _, err = s.st.Joins.Get(ctx, c.secret.ID, r); err != nil {
		return s, err
	}
	if s.machine, _, err = s.st.Machines.Get(ctx, string(c.ID), r); err != nil {
		return s, err
	}
	if s.name, _, err = s.st.Names.Get(ctx, c.Name, r); err != nil {
		return s, err
	}
	if s.gone, _, err = s.st.Removed.Get(ctx, string(c.ID), r); err != nil {
		return s, err
	}
	_, s.there, err = s.st.Alive.Get(ctx, string(c.ID), r)
	return s, err
}
