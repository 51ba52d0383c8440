package daemon

import (
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store/etcd"
)

// Options is everything that `flota up` can be told. Each has a flag and an environment variable FLOTA_….
type Options struct {
	DataDir string            // where everything of this machine lies; default /var/lib/flota, as root
	Name    string            // unique in the cluster; default the host's name
	Addr    string            // IP that others reach this machine by; default: see ownAddr
	APIPort int               // default 7700; 0 picks a free one (tests)
	Labels  map[string]string // what units may ask for with MachineMetadata=
	// Witness machines only ever vote: no unit runs on them, and they need little memory. Fixed when the machine joins.
	Witness bool

	PeerPort int // of this machine's member of the store; default 7701
	// Join are IP:port of the API of machines of the cluster to join; empty: this machine is in one already, or makes one. Token and CAHash are
	// what `flota token create` printed with it.
	Join   []string
	Token  string
	CAHash string
	// ReplaceAfter is how long a voter may be away until another machine gets its vote; default 60 s. The same on all machines.
	ReplaceAfter time.Duration
	// CertLife is how long the certificates hold that this machine issues; default 7 days. For tests.
	CertLife time.Duration
	// External is an etcd of the user's own that is used instead of one of the cluster's; nil: the cluster's.
	External *etcd.ExternalOptions

	KeysAddr  string // IP:port of the applications' keys, on loopback; default 127.0.0.1:2379; "none" serves none here
	KeysAuth  bool   // callers of the applications' keys need a token
	KeysQuota int64  // bytes of all of the applications' keys; 0: 512 MiB. The same on all machines

	Lease time.Duration // presence; a machine is gone when it was not renewed for so long. Default 5 s
	Renew time.Duration // how often it is renewed. Default 1.5 s

	// Size is offered to units; default what the host has. `flota dev` divides the host by its machines.
	Size machine.Size
	// Strict refuses units with keys that restrict and cannot be honoured here, instead of saying so.
	Strict bool

	Version string
	Log     *slog.Logger
	// Ready, if set, is called once, when the machine is part of the cluster.
	Ready func()
}

// The defaults. Lease: when etcd's leader dies with a machine, the longest that its death can go unnoticed is the election (1 to 2 s), the
// lease with the extension that a new etcd leader gives to all of them (1 s) and 0.5 s until the end is seen: 8.5 s, and the
// leader waits for 0.5 s more. With 6 s nothing would be left of the 10 s promised. Renew: three attempts fit into a lease.
// Measured: see the failure table in ARCHITECTURE.md.
const (
	DefaultLease    = 5 * time.Second
	DefaultRenew    = 1500 * time.Millisecond
	DefaultAPIPort  = 7700
	DefaultPeerPort = 7701
	DefaultDataDir  = "/var/lib/flota"
)

// fill sets defaults and refuses what cannot work; errors are fault.Invalid with what to do.
func (o Options) fill() (Options, error) {
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir
	}
	if o.Name == "" {
		host, _ := os.Hostname() // an empty name is refused below
		o.Name, _, _ = strings.Cut(strings.ToLower(host), ".")
	}
	if err := machine.CheckName(o.Name); err != nil {
		return o, fault.WithHint(err, "choose one with --name")
	}
	if o.Addr == "" {
		o.Addr = ownAddr(o.Join)
	}
	ip, err := netip.ParseAddr(o.Addr)
	if err != nil {
		return o, fault.New(fault.Invalid, "address %q is not an IP address", o.Addr)
	}
	if ip.IsUnspecified() || ip.IsMulticast() {
		return o, fault.WithHint(fault.New(fault.Invalid, "address %s is not one that other machines can reach", o.Addr),
			"give --addr the one address of this machine that the others are to use")
	}
	for _, j := range o.Join {
		if _, err := netip.ParseAddrPort(j); err != nil {
			return o, fault.New(fault.Invalid, "--join %q: want IP:PORT, such as 10.0.0.1:%d", j, DefaultAPIPort)
		}
	}
	if o.Witness && o.External != nil {
		return o, fault.New(fault.Invalid, "a witness votes in the cluster's own store; with --store there is none")
	}
	if o.ReplaceAfter == 0 {
		o.ReplaceAfter = quorum.DefaultReplace
	}
	if o.ReplaceAfter < 2*time.Second || o.CertLife < 0 {
		return o, fault.New(fault.Invalid, "--replace-after %s: want at least 2s", o.ReplaceAfter)
	}
	if o.KeysAddr == "" {
		o.KeysAddr = DefaultKeysAddr
	}
	if err := checkKeysAddr(o.KeysAddr); err != nil {
		return o, err
	}
	if o.KeysQuota < 0 {
		return o, fault.New(fault.Invalid, "--keys-quota %d: want a size above 0", o.KeysQuota)
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Renew == 0 {
		o.Renew = min(DefaultRenew, o.Lease*3/10)
	}
	if o.Lease < 2*time.Second || o.Renew <= 0 || o.Renew > o.Lease/2 {
		return o, fault.New(fault.Invalid, "lease %s renewed every %s: want at least 2s, renewed at least twice in it", o.Lease, o.Renew)
	}
	if o.PeerPort == 0 {
		o.PeerPort = DefaultPeerPort
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Size == (machine.Size{}) {
		o.Size = hostSize()
	}
	return o, nil
}
