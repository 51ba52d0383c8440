package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// maxChain is how many certificates of a peer are looked at: a leaf, its issuer, the issuer's links, and for a joiner all authorities.
const maxChain = 2 + maxLinks + maxBundle

// certs reads chain back.
func (s *state) certs() []*x509.Certificate {
	var out []*x509.Certificate
	for _, der := range s.chain {
		if c, err := x509.ParseCertificate(der); err == nil { // it was parsed before
			out = append(out, c)
		}
	}
	return out
}

// verify says whom certs, a peer's, are for, if an authority that s trusts stands behind them. anyTime lets certificates pass whose time is
// over, or has not begun by this machine's clock. fault.Denied.
func (s *state) verify(certs []*x509.Certificate, now time.Time, anyTime bool) (Subject, error) {
	if len(certs) == 0 || len(certs) > maxChain {
		return Subject{}, fault.New(fault.Denied, "it shows %d certificates, want 1 to %d", len(certs), maxChain)
	}
	leaf := certs[0]
	if err := checkKey(leaf.PublicKey); err != nil {
		return Subject{}, fault.Wrap(fault.Denied, err, "check the certificate")
	}
	who, err := subjectOf(leaf)
	if err != nil {
		return Subject{}, err
	}
	if who.Cluster != s.subject.Cluster {
		return Subject{}, fault.New(fault.Denied, "machine %q is of another cluster, %s", who.Name, who.Cluster)
	}
	if anyTime {
		now = leaf.NotBefore
	}
	links := x509.NewCertPool()
	for _, c := range certs[1:] {
		links.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: links, CurrentTime: now, KeyUsages: bothUsages})
	var when x509.CertificateInvalidError
	if errors.As(err, &when) && when.Reason == x509.Expired {
		return Subject{}, fault.New(fault.Denied, "the certificate of machine %q is valid from %s to %s, it is %s here", who.Name,
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return who, fault.Wrap(fault.Denied, err, "check the certificate of machine %q", who.Name)
}

// bothUsages: a machine's certificate is for either side of a connection.
var bothUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}

// Peer is the machine at the other end of a connection, proven in the handshake.
type Peer struct {
	ID      machine.ID
	Name    string
	Key     string    // SHA-256 of its public key, hex: machine.Machine.Key
	Expires time.Time // of its certificate; in the past for some that come to renew
}

// PeerOf gives the machine behind a connection of a Listener, or of Dial; ok is false if it proved nothing (Join, Plain). It looks through
// wrappers that have a method NetConn() net.Conn.
func PeerOf(c net.Conn) (p Peer, ok bool) {
	for c != nil {
		switch t := c.(type) {
		case interface{ ConnectionState() tls.ConnectionState }:
			s := t.ConnectionState()
			return peerOf(&s)
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return Peer{}, false
		}
	}
	return Peer{}, false
}

// PeerOfRequest gives the machine that sent a request, for servers of a Listener's connections; ok is false if it proved nothing. If the server's
// listener wraps them, its ConnContext must be ConnContext.
func PeerOfRequest(r *http.Request) (p Peer, ok bool) {
	if r.TLS != nil {
		return peerOf(r.TLS)
	}
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return PeerOf(c)
}

// peerOf reads who a finished handshake proved.
func peerOf(s *tls.ConnectionState) (Peer, bool) {
	if !s.HandshakeComplete || len(s.PeerCertificates) == 0 {
		return Peer{}, false
	}
	leaf := s.PeerCertificates[0]
	who, err := subjectOf(leaf)
	if err != nil {
		return Peer{}, false
	}
	return Peer{ID: who.ID, Name: who.Name, Key: certHash(leaf), Expires: leaf.NotAfter}, true
}
