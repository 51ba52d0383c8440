package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"time"

	"flota/internal/fault"
)

// Found makes a cluster: its authority, its ID (unless s has one), and this first machine's certificate. fault.Exists if Options.Dir has an
// identity. Dying in the middle, it is finished by calling it again: what was made is used.
func Found(o Options, s Subject) (*Identity, error) {
	o = o.filled()
	d := disk{dir: o.Dir, fault: o.fault}
	if ok, err := d.has(leafFile); err != nil || ok {
		if err == nil {
			err = fault.New(fault.Exists, "this machine is in a cluster already: %s has its identity", o.Dir)
		}
		return nil, err
	}
	key, err := machineKey(d)
	if err != nil {
		return nil, err
	}
	if s.Cluster, err = foundCluster(d, s.Cluster); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	now := o.Now()
	a, err := foundAuthority(d, s.Cluster, now)
	if err != nil {
		return nil, err
	}
	csr, err := s.request(key)
	if err != nil {
		return nil, err
	}
	leaf, err := a.Issue(csr, s, o.Life, now)
	if err != nil {
		return nil, err
	}
	return Install(o, Grant{Certificate: leaf, Bundle: a.Certificate(), Cluster: s.Cluster})
}

// foundCluster gives the cluster's ID: the one of a founding that was broken off, else want, else a new one.
func foundCluster(d disk, want string) (string, error) {
	r, err := readCluster(d)
	if err == nil && (want == "" || want == r.Cluster) {
		return r.Cluster, nil
	}
	if err == nil {
		return "", fault.New(fault.Conflict, "%s is of cluster %s, not %s", d.path(clusterFile), r.Cluster, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if want == "" {
		b := make([]byte, 16)
		rand.Read(b)
		want = hex.EncodeToString(b)
	}
	if !clusterForm.MatchString(want) {
		return "", fault.New(fault.Invalid, "cluster id %q is not 32 lower-case hex digits", want)
	}
	return want, writeCluster(d, clusterRecord{Cluster: want})
}

// foundAuthority gives the cluster's authority: the one of a founding that was broken off, else a new one.
func foundAuthority(d disk, cluster string, now time.Time) (*Authority, error) {
	ring, err := loadRing(d)
	if err != nil {
		return nil, err
	}
	if len(ring) > 0 {
		return ring[0], nil
	}
	a, err := NewAuthority(cluster, nil, now)
	if err != nil {
		return nil, err
	}
	text, err := a.PEM()
	if err == nil {
		err = d.write(ringFile, text, 0o600)
	}
	return a, fault.Wrap(fault.Internal, err, "keep the authority's key")
}

// Request makes a request for a certificate that says s, in DER. It makes machine.key, or uses the one that is there: however often a machine
// asks, before and after a crash, it asks for the same key. Subject.Cluster may be empty.
func Request(o Options, s Subject) ([]byte, error) {
	key, err := machineKey(disk{dir: o.Dir, fault: o.fault})
	if err != nil {
		return nil, err
	}
	return s.request(key)
}

// machineKey reads machine.key, or makes it and its directory.
func machineKey(d disk) (*ecdsa.PrivateKey, error) {
	if err := d.make(); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make the machine's key")
	}
	key, err := readMachineKey(d)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make the machine's key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = d.write(keyFile, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), 0o600)
	}
	return key, fault.Wrap(fault.Internal, err, "make the machine's key")
}

// readMachineKey reads machine.key. fault.Invalid, with fs.ErrNotExist within it if there is none.
func readMachineKey(d disk) (*ecdsa.PrivateKey, error) {
	text, err := d.read(keyFile)
	var all []*pem.Block
	if err == nil {
		all, err = blocks(text, "it")
	}
	if err == nil && (len(all) != 1 || all[0].Type != keyBlock) {
		err = fault.New(fault.Invalid, "it is not one private key")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read %s", d.path(keyFile))
	}
	key, err := readKey(all[0].Bytes)
	return key, fault.Wrap(fault.Invalid, err, "read %s", d.path(keyFile))
}

// Install stores what the cluster answered to a join request. Repeating it is safe. fault.Invalid: the grant does not fit this machine's key or
// itself; fault.Conflict: this machine belongs to another cluster.
func Install(o Options, g Grant) (*Identity, error) {
	o = o.filled()
	d := disk{dir: o.Dir, fault: o.fault}
	key, err := readMachineKey(d)
	if err != nil {
		return nil, err
	}
	s, err := granted(g, key, o.Now())
	if err != nil {
		return nil, err
	}
	if r, err := readCluster(d); err == nil && r.Cluster != g.Cluster {
		return nil, fault.WithHint(fault.New(fault.Conflict, "this machine belongs to cluster %s, not %s", r.Cluster, g.Cluster),
			"flota leave takes a machine out of its cluster")
	}
	if err := keep(d, s, g); err != nil {
		return nil, err
	}
	return Open(o)
}

// granted reads a grant and checks that it holds together.
func granted(g Grant, key *ecdsa.PrivateKey, now time.Time) (*state, error) {
	s := &state{epoch: g.Epoch}
	err := s.setLeaf(g.Certificate, key)
	if err == nil {
		err = s.setBundle(g.Bundle)
	}
	if err == nil && s.subject.Cluster != g.Cluster {
		err = fault.New(fault.Invalid, "it is of cluster %s, the certificate of %s", g.Cluster, s.subject.Cluster)
	}
	if err == nil {
		_, err = s.verify(s.certs(), now, false)
	}
	return s, fault.Wrap(fault.Invalid, err, "read what the cluster granted")
}

// keep writes a grant's files, machine.crt last.
func keep(d disk, s *state, g Grant) error {
	err := writeCluster(d, clusterRecord{Cluster: g.Cluster, Epoch: g.Epoch})
	if err == nil {
		err = d.write(bundleFile, certPEM(s.trusted...), 0o644)
	}
	if err == nil {
		err = d.write(leafFile, certPEM(s.certs()...), 0o644)
	}
	return fault.Wrap(fault.Internal, err, "store the machine's identity")
}
