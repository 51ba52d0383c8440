package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"

	"flota/internal/fault"
)

// The types of PEM blocks.
const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// maxBundle is how many authorities may be trusted at once. 4: a change has two; two more for one that began while another had not ended.
const maxBundle = 4

// certPEM writes certificates.
func certPEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: certBlock, Bytes: c.Raw}) // a bytes.Buffer takes everything
	}
	return out.Bytes()
}

// blocks reads a PEM file that has nothing in it but blocks. Errors are fault.Invalid.
func blocks(text []byte, what string) ([]*pem.Block, error) {
	var out []*pem.Block
	if len(text) > maxFile {
		return nil, fault.New(fault.Invalid, "%s has %d bytes, more than %d", what, len(text), maxFile)
	}
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return nil, fault.New(fault.Invalid, "%s: something in it is not PEM", what)
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "%s is empty", what)
	}
	return out, nil
}

// readCerts reads certificates, at least one. fault.Invalid.
func readCerts(text []byte, what string) ([]*x509.Certificate, error) {
	all, err := blocks(text, what)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, b := range all {
		if b.Type != certBlock {
			return nil, fault.New(fault.Invalid, "%s: a block is a %q, want only certificates", what, b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "%s", what)
		}
		out = append(out, c)
	}
	return out, nil
}

// readBundle reads the trusted authorities: certificates that signed themselves, no two of one key. fault.Invalid.
func readBundle(text []byte) ([]*x509.Certificate, error) {
	certs, err := readCerts(text, "the bundle of authorities")
	if err != nil {
		return nil, err
	}
	if len(certs) > maxBundle {
		return nil, fault.New(fault.Invalid, "the bundle holds %d authorities, at most %d", len(certs), maxBundle)
	}
	seen := map[string]bool{}
	for _, c := range certs {
		if err := checkAuthority(c); err != nil {
			return nil, err
		}
		if seen[certHash(c)] {
			return nil, fault.New(fault.Invalid, "the bundle holds authority %q twice", c.Subject.CommonName)
		}
		seen[certHash(c)] = true
	}
	return certs, nil
}

// checkAuthority refuses a certificate that is no authority signed by itself. fault.Invalid.
func checkAuthority(c *x509.Certificate) error {
	if err := checkKey(c.PublicKey); err != nil {
		return err
	}
	if !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 || c.CheckSignatureFrom(c) != nil {
		return fault.New(fault.Invalid, "certificate %q is no authority", c.Subject.CommonName)
	}
	return nil
}

// readRing reads authorities with their keys, as Authority.PEM writes them one after the other. fault.Invalid.
func readRing(text []byte) ([]*Authority, error) {
	const what = "the file of authorities' keys"
	all, err := blocks(text, what)
	if err != nil {
		return nil, err
	}
	var out []*Authority
	var certs []*x509.Certificate
	for _, b := range all {
		switch b.Type {
		case certBlock:
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, fault.Wrap(fault.Invalid, err, "%s", what)
			}
			certs = append(certs, c)
		case keyBlock:
			a, err := joinAuthority(certs, b.Bytes)
			if err != nil {
				return nil, err
			}
			out, certs = append(out, a), nil
		default:
			return nil, fault.New(fault.Invalid, "%s: a block is a %q", what, b.Type)
		}
	}
	if len(certs) > 0 {
		return nil, fault.New(fault.Invalid, "%s: its last certificate has no key", what)
	}
	return out, nil
}

// joinAuthority puts an authority together and checks that its parts belong to each other.
func joinAuthority(certs []*x509.Certificate, der []byte) (*Authority, error) {
	if len(certs) == 0 || len(certs) > 1+maxLinks {
		return nil, fault.New(fault.Invalid, "a key of an authority comes with %d certificates, want 1 to %d", len(certs), 1+maxLinks)
	}
	if err := checkAuthority(certs[0]); err != nil {
		return nil, err
	}
	key, err := readKey(der)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, fault.New(fault.Invalid, "the key is not that of authority %q", certs[0].Subject.CommonName)
	}
	return &Authority{cert: certs[0], links: certs[1:], key: key}, nil
}

// readKey reads a private key in PKCS #8. fault.Invalid.
func readKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read a private key")
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "the private key is not of the kind ECDSA P-256")
	}
	return key, checkKey(&key.PublicKey)
}

// writeRing is the text that readRing reads.
func writeRing(ring []*Authority) ([]byte, error) {
	var out []byte
	for _, a := range ring {
		p, err := a.PEM()
		if err != nil {
			return nil, err
		}
		out = append(out, p...)
	}
	return out, nil
}
