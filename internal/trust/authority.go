package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"time"

	"flota/internal/fault"
)

// noExpiry is the end of an authority's certificate: the value that RFC 5280 (4.1.2.5) gives to certificates without a well-defined end.
var noExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// maxLinks is how many links from an authority to older ones are kept. 4: a machine that was off finds a way from what it trusts, or a member
// of the store that was not restarted, over as many changes of the authority.
const maxLinks = 4

// Authority issues certificates: it holds an authority's key. Only voters have one. Immutable, safe for concurrent use.
type Authority struct {
	cert  *x509.Certificate
	links []*x509.Certificate // from this authority to older ones, nearest first: the same key, signed by the one before it; then that one's
	key   *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a cluster. old is the one it is to follow, nil for the first: then the old one also signs the new one's
// key (a link), so that whoever trusts only the old one believes the new one's leaves.
func NewAuthority(cluster string, old *Authority, now time.Time) (*Authority, error) {
	if !clusterForm.MatchString(cluster) {
		return nil, fault.New(fault.Invalid, "cluster id %q is not 32 lower-case hex digits", cluster)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make a key")
	}
	serial := newSerial()
	t := x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"flota"}, CommonName: "authority " + serial.Text(16)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              noExpiry,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		URIs:                  []*url.URL{{Scheme: "flota", Host: cluster, Path: "/authority"}},
	}
	a := &Authority{key: key}
	if a.cert, err = sign(&t, &t, &key.PublicKey, key); err != nil {
		return nil, err
	}
	if old == nil {
		return a, nil
	}
	t.SerialNumber = newSerial()
	t.SubjectKeyId = a.cert.SubjectKeyId
	link, err := sign(&t, old.cert, &key.PublicKey, old.key)
	if err != nil {
		return nil, err
	}
	a.links = append([]*x509.Certificate{link}, old.links...)
	a.links = a.links[:min(len(a.links), maxLinks)]
	return a, nil
}

// newSerial gives 16 random bytes, none of two certificates alike.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive, and always as long
	return new(big.Int).SetBytes(b)
}

// sign makes a certificate.
func sign(t, issuer *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, public, key)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "sign a certificate")
	}
	c, err := x509.ParseCertificate(der)
	return c, fault.Wrap(fault.Internal, err, "read a certificate just signed")
}

// Hash names the authority by its key, as Identity.CAHash does.
func (a *Authority) Hash() string { return hashMark + certHash(a.cert) }

// Certificate is the authority's own certificate, PEM: what goes into a bundle.
func (a *Authority) Certificate() []byte { return certPEM(a.cert) }

// Issue makes the certificate that csr asks for: PEM, the leaf first, then the links. Only the key is taken from csr; what the certificate
// says is s, which the caller has checked, life from now on (0: Life). fault.Invalid if csr or s is wrong.
func (a *Authority) Issue(csr []byte, s Subject, life time.Duration, now time.Time) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if life <= 0 {
		life = Life
	}
	if _, _, err := ReadRequest(csr); err != nil {
		return nil, err
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the certificate request")
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: string(s.ID)},
		DNSNames:              []string{s.Name},
		IPAddresses:           s.addresses(),
		URIs:                  []*url.URL{s.uri()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.cert, r.PublicKey.(*ecdsa.PublicKey), a.key)
	if err != nil {
		return nil, err
	}
	return certPEM(append([]*x509.Certificate{leaf, a.cert}, a.links...)...), nil
}

// PEM is all of the authority, its key too: certificate, links, key. It goes to disk and to machines that become voters, nowhere else.
func (a *Authority) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "write the authority's key")
	}
	out := certPEM(append([]*x509.Certificate{a.cert}, a.links...)...)
	return append(out, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})...), nil
}

// follows says whether a's first link was signed by old.
func (a *Authority) follows(old *x509.Certificate) bool {
	return len(a.links) > 0 && a.links[0].CheckSignatureFrom(old) == nil
}

// belongs says whether a is trusted, or was made to follow one that is, if not at once then by way of others.
func (a *Authority) belongs(trusted []*x509.Certificate) bool {
	return slices.ContainsFunc(trusted, func(c *x509.Certificate) bool {
		return same(a.cert, c) || slices.ContainsFunc(a.links, func(l *x509.Certificate) bool { return l.CheckSignatureFrom(c) == nil })
	})
}

// same says whether two certificates are one authority's.
func same(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }

// issuedBy says whether a leaf names a as its issuer: name and key. Cheap, and no proof: the leaf has been verified.
func issuedBy(leaf, a *x509.Certificate) bool {
	return bytes.Equal(leaf.RawIssuer, a.RawSubject) && len(a.SubjectKeyId) > 0 && bytes.Equal(leaf.AuthorityKeyId, a.SubjectKeyId)
}
