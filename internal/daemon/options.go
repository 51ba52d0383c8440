package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Options is everything that `flota up` can be told. Each has a flag and an environment variable FLOTA_….
type Options struct {
	DataDir string            // where everything of this machine lies; default /var/lib/flota, as root
	Name    string            // unique in the cluster; default the host's name
	Addr    string            // IP that others reach this machine by; default 127.0.0.1
	APIPort int               // default 7700; 0 picks a free one (tests)
	Labels  map[string]string // what units may ask for with MachineMetadata=

	// Voters are the machines that hold the store, name to host:port of their peer listener, this one among them.
	// Empty: this machine alone holds the store, or, with Join, it holds none. Fixed for the life of the data directory.
	Voters   map[string]string
	PeerPort int    // of this machine's store; default 7701
	Join     string // host:port of the API of any machine of the cluster to join
	Token    string // shown to the cluster that is joined; not asked for yet

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
	// Dial makes every connection to another machine; default plain TCP. Mutual TLS has its place here.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
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
		o.Addr = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(o.Addr)
	if err != nil {
		return o, fault.New(fault.Invalid, "address %q is not an IP address", o.Addr)
	}
	if !ip.IsLoopback() {
		return o, fault.WithHint(fault.New(fault.Invalid, "address %s is not a loopback address", o.Addr),
			"machines do not authenticate each other yet, so flota listens on 127.0.0.0/8 only; try several machines on this host with: flota dev up")
	}
	if o.Join != "" && len(o.Voters) > 0 {
		return o, fault.New(fault.Invalid, "a machine either joins a cluster or is one of its first voters, not both")
	}
	if _, me := o.Voters[o.Name]; len(o.Voters) > 0 && !me {
		return o, fault.New(fault.Invalid, "%q is not among the voters it was given", o.Name)
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
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 5 * time.Second}
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Size == (machine.Size{}) {
		o.Size = hostSize()
	}
	return o, nil
}
