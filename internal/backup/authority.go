package backup

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"

	"flota/internal/fault"
)

// check says whether there is a key for the first certificate, which is the one that issues, as a backup without a working authority cannot
// take machines in again. fault.Invalid otherwise.
func (t Trust) check() error {
	block, _ := pem.Decode(t.Bundle)
	if block == nil || block.Type != "CERTIFICATE" {
		return fault.New(fault.Invalid, "the cluster's authority: there is no certificate in its bundle")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the cluster's authority: read its certificate")
	}
	for rest := t.Key; ; {
		if block, rest = pem.Decode(rest); block == nil {
			return fault.New(fault.Invalid, "the cluster's authority: the key of its certificate is missing")
		}
		if block.Type != "CERTIFICATE" && belongs(block.Bytes, cert) {
			return nil
		}
	}
}

// belongs says whether der is the private key, in PKCS #8, of the certificate.
func belongs(der []byte, cert *x509.Certificate) bool {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return false
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	return err == nil && bytes.Equal(public, cert.RawSubjectPublicKeyInfo)
}
