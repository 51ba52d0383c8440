package etcd

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"flota/internal/fault"
	"flota/internal/store"
)

// requestBytes is what etcd accepts as one request: what a store.Txn may hold and 512 KiB for keys and framing, so that only our
// own limit is ever met.
const requestBytes = store.MaxBytes + 512<<10

// defragMB makes a member that starts give unused disk back when that is 100 MB or more.
const defragMB = 100

// config turns the options into etcd's own. Errors are fault.Invalid, or fault.Internal when Dir cannot be made.
func (o Options) config(d *doom) (*embed.Config, error) {
	if o.Name == "" || o.Dir == "" || o.Log == nil {
		return nil, fault.New(fault.Invalid, "start the store: a name, a directory and a log are needed")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "start the store")
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = o.Name, o.Dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapOver(o.Log, d))
	cfg.InitialClusterToken = "flota"
	if len(o.Peers) < 2 {
		// etcd makes its IDs of this and the address: no two clusters founded at one address may be taken for each other.
		cfg.InitialClusterToken = rand.Text()
	}
	cfg.ClusterState = embed.ClusterStateFlagNew
	if o.Existing || hasData(o.Dir) {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	cfg.StrictReconfigCheck = false // it refuses for seconds after each change; room quorum does the checking
	cfg.MaxLearners = maxLearners
	cfg.MaxRequestBytes = uint(requestBytes)
	cfg.BootstrapDefragThresholdMegabytes = defragMB
	cfg.QuotaBackendBytes = o.QuotaBytes
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = defaultTo(o.Keep, keepDefault).String()
	cfg.TickMs = uint(defaultTo(o.Heartbeat, 100*time.Millisecond).Milliseconds())
	cfg.ElectionMs = uint(defaultTo(o.Election, time.Second).Milliseconds())
	cfg.SnapshotCount = defaultTo(o.SnapshotCount, cfg.SnapshotCount)
	cfg.UnsafeNoFsync = o.noSync
	// No listener of etcd's for clients: see serve. The address that members tell each other is only ever shown to applications.
	cfg.ListenClientUrls = []url.URL{}
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "unix", Path: "/" + o.Name}}
	if o.ClientAddr != "" {
		cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: o.ClientAddr}}
	}
	return cfg, o.peers(cfg)
}

// maxLearners is how many machines may catch up at once. 8: more than the largest number of voters, small enough that a leader feeds them all.
const maxLearners = 8

// hasData says whether a member has run in dir.
func hasData(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "member", "wal"))
	return err == nil
}

func defaultTo[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// peers sets where the members are and how they know each other.
func (o Options) peers(cfg *embed.Config) error {
	peers := o.Peers
	if len(peers) == 0 {
		peers = map[string]string{o.Name: o.PeerAddr}
	}
	if peers[o.Name] != o.PeerAddr {
		return fault.New(fault.Invalid, "start the store: %s is at %s, but the list of members has %q", o.Name, o.PeerAddr, peers[o.Name])
	}
	var all []string
	for name, addr := range peers {
		u, err := peerURL(addr, o.PeerTLS != nil)
		if err != nil {
			return err
		}
		if name == "" || strings.ContainsAny(name, ",=") {
			return fault.New(fault.Invalid, "start the store: %q cannot name a member", name)
		}
		all = append(all, fmt.Sprintf("%s=%s", name, u.String()))
		if name == o.Name {
			cfg.ListenPeerUrls = []url.URL{u}
			cfg.AdvertisePeerUrls = []url.URL{u}
		}
	}
	slices.Sort(all)
	cfg.InitialCluster = strings.Join(all, ",")
	if o.PeerTLS == nil {
		return nil
	}
	return o.PeerTLS.apply(cfg)
}

// peerURL is how etcd writes the address of a member. Without TLS nobody is authenticated: only loopback is let through.
func peerURL(addr string, tls bool) (url.URL, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return url.URL{}, fault.Wrap(fault.Invalid, err, "address of a member of the store")
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return url.URL{}, fault.Wrap(fault.Invalid, err, "address of a member of the store")
	}
	if tls {
		return url.URL{Scheme: "https", Host: addr}, nil
	}
	if !ip.IsLoopback() {
		return url.URL{}, fault.New(fault.Denied, "without TLS the store's members may only be on loopback, not on %s: they do not authenticate each other", addr)
	}
	return url.URL{Scheme: "http", Host: addr}, nil
}
