package trust

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Identity is who this machine is: its key, its certificate and whom it trusts. Made by Found, Open and Install; one per Options.Dir at a time.
// Safe for concurrent use; whatever it hands out for TLS follows its changes.
type Identity struct {
	o    Options
	disk disk
	key  *ecdsa.PrivateKey
	now  atomic.Pointer[state]
	wake chan struct{} // capacity 1: Run is to look whether to renew

	renewing sync.Mutex // one renewal at a time

	mu      sync.Mutex // guards changes of the files, of now, and the fields below
	wanted  *Subject   // what the next certificate shall say; nil: what this one says
	pressed bool       // Wake was called since the leaf was made
	asked   time.Time  // when that was last
}

// state is what an Identity knows at one moment; immutable.
type state struct {
	subject Subject
	leaf    *x509.Certificate
	chain   [][]byte            // DER: the leaf, its issuer, the issuer's links
	trusted []*x509.Certificate // the issuing one first
	roots   *x509.CertPool      // of trusted
	ring    []*Authority        // authorities whose keys lie here
	epoch   int
}

// clusterRecord is cluster.json.
type clusterRecord struct {
	Cluster string `json:"cluster"`
	Epoch   int    `json:"epoch"`
}

// Open reads this machine's identity. fault.NotFound: it has not joined a cluster; fault.Invalid: a file is damaged, and the message says which.
// An expired certificate is no error.
func Open(o Options) (*Identity, error) {
	o = o.filled()
	i := &Identity{o: o, disk: disk{dir: o.Dir, fault: o.fault}, wake: make(chan struct{}, 1)}
	if ok, err := i.disk.has(leafFile); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the machine's identity")
	} else if !ok {
		return nil, fault.WithHint(fault.New(fault.NotFound, "this machine is in no cluster yet: there is no %s", i.disk.path(leafFile)),
			"flota up makes a cluster; flota token create, on a machine of one, prints the command that joins it")
	}
	if err := i.disk.make(); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the machine's identity")
	}
	if err := i.disk.seal(o.Log, keyFile, ringFile); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the machine's identity")
	}
	var err error
	if i.key, err = readMachineKey(i.disk); err != nil {
		return nil, err
	}
	s, err := load(i.disk, i.key)
	if err != nil {
		return nil, fault.WithHint(err, "restore %s, or remove it and let this machine join again with a new machine id", o.Dir)
	}
	i.now.Store(s)
	return i, nil
}

// load reads every file of an identity but the key.
func load(d disk, key *ecdsa.PrivateKey) (*state, error) {
	s := &state{}
	text, err := d.read(leafFile)
	if err == nil {
		err = s.setLeaf(text, key)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read %s", d.path(leafFile))
	}
	if text, err = d.read(bundleFile); err == nil {
		err = s.setBundle(text)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read %s", d.path(bundleFile))
	}
	r, err := readCluster(d)
	if err != nil {
		return nil, err
	}
	if r.Cluster != s.subject.Cluster {
		return nil, fault.New(fault.Invalid, "%s is of cluster %s, the certificate of %s", d.path(clusterFile), r.Cluster, s.subject.Cluster)
	}
	s.epoch = r.Epoch
	if s.ring, err = loadRing(d); err != nil {
		return nil, err
	}
	return s, nil
}

// loadRing reads ca.key; none is no error.
func loadRing(d disk) ([]*Authority, error) {
	text, err := d.read(ringFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ring []*Authority
	if err == nil {
		ring, err = readRing(text)
	}
	return ring, fault.Wrap(fault.Invalid, err, "read %s", d.path(ringFile))
}

// readCluster reads cluster.json. fault.Invalid; fs.ErrNotExist within it if there is none.
func readCluster(d disk) (r clusterRecord, err error) {
	text, err := d.read(clusterFile)
	if err == nil {
		r, err = parseCluster(text)
	}
	return r, fault.Wrap(fault.Invalid, err, "read %s", d.path(clusterFile))
}

// parseCluster reads the text of cluster.json. fault.Invalid.
func parseCluster(text []byte) (r clusterRecord, err error) {
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fault.Wrap(fault.Invalid, err, "read the cluster's record")
	}
	if !clusterForm.MatchString(r.Cluster) || r.Epoch < 0 {
		return r, fault.New(fault.Invalid, "the cluster's record names cluster %q, epoch %d", r.Cluster, r.Epoch)
	}
	return r, nil
}

// setLeaf takes the text of machine.crt, which must be for key. fault.Invalid, fault.Denied.
func (s *state) setLeaf(text []byte, key *ecdsa.PrivateKey) error {
	certs, err := readCerts(text, "the certificate")
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return fault.New(fault.Invalid, "the certificate is not for this machine's key")
	}
	if s.subject, err = subjectOf(certs[0]); err != nil {
		return err
	}
	s.leaf, s.chain = certs[0], nil
	for _, c := range certs {
		s.chain = append(s.chain, c.Raw)
	}
	return nil
}

// setBundle takes the text of ca.crt. fault.Invalid.
func (s *state) setBundle(text []byte) error {
	certs, err := readBundle(text)
	if err != nil {
		return err
	}
	s.trusted, s.roots = certs, x509.NewCertPool()
	for _, c := range certs {
		s.roots.AddCert(c)
	}
	return nil
}

// certificate is what this machine shows in handshakes.
func (i *Identity) certificate(s *state) *tls.Certificate {
	return &tls.Certificate{Certificate: s.chain, PrivateKey: i.key, Leaf: s.leaf}
}

// ID is the machine's.
func (i *Identity) ID() machine.ID { return i.now.Load().subject.ID }

// Name is the machine's name, as its certificate says it.
func (i *Identity) Name() string { return i.now.Load().subject.Name }

// Cluster is the cluster's ID: 32 lower-case hex digits.
func (i *Identity) Cluster() string { return i.now.Load().subject.Cluster }

// Epoch is the one of the cluster that this machine last knew; see machine.Cluster.
func (i *Identity) Epoch() int { return i.now.Load().epoch }

// Expires is the end of this machine's certificate.
func (i *Identity) Expires() time.Time { return i.now.Load().leaf.NotAfter }

// KeyHash is the SHA-256 of this machine's public key, hex: machine.Machine.Key.
func (i *Identity) KeyHash() string { return certHash(i.now.Load().leaf) }

// CAHash names the authority that issues now, as flota token create prints it: "sha256:" and the SHA-256 of its public key in hex.
func (i *Identity) CAHash() string { return hashMark + certHash(i.now.Load().trusted[0]) }

// Bundle is the trusted authorities, PEM, the issuing one first.
func (i *Identity) Bundle() []byte { return certPEM(i.now.Load().trusted...) }

// Files are the paths for the store's engine: it reads certificate and key anew at each handshake, and the authorities only when its member
// starts. Because every certificate comes with links to older authorities, a member that began with an older bundle goes on through a change
// of the authority; but it trusts the old authority until it is started again: after a rotation each voter's member is restarted, one at a time.
func (i *Identity) Files() (cert, key, ca string) {
	return i.disk.path(leafFile), i.disk.path(keyFile), i.disk.path(bundleFile)
}

// SetEpoch stores the cluster's epoch. It never goes back: a lower one is fault.Conflict.
func (i *Identity) SetEpoch(epoch int) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.setEpoch(epoch)
}

// setEpoch does it under mu.
func (i *Identity) setEpoch(epoch int) error {
	s := *i.now.Load()
	if epoch < s.epoch {
		return fault.New(fault.Conflict, "epoch %d of the cluster is over, it is %d now", epoch, s.epoch)
	}
	if epoch == s.epoch {
		return nil
	}
	s.epoch = epoch
	if err := writeCluster(i.disk, clusterRecord{Cluster: s.subject.Cluster, Epoch: epoch}); err != nil {
		return err
	}
	i.now.Store(&s)
	return nil
}

// writeCluster writes cluster.json.
func writeCluster(d disk, r clusterRecord) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = d.write(clusterFile, append(text, '\n'), 0o644)
	}
	return fault.Wrap(fault.Internal, err, "store the cluster's record")
}

// SetBundle replaces the trusted authorities, the issuing one first; what is open stays open. Setting what is set is free. An authority
// that is trusted no more leaves ca.key too. If another one issues now, Run renews at once. fault.Invalid.
func (i *Identity) SetBundle(text []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.setBundle(text)
}

// setBundle does it under mu.
func (i *Identity) setBundle(text []byte) error {
	old := i.now.Load()
	s := *old
	if err := s.setBundle(text); err != nil {
		return err
	}
	if slices.EqualFunc(s.trusted, old.trusted, same) {
		return nil
	}
	s.ring = slices.DeleteFunc(slices.Clone(old.ring), func(a *Authority) bool { return !a.belongs(s.trusted) })
	if len(s.ring) < len(old.ring) {
		if err := i.writeRing(s.ring); err != nil { // first: dying after it, the next SetBundle only has the rest to do
			return err
		}
	}
	if err := i.disk.write(bundleFile, certPEM(s.trusted...), 0o644); err != nil {
		return fault.Wrap(fault.Internal, err, "store the trusted authorities")
	}
	i.now.Store(&s)
	i.stir()
	return nil
}

// writeRing writes ca.key, or removes it when no key is left.
func (i *Identity) writeRing(ring []*Authority) error {
	if len(ring) == 0 {
		return fault.Wrap(fault.Internal, i.disk.remove(ringFile), "forget the authority's key")
	}
	text, err := writeRing(ring)
	if err == nil {
		err = i.disk.write(ringFile, text, 0o600)
	}
	return fault.Wrap(fault.Internal, err, "keep the authority's key")
}

// Describe says what this machine's next certificate shall say; if this one says something else, Run renews at once.
func (i *Identity) Describe(name string, ips []netip.Addr) error {
	s := i.now.Load().subject
	s.Name, s.IPs = name, ips
	if err := s.Check(); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.wanted = &s
	i.stir()
	return nil
}

// want is whom the next certificate shall be for, and whether this one is for another. IPs are compared as they come out of a certificate.
func (i *Identity) want() (s Subject, differs bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	has := i.now.Load()
	if i.wanted == nil {
		return has.subject, false
	}
	sameIPs := slices.EqualFunc(i.wanted.addresses(), has.subject.addresses(), net.IP.Equal)
	return *i.wanted, i.wanted.Name != has.subject.Name || !sameIPs
}
