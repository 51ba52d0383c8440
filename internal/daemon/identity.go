package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"flota/internal/admit"
	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/trust"
)

// identify finds out who this machine is: by what lies in the data directory; by a restored authority; by joining a cluster, for as long as that takes;
// or, on a machine that was told nothing, by making a cluster of its own.
func (m *machineNow) identify(ctx context.Context) (err error) {
	o := trust.Options{Dir: m.home.path("trust"), Life: m.CertLife, Log: m.Log.With("room", "trust")}
	ip, err := netip.ParseAddr(m.Addr)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "address of this machine")
	}
	who := trust.Subject{ID: m.home.id, Name: m.Name, IPs: []netip.Addr{ip}}
	m.identity, err = trust.Open(o)
	switch {
	case err == nil:
		if len(m.Join) > 0 {
			m.log().Info("this machine is in a cluster already; --join only helps to find it", "cluster", m.identity.Cluster())
		}
		if m.identity.ID() != m.home.id {
			return fault.WithHint(fault.New(fault.Conflict, "the certificate in %s is for machine %s, this is %s", o.Dir, m.identity.ID().Short(), m.home.id.Short()),
				"the data directory holds parts of two machines: restore it as a whole, or remove it and join anew")
		}
		err = m.identity.Describe(m.Name, who.IPs)
	case !fault.Is(err, fault.NotFound):
	case len(m.Join) > 0:
		err = m.joinCluster(ctx, o, who)
	default:
		if err = m.mayFound(ctx); err != nil {
			return err
		}
		m.self.Founded = true // before the identity, so that dying in between leaves a machine that still founds
		if err = m.rememberSelf(); err == nil {
			m.identity, err = trust.Found(o, who)
		}
	}
	if err != nil {
		return fmt.Errorf("find out who this machine is: %w", err)
	}
	m.members = trust.NewMembers(o)
	return m.rememberSelf()
}

// joinPatience is how long a machine that joins tries addresses at which nobody answers: long enough for machines that boot together, short
// enough that a mistyped address is heard of.
const joinPatience = 2 * time.Minute

// joinCluster asks to be let in until an answer comes. Only a refusal or the end of joinPatience without any answer ends it.
func (m *machineNow) joinCluster(ctx context.Context, o trust.Options, who trust.Subject) error {
	if m.Token == "" || m.CAHash == "" {
		return fault.WithHint(fault.New(fault.Invalid, "to join a cluster this machine needs --token and --ca-hash beside --join"),
			"flota token create, on a machine of the cluster, prints the whole command line")
	}
	csr, err := trust.Request(o, who)
	if err != nil {
		return err
	}
	req := admit.JoinRequest{
		Token: m.Token, ID: who.ID, Name: who.Name, Addr: m.Addr, Labels: m.Labels, Witness: m.Witness, CSR: csr,
	}
	give, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	pause := 200 * time.Millisecond
	for tries := 1; ; tries++ {
		answer, err := m.askJoin(give, o, req)
		if err == nil {
			return m.joined(o, answer)
		}
		if k := fault.KindOf(err); k != fault.Unavailable && k != fault.TimedOut {
			return err
		}
		if tries == 1 || tries%10 == 0 {
			m.log().Info("waiting to be let into the cluster", "join", m.Join, "err", err)
		}
		select {
		case <-give.Done():
			return err
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

// joined keeps what the cluster answered.
func (m *machineNow) joined(o trust.Options, a admit.JoinAnswer) (err error) {
	if m.identity, err = trust.Install(o, a.Grant); err != nil {
		return err
	}
	m.firstVoters = a.Voters
	if len(a.Voters) == 0 && m.External == nil {
		m.log().Warn("the cluster has named no machine that holds its store; if it is kept in an etcd of your own, start this machine with the same --store")
	}
	m.log().Info("this machine was let into the cluster", "machine", a.Name, "cluster", a.Cluster)
	return nil
}

// askJoin asks each address in turn; the first answer counts, be it a refusal.
func (m *machineNow) askJoin(ctx context.Context, o trust.Options, q admit.JoinRequest) (a admit.JoinAnswer, err error) {
	var silent []error
	for _, addr := range m.Join {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return a, fault.New(fault.Invalid, "--join %q: want IP:PORT", addr)
		}
		cfg, err := trust.JoinConfig(m.CAHash, host, o)
		if err != nil {
			return a, fault.WithHint(err, "flota token create, on a machine of the cluster, prints the whole command line")
		}
		q.Clock = time.Now().UTC()
		a, err = api.Join(ctx, addr, cfg, q)
		if k := fault.KindOf(err); err == nil || k != fault.Unavailable && k != fault.TimedOut {
			return a, err
		}
		silent = append(silent, err)
	}
	return a, errors.Join(silent...)
}

// renew asks the cluster for this machine's next certificate: here where the authority's key is, else over a connection that an expired
// certificate is good enough for.
func (m *machineNow) renew(ctx context.Context, csr []byte) (trust.Grant, error) {
	if m.desk.Holds() {
		return m.desk.Renew(ctx, m.home.id, csr)
	}
	var silent []error
	for _, addr := range m.knownAPIs() {
		g, err := api.RenewCertificate(ctx, addr, m.identity.Client(m.members, "", trust.RenewProtocol), csr)
		if admit.WasRemoved(err) { // while its connections were cut, so that it could not hear of it otherwise
			m.evict(machine.Gone{ID: m.home.id, Name: m.Name, Time: time.Now().UTC(), Reason: err.Error()})
		}
		if k := fault.KindOf(err); err == nil || k != fault.Unavailable && k != fault.TimedOut {
			return g, err
		}
		silent = append(silent, err)
	}
	if len(silent) == 0 {
		return trust.Grant{}, errNobody
	}
	return trust.Grant{}, errors.Join(silent...)
}

// knownAPIs are the addresses of all machines that may be asked for something.
func (m *machineNow) knownAPIs() []string {
	if all := m.directory.All(); len(all) > 0 {
		return all
	}
	return m.Join
}
