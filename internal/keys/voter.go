package keys

import (
	"context"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
)

// How gRPC connections are held.
const (
	pingAfter  = 30 * time.Second // of silence a client is asked whether it is there
	pingWait   = 20 * time.Second // for its answer
	pingMin    = 5 * time.Second  // between a client's own questions; etcdctl asks every 10 s
	helloGRPC  = 10 * time.Second // for a connection's first exchange
	streamsMax = 1 << 15          // calls and streams of one connection at once; another machine's front brings all of its clients' over one
)

// serverOptions are the same on every machine.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMin, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(helloGRPC),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.StatsHandler(connCounter{}),
	}
}

// connCounter gives each client's connection something to count in.
type connCounter struct{}

// TagConn implements stats.Handler.
func (connCounter) TagConn(ctx context.Context, i *stats.ConnTagInfo) context.Context {
	if _, within := i.RemoteAddr.(mark); within { // many clients come over one of these
		return ctx
	}
	return context.WithValue(ctx, connKey{}, new(client))
}

// HandleConn implements stats.Handler.
func (connCounter) HandleConn(context.Context, stats.ConnStats) {}

// TagRPC implements stats.Handler.
func (connCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (connCounter) HandleRPC(context.Context, stats.RPCStats) {}

// voter makes the front of a machine with a member: the embedded server's own gRPC services behind the guard.
func (f *Front) voter() {
	s := f.Node.Server()
	f.guard.usage = newUsage(f.Node, f.Limits, f.Log)
	f.guard.leaseKeys, f.guard.leaseIDs = f.leaseKeysHere, f.leaseIDsHere
	f.apps = f.guard.client()
	calmUnary, calmStream := f.Node.Calm()
	f.grpc = v3rpc.Server(s, nil, f.guard.unary, append(serverOptions(), grpc.ChainUnaryInterceptor(calmUnary),
		grpc.ChainStreamInterceptor(calmStream, f.guard.streams), grpc.MaxSendMsgSize(math.MaxInt32))...)
	v3lockpb.RegisterLockServer(f.grpc, v3lock.NewLockServer(f.apps))
	v3electionpb.RegisterElectionServer(f.grpc, v3election.NewElectionServer(f.apps))
}

// leaseKeysHere asks the embedded server which of the applications' keys end with a lease.
func (f *Front) leaseKeysHere(ctx context.Context, id int64) ([][]byte, error) {
	resp, err := f.guard.usage.leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: hideLease(id), Keys: true})
	if err != nil {
		return nil, err
	}
	reveal(resp)
	return resp.Keys, nil
}

// leaseIDsHere asks the embedded server which leases of applications there are.
func (f *Front) leaseIDsHere(ctx context.Context) ([]int64, error) {
	resp, err := f.guard.usage.leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return nil, err
	}
	reveal(resp)
	return idsOf(resp), nil
}

func idsOf(m *pb.LeaseLeasesResponse) (ids []int64) {
	for _, l := range m.Leases {
		ids = append(ids, l.ID)
	}
	return ids
}
