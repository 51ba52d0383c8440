// Package trust says who is who between machines: the cluster's authority, each machine's certificate, and the TLS of every connection off
// loopback.
//
// The invariant: nobody is believed but a machine whose certificate an authority of this cluster signed, whose ID and public key stand in the
// machine table as far as it is known here, and that holds the certificate's key. Everything is TLS 1.3. No certificate needs an operator to go
// on: authorities do not expire, leaves renew themselves at half life, and a machine that was off for longer than its leaf's life may still ask
// for a new one, and for nothing else.
//
// On disk, in Options.Dir (0700), every file replaced in one step: ca.crt, the trusted authorities, the issuing one first; ca.key, on voters
// only, the authorities' keys; machine.key, made once and kept for the machine's life, because its hash stands in the machine table;
// machine.crt, this machine's leaf and the links from its issuer to the older authorities; cluster.json; members.json, which machines were
// removed. machine.crt is written last: a machine that has it has everything.
//
// What it never does: speak a protocol above TLS, or write to the store. It never takes a private key over the network but an authority's, and
// that only where KeepAuthority is called.
//
// It is larger than other rooms, because its parts change together: what a certificate says, who checks it on which kind of connection, and how
// both go on while the authority is changed. Start reading at Identity, then Members, Listener and Rotation.
package trust

import (
	"log/slog"
	"net/netip"
	"time"

	"flota/internal/machine"
)

// Life is how long a leaf is valid unless Options say otherwise: 7 days. Source: the issue; renewed at half life, so that a cluster may be
// without a voter for three days before a machine has to wait for one.
const Life = 7 * 24 * time.Hour

// backdate is how long before its making a certificate begins to be valid, so that a machine whose clock is behind believes it. One hour:
// twelve times the difference of clocks at which a join is refused (5 min).
const backdate = time.Hour

// Subject is whom a certificate is for.
type Subject struct {
	ID      machine.ID
	Name    string       // the machine's name in the cluster
	IPs     []netip.Addr // addresses that others reach it by
	Cluster string       // the cluster's ID; Found makes one if it is empty
}

// Options say where an identity lies.
type Options struct {
	Dir  string           // made with mode 0700 if it is missing
	Life time.Duration    // of the leaves that this machine's authority issues; 0: Life
	Log  *slog.Logger     // nil logs nothing
	Now  func() time.Time // nil: time.Now

	// fault, for tests, is asked before each step of each change of a file; an error is as if the process had died there.
	fault func(step, file string) error
}

// filled gives o with its defaults.
func (o Options) filled() Options {
	if o.Life == 0 {
		o.Life = Life
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Grant is what the cluster answers to an admitted machine and to a renewal. Its bundle is best taken from the store (machine.Cluster.Trust), which
// is never late; a machine that renews takes it over only if it does not trust the leaf's issuer yet, and else waits for SetBundle.
type Grant struct {
	Certificate []byte `json:"certificate"` // PEM: the leaf, then the links of its issuer
	Bundle      []byte `json:"bundle"`      // PEM: the trusted authorities, the issuing one first
	Cluster     string `json:"cluster"`     // the cluster's ID
	Epoch       int    `json:"epoch"`       // see machine.Cluster
}

// A Kind is what a connection may be used for. It is chosen by ALPN, and never changes.
type Kind int

// The kinds of connections.
const (
	Machines Kind = iota // no ALPN, "http/1.1" or "h2": between machines, both sides verified
	Join                 // "flota-join": from a machine that has no certificate yet; serves the join request only
	Renew                // "flota-renew": from a machine whose certificate may have expired; serves the renewal only
	Plain                // no TLS at all: HTTP from the same host; on listeners on loopback only
)

// The names of the kinds in ALPN. They cross the wire: never rename.
const (
	JoinProtocol  = "flota-join"
	RenewProtocol = "flota-renew"
	HTTP1         = "http/1.1"
	HTTP2         = "h2"
)
