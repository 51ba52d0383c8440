package trust

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Server is the TLS of a listener that takes the named kinds of connections (Plain does not count). Certificates, authorities and members are
// those of the moment of each handshake. Whoever uses it without Listen has to register connections with Members.Track itself.
func (i *Identity) Server(m *Members, kinds ...Kind) *tls.Config {
	c := base()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		k, ok := kindOf(hello.SupportedProtos)
		if !ok || !slices.Contains(kinds, k) {
			return nil, fault.New(fault.Denied, "a connection for %q is not taken here", hello.SupportedProtos)
		}
		return i.serve(m, k), nil
	}
	return c
}

// base is what every side of every connection has. Sessions are not resumed: each handshake looks at the members anew.
func base() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

// kindOf tells the kind by what the client offers in ALPN; a client must not offer one of ours among others.
func kindOf(protos []string) (Kind, bool) {
	for k, p := range map[Kind]string{Join: JoinProtocol, Renew: RenewProtocol} {
		if slices.Contains(protos, p) {
			return k, len(protos) == 1
		}
	}
	return Machines, true
}

// serve is the TLS of one connection of kind k.
func (i *Identity) serve(m *Members, k Kind) *tls.Config {
	s := i.now.Load()
	c := base()
	cert := i.certificate(s)
	c.ClientAuth = tls.RequireAnyClientCert
	switch k {
	case Join:
		c.NextProtos = []string{JoinProtocol}
		c.ClientAuth = tls.NoClientCert
		for _, a := range s.trusted { // so that a joiner finds the authority that its token named, during a change of it too
			cert.Certificate = append(slices.Clip(cert.Certificate), a.Raw)
		}
	case Renew:
		c.NextProtos = []string{RenewProtocol}
		c.VerifyConnection = func(cs tls.ConnectionState) error { return i.mayRenew(m, cs.PeerCertificates) }
	default:
		c.NextProtos = []string{HTTP2, HTTP1}
		c.VerifyConnection = func(cs tls.ConnectionState) error { return i.mayPass(m, cs.PeerCertificates, "") }
	}
	c.Certificates = []tls.Certificate{*cert}
	return c
}

// mayPass accepts a member of the cluster; want, unless empty, is which one.
func (i *Identity) mayPass(m *Members, certs []*x509.Certificate, want machine.ID) error {
	who, err := i.now.Load().verify(certs, i.o.Now(), false)
	if err != nil {
		return err
	}
	if want != "" && who.ID != want {
		return fault.New(fault.Denied, "machine %q (%s) answers where machine %s was expected", who.Name, who.ID.Short(), want.Short())
	}
	return m.Check(who.ID, certHash(certs[0]))
}

// mayRenew accepts whoever may ask for a renewal: one with a certificate of ours, however old; or one that slept through a change of the
// authority, if the machine table has its key. That it is a member is for the answering side to ask the store.
func (i *Identity) mayRenew(m *Members, certs []*x509.Certificate) error {
	s := i.now.Load()
	who, err := s.verify(certs, i.o.Now(), true)
	if err != nil && len(certs) > 0 {
		named, bad := subjectOf(certs[0])
		if bad == nil && named.Cluster == s.subject.Cluster && checkKey(certs[0].PublicKey) == nil && m.knows(named.ID, certHash(certs[0])) {
			who, err = named, nil
		}
	}
	if err != nil {
		return err
	}
	return m.checkRemoved(who.ID)
}

// Client is the TLS for dialling a machine of this cluster: want says which, "" any. alpn is what the connection is for: HTTP1, HTTP2,
// RenewProtocol. Dial is better where it can be used: it also sees to it that the connection ends when the machine is removed.
func (i *Identity) Client(m *Members, want machine.ID, alpn ...string) *tls.Config {
	c := base()
	c.NextProtos = alpn
	c.InsecureSkipVerify = true // VerifyConnection does it, with the authorities of the moment, and by machine instead of host name
	c.VerifyConnection = func(cs tls.ConnectionState) error { return i.mayPass(m, cs.PeerCertificates, want) }
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return i.certificate(i.now.Load()), nil
	}
	return c
}

// JoinConfig is the TLS of a machine that joins: it knows nothing of the cluster but the hash of its authority (Identity.CAHash) and the IP
// address it dials, host. The handshake succeeds if the other side proves to be a machine of the cluster with that authority and address;
// nothing is to be said before. fault.Invalid: caHash or host is none; the handshake's error is fault.Denied, with a hint.
func JoinConfig(caHash, host string, o Options) (*tls.Config, error) {
	hash, err := parseHash(caHash)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, fault.New(fault.Invalid, "%q is not an IP address", host)
	}
	o = o.filled()
	c := base()
	c.NextProtos = []string{JoinProtocol}
	c.InsecureSkipVerify = true // VerifyConnection does it
	c.VerifyConnection = func(cs tls.ConnectionState) error { return checkCluster(cs.PeerCertificates, hash, host, o) }
	return c, nil
}

// checkCluster is JoinConfig's look at the other side.
func checkCluster(certs []*x509.Certificate, hash, host string, o Options) error {
	if len(certs) == 0 || len(certs) > maxChain {
		return fault.New(fault.Denied, "%s shows %d certificates, want 1 to %d", host, len(certs), maxChain)
	}
	at := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return certHash(c) == hash && checkAuthority(c) == nil })
	who, err := subjectOf(certs[0])
	if at < 0 || err != nil {
		return fault.WithHint(fault.New(fault.Denied, "%s does not belong to the cluster with the authority %s%s", host, hashMark, hash),
			"compare address and --ca-hash with what flota token create prints; if the authority was changed since, make a new token")
	}
	s := &state{subject: Subject{Cluster: who.Cluster}, roots: x509.NewCertPool()}
	s.roots.AddCert(certs[at])
	if _, err := s.verify(certs, o.Now(), false); err != nil {
		return fault.WithHint(err, "compare the clocks of this machine and of %s; its certificate may also be about to be renewed", host)
	}
	if err := certs[0].VerifyHostname(host); err != nil {
		return fault.WithHint(fault.Wrap(fault.Denied, err, "machine %q", who.Name), "use an address that the machine itself was started with")
	}
	return nil
}
