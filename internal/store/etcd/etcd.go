// Package etcd is store.KV on etcd: a voter's own member inside this process (Start), or a client of other voters over
// any transport (Dial). Both share one implementation over clientv3; it passes store/storetest.
//
// The invariant: an answer is true or it is an error. A call that meets no quorum fails as fault.Unavailable within its
// deadline, 1.5 s for reads and 3 s for writes when the caller gave none; nothing is retried that may have happened.
//
// A member listens on TCP for its peers only: on a TLS listener of its owner's that knows them, or without TLS on loopback. Clients come
// over a unix socket, which is the way to all of the cluster's memory. etcd's own log goes through slog, and what etcd calls fatal ends the
// member, not the process. This package never decides who votes: that is room voter's. The store may also be a user's own etcd (External).
//
// Start reading at Options, Start and kv.
package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"

	"flota/internal/fault"
	"flota/internal/store"
)

// Options say how a member runs. Dir, Name, PeerAddr and Log are needed.
type Options struct {
	Dir      string            // where the member keeps its data; made if absent, only for its owner
	Name     string            // the machine's name
	PeerAddr string            // IP:port where other members reach this one; on loopback unless there is PeerTLS
	Peers    map[string]string // name to PeerAddr of all members the cluster starts with; empty: this one alone. Ignored once there is data. See PeersOf
	Socket   string            // path of the unix socket for clients; empty: none. Made for its owner only
	Log      *slog.Logger

	// ClientAddr is the host:port that clients are told to find this member's keys at, in answers to MemberList; empty: none that can be dialled.
	// It is told to the other members at each start.
	ClientAddr string

	// Existing makes a member without data join the running cluster of Peers, to which AddLearner has added it; without it, such a
	// member founds a new cluster. It means nothing to a member that has data.
	Existing bool
	// Force makes this member, voter or learner, the only one of its cluster, with everything that its own copy holds: for the case that the
	// majority is lost for good. See takeOver. fault.NotFound when there is no copy in Dir.
	Force bool
	// PeerTLS authenticates the members to each other; nil: plain HTTP, on loopback only. Its Listener is closed by Close and by a Start that fails.
	PeerTLS *PeerTLS

	Heartbeat     time.Duration // between the leader's signs of life; 0: 100 ms, etcd's default
	Election      time.Duration // without a sign of life until an election, at least 5 heartbeats; 0: 1 s, etcd's default
	SnapshotCount uint64        // transactions between snapshots of the log; 0: 10,000, etcd's default
	QuotaBytes    int64         // size of the database above which it refuses writes; 0: 2 GiB, etcd's default
	Keep          time.Duration // how long changes are kept for watches that resume; 0: 5 min

	noSync bool // leaves out fsync: for tests of what does not concern the disk
}

// keepDefault is 5 minutes, as Kubernetes keeps. By time and not by number of revisions, so that the disk is bounded by how much is written
// in ten minutes even when values are large; who was away for longer lists again, which costs 1 s for 100,000 keys.
const keepDefault = 5 * time.Minute

// Node is a running member of the store.
type Node struct {
	etcd    *embed.Etcd
	log     *slog.Logger
	tls     bool // the members' addresses are https
	hadData bool // it went on from a copy that was complete once
	kv      *kv
	server  *server     // nil without a socket
	peers   *peerServer // nil without PeerTLS
	doom    *doom

	close   sync.Once
	closing chan struct{} // closed when Close begins
	stopped chan struct{} // see Stopped
	watcher sync.WaitGroup
	gone    atomic.Bool // see Removed
}

// Start runs a member; it returns when the member runs, which is before it has found its peers: see Ready. A member that has data goes on
// from there. ctx bounds only the start. fault.Invalid for options that cannot work, fault.Denied for addresses off loopback without TLS;
// with Existing, fault.Unavailable when no member of Peers answers and fault.Conflict when they are not the cluster's members;
// fault.Internal when etcd does not start: on damaged data it leaves files open, so try again in another process only.
func Start(ctx context.Context, o Options) (n *Node, err error) {
	defer func() {
		if err != nil && o.PeerTLS != nil && o.PeerTLS.Listener != nil {
			_ = o.PeerTLS.Listener.Close()
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "start the store")
	}
	d := newDoom()
	cfg, err := o.config(d)
	if err != nil {
		return nil, err
	}
	had := hasData(o.Dir)
	if o.Force {
		if err := o.takeOver(ctx); err != nil {
			return nil, err
		}
	} else if o.Existing && !had {
		if err := o.neverRan(cfg); err != nil {
			return nil, err
		}
	}
	e, err := launch(cfg, d)
	if err != nil {
		return nil, fault.Wrap(startKind(err), err, "start the store in %s", o.Dir)
	}
	n = &Node{etcd: e, log: o.Log, tls: o.PeerTLS != nil, doom: d, closing: make(chan struct{}), stopped: make(chan struct{})}
	n.hadData = had && e.Server.Cluster().Member(e.Server.MemberID()) != nil
	n.kv = n.inside()
	n.watcher.Go(n.watch)
	if o.PeerTLS != nil {
		n.peers = servePeers(o.PeerTLS.Listener, e)
	}
	if o.Socket != "" {
		if n.server, err = serve(n, o.Socket); err != nil {
			_ = n.Close()
			return nil, err
		}
	}
	return n, nil
}

// watch waits for the end of the member and notes how it came.
func (n *Node) watch() {
	defer close(n.stopped)
	select {
	case <-n.doom.fell:
		n.log.Error("the store's member on this machine has failed", "err", n.doom.why())
	case <-n.etcd.Server.StopNotify():
		select {
		case <-n.closing:
		case <-n.doom.fell:
		default:
			// etcd ends by itself for this one reason: the cluster removed the member, or a peer says so.
			n.gone.Store(true)
		}
	}
	s := n.etcd.Server
	if s.IsIDRemoved(uint64(s.MemberID())) {
		n.gone.Store(true)
	}
}

// inside makes a client that calls the member's functions without a connection.
func (n *Node) inside() *kv {
	c := v3client.New(n.etcd.Server)
	status := func(ctx context.Context) (*pb.StatusResponse, error) {
		if n.self() == nil { // etcd would panic
			return nil, errStopped
		}
		st, err := c.Status(ctx, "") // there is only one
		return (*pb.StatusResponse)(st), err
	}
	leases := v3rpc.NewQuotaLeaseServer(n.etcd.Server)
	grant := func(ctx context.Context, id, seconds int64) error {
		_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: seconds})
		return clientv3.ContextError(ctx, err)
	}
	k := newKV(c, status, grant, n.AwaitLeader)
	k.guard, k.lost = n.guard, n.lost
	return k
}

// KV gives the store through this member, without a connection in between. Its Close ends only what was begun through it, and Node.Close does that too.
func (n *Node) KV() store.KV { return n.kv }

// Server is the embedded server itself, for the room that serves the applications' keys from it. Everything that comes in from outside must
// be confined there: the server knows no bounds between those keys and the cluster's own.
func (n *Node) Server() *etcdserver.EtcdServer { return n.etcd.Server }

// QuotaBytes is the size of the database above which the member refuses writes.
func (n *Node) QuotaBytes() int64 {
	if q := n.etcd.Config().QuotaBackendBytes; q > 0 {
		return q
	}
	return etcdserverQuota
}

// Ready waits until the member has joined its cluster and serves. fault.Unavailable when ctx ends first or the member stops.
func (n *Node) Ready(ctx context.Context) error {
	select {
	case <-n.etcd.Server.ReadyNotify():
		return nil
	case <-n.stopped:
		return fault.New(fault.Unavailable, "the store's member %s has stopped", n.etcd.Config().Name)
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "the store's member %s has not joined yet", n.etcd.Config().Name)
	}
}

// Stopped is closed when the member has stopped, by Close or by itself: the cluster removed it (Removed), or its disk failed. Close must be called all
// the same; after a failure this process may be unable to start a member on the same directory again.
func (n *Node) Stopped() <-chan struct{} { return n.stopped }

// Removed says, after Stopped, whether the member ended because the cluster removed it: its data is of no more use.
func (n *Node) Removed() bool { return n.gone.Load() }

// Leads says whether this member leads the store now.
func (n *Node) Leads() bool { return n.etcd.Server.Leader() == n.etcd.Server.MemberID() }

// Close ends all calls, hands the leadership to another member and stops this one. It may take some seconds.
func (n *Node) Close() error {
	n.shut(func() {})
	return nil
}

// halt is Close without a word to the other members, as near to a power cut as one process can be.
func (n *Node) halt() { n.shut(n.etcd.Server.HardStop) }

func (n *Node) shut(last func()) {
	n.close.Do(func() {
		close(n.closing)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = n.kv.Close()
			if n.server != nil {
				n.server.stop()
			}
			last()
			n.etcd.Close() // hands the leadership over, so the peers are served until then
			if n.peers != nil {
				n.peers.stop()
			}
			for range n.etcd.Err() { // etcd has closed it: nothing is left behind
			}
		}()
		if !n.ends(ended) {
			n.log.Error("the store's member has failed and does not end; its files stay open until this process ends")
			if n.peers != nil {
				n.peers.stop()
			}
		}
		n.watcher.Wait()
	})
}

// ends waits until ended is closed; false when the member has failed and does not get there.
func (n *Node) ends(ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	case <-n.doom.fell:
	}
	t := time.NewTimer(doomPatience)
	defer t.Stop()
	select {
	case <-ended:
		return true
	case <-t.C:
		return false
	}
}

// etcdserverQuota is the quota when none is set: 2 GiB. Source: etcd's documentation of --quota-backend-bytes.
const etcdserverQuota = 2 << 30

// leaderWait is how long a call waits for an election. 1.5 s: one takes 1.0 to 1.5 s with etcd's defaults.
const leaderWait = 1500 * time.Millisecond

// AwaitLeader waits a little while the members elect a leader. Without one no linearizable call can be answered: fault.Unavailable.
func (n *Node) AwaitLeader(ctx context.Context) error {
	s := n.etcd.Server
	if s.Leader() != 0 {
		return nil
	}
	t := time.NewTimer(leaderWait)
	defer t.Stop()
	for {
		changed := s.LeaderChangedNotify()
		if s.Leader() != 0 {
			return nil
		}
		var why error
		select {
		case <-changed:
			continue
		case <-n.doom.fell:
			why = n.doom.why()
		case <-s.StoppingNotify():
			why = fmt.Errorf("the member is stopping")
		case <-t.C:
			why = fmt.Errorf("the members have elected no leader")
		case <-ctx.Done():
			why = ctx.Err()
		}
		return fault.New(fault.Unavailable, "no quorum: %w", why)
	}
}
