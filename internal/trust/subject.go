package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"flota/internal/fault"
	"flota/internal/machine"
)

// clusterForm is the form of a cluster's ID.
var clusterForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// maxIPs bounds the addresses of one certificate. 64: more than any host here has; it keeps a certificate below 2 KB.
const maxIPs = 64

// Check refuses a subject that no certificate could name. fault.Invalid.
func (s Subject) Check() error {
	if _, err := machine.ParseID(string(s.ID)); err != nil {
		return err
	}
	if err := machine.CheckName(s.Name); err != nil {
		return err
	}
	if !clusterForm.MatchString(s.Cluster) {
		return fault.New(fault.Invalid, "cluster id %q is not 32 lower-case hex digits", s.Cluster)
	}
	if len(s.IPs) > maxIPs {
		return fault.New(fault.Invalid, "%d addresses, at most %d", len(s.IPs), maxIPs)
	}
	for _, ip := range s.IPs {
		if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() {
			return fault.New(fault.Invalid, "address %q is not one that a machine can be reached by", ip)
		}
	}
	return nil
}

// uri is how a certificate names a machine: flota://CLUSTER/machine/ID.
func (s Subject) uri() *url.URL {
	return &url.URL{Scheme: "flota", Host: s.Cluster, Path: "/machine/" + string(s.ID)}
}

// addresses gives IPs as package x509 wants them, without zones, an IPv4 address in four bytes.
func (s Subject) addresses() []net.IP {
	var out []net.IP
	for _, ip := range s.IPs {
		out = append(out, net.IP(ip.Unmap().WithZone("").AsSlice()))
	}
	return out
}

// request makes a signed request for a certificate, in DER. The cluster is left out of it while it is not known.
func (s Subject) request(key *ecdsa.PrivateKey) ([]byte, error) {
	r := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: string(s.ID)},
		DNSNames:    []string{s.Name},
		IPAddresses: s.addresses(),
	}
	if s.Cluster != "" {
		r.URIs = []*url.URL{s.uri()}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	return der, fault.Wrap(fault.Internal, err, "make a certificate request")
}

// ReadRequest reads a request for a certificate: whom it is for, as it says itself, and the hash of its key. It has checked that the sender
// holds the key, and nothing of what is said. Subject.Cluster is empty in the request of a machine that joins. fault.Invalid.
func ReadRequest(csr []byte) (s Subject, keyHash string, err error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return s, "", fault.Wrap(fault.Invalid, err, "read the certificate request")
	}
	if err := r.CheckSignature(); err != nil {
		return s, "", fault.Wrap(fault.Invalid, err, "check the certificate request")
	}
	if err := checkKey(r.PublicKey); err != nil {
		return s, "", err
	}
	s, err = named(r.Subject, r.DNSNames, r.IPAddresses, r.URIs)
	if err != nil {
		return s, "", fault.Wrap(fault.Invalid, err, "read the certificate request")
	}
	return s, spkiHash(r.RawSubjectPublicKeyInfo), nil
}

// subjectOf reads whom a leaf is for. fault.Denied if it names no machine: then it is another program's, or another cluster's of another kind.
func subjectOf(leaf *x509.Certificate) (Subject, error) {
	s, err := named(leaf.Subject, leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
	if err == nil {
		err = s.Check()
	}
	return s, fault.Wrap(fault.Denied, err, "read the certificate")
}

// named reads a subject from the fields of a certificate or a request.
func named(n pkix.Name, dns []string, ips []net.IP, uris []*url.URL) (s Subject, err error) {
	if len(dns) != 1 || len(uris) > 1 || len(ips) > maxIPs {
		return s, fault.New(fault.Invalid, "it names %d machines, %d URIs and %d addresses", len(dns), len(uris), len(ips))
	}
	if s.ID, err = machine.ParseID(n.CommonName); err != nil {
		return s, err
	}
	s.Name = dns[0]
	if err := machine.CheckName(s.Name); err != nil {
		return s, err
	}
	for _, raw := range ips {
		ip, ok := netip.AddrFromSlice(raw)
		if !ok {
			return s, fault.New(fault.Invalid, "an address has %d bytes", len(raw))
		}
		s.IPs = append(s.IPs, ip.Unmap())
	}
	for _, u := range uris {
		s.Cluster = u.Host
		if !clusterForm.MatchString(s.Cluster) || u.String() != s.uri().String() {
			return s, fault.New(fault.Invalid, "%q is not the name of machine %s", u, s.ID.Short())
		}
	}
	return s, nil
}

// checkKey refuses keys other than ECDSA on P-256, the one kind that this program makes: an odd key costs whoever checks its signatures.
func checkKey(public any) error {
	k, ok := public.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return fault.New(fault.Invalid, "the key is not of the kind ECDSA P-256")
	}
	return nil
}

// spkiHash is the SHA-256 of a SubjectPublicKeyInfo, in hex: what names a key.
func spkiHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// certHash is spkiHash of a certificate's key.
func certHash(c *x509.Certificate) string { return spkiHash(c.RawSubjectPublicKeyInfo) }

// hashMark is how a hash is shown to people.
const hashMark = "sha256:"

// parseHash reads a hash as CAHash shows it. fault.Invalid.
func parseHash(s string) (string, error) {
	h := strings.TrimPrefix(strings.TrimSpace(s), hashMark)
	if raw, err := hex.DecodeString(h); err != nil || len(raw) != sha256.Size {
		return "", fault.WithHint(fault.New(fault.Invalid, "%q is no hash of an authority: want %s and 64 hex digits", s, hashMark),
			"flota token create, on a machine of the cluster, prints the whole command line")
	}
	return strings.ToLower(h), nil
}
