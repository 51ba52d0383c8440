package keys

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// client gives an in-process client of the embedded server that sees the applications' keys only, under the same limits and the same quota
// as everybody. The v2 API, locks and elections work through it. It asks for no token: who uses it has asked.
func (g *guard) client() *clientv3.Client {
	s := g.node.Server()
	c := clientv3.NewCtxClient(context.Background(), clientv3.WithZapLogger(s.Logger()))
	c.KV = clientv3.NewKVFromKVClient(adapter.KvServerToKvClient(&kvInside{inner: v3rpc.NewQuotaKVServer(s), g: g}), c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(adapter.LeaseServerToLeaseClient(&leaseInside{inner: v3rpc.NewQuotaLeaseServer(s), g: g}), c, time.Second)
	c.Watcher = blankWatcher{clientv3.NewWatchFromWatchClient(adapter.WatchServerToWatchClient(&watchInside{inner: v3rpc.NewWatchServer(s), g: g}), c), s}
	c.Maintenance = clientv3.NewMaintenanceFromMaintenanceClient(adapter.MaintenanceServerToMaintenanceClient(v3rpc.NewMaintenanceServer(s, nil)), c)
	c.Cluster = clientv3.NewClusterFromClusterClient(adapter.ClusterServerToClusterClient(&clusterInside{inner: v3rpc.NewClusterServer(s)}), c)
	return c
}

// blankWatcher gives watches contexts that print the same: clientv3 tells them apart by how they print, and printing one whose values change
// is a race. Source: etcd's v3client.
type blankWatcher struct {
	clientv3.Watcher
	server *etcdserver.EtcdServer
}

type blankContext struct{ context.Context }

// String implements fmt.Stringer.
func (blankContext) String() string { return "blank" }

// Watch implements clientv3.Watcher.
func (w blankWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	return w.Watcher.Watch(blankContext{ctx}, key, opts...)
}

// carryInside carries out a request of the in-process client. do does it on the server.
func carryInside[Q, R any](ctx context.Context, g *guard, req *Q, do func(context.Context, *Q) (*R, error)) (*R, error) {
	if err := g.limits.check(req); err != nil {
		return nil, err
	}
	resp, err := g.carry(ctx, req, func(ctx context.Context, req any) (any, error) { return do(ctx, req.(*Q)) })
	if err != nil {
		return nil, err
	}
	return resp.(*R), nil
}

type kvInside struct {
	pb.UnimplementedKVServer
	inner pb.KVServer
	g     *guard
}

// Range implements pb.KVServer.
func (k *kvInside) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return carryInside(ctx, k.g, r, k.inner.Range)
}

// Put implements pb.KVServer.
func (k *kvInside) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return carryInside(ctx, k.g, r, k.inner.Put)
}

// DeleteRange implements pb.KVServer.
func (k *kvInside) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return carryInside(ctx, k.g, r, k.inner.DeleteRange)
}

// Txn implements pb.KVServer.
func (k *kvInside) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return carryInside(ctx, k.g, r, k.inner.Txn)
}

type leaseInside struct {
	pb.UnimplementedLeaseServer
	inner pb.LeaseServer
	g     *guard
}

// LeaseGrant implements pb.LeaseServer.
func (l *leaseInside) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return carryInside(ctx, l.g, r, l.inner.LeaseGrant)
}

// LeaseRevoke implements pb.LeaseServer.
func (l *leaseInside) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return carryInside(ctx, l.g, r, l.inner.LeaseRevoke)
}

// LeaseTimeToLive implements pb.LeaseServer.
func (l *leaseInside) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	return carryInside(ctx, l.g, r, l.inner.LeaseTimeToLive)
}

// LeaseLeases implements pb.LeaseServer.
func (l *leaseInside) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return carryInside(ctx, l.g, r, l.inner.LeaseLeases)
}

// LeaseKeepAlive implements pb.LeaseServer.
func (l *leaseInside) LeaseKeepAlive(ss pb.Lease_LeaseKeepAliveServer) error {
	s := l.g.openInside(handed{ss, func(msg any) error {
		r, err := ss.Recv()
		if err == nil {
			msg.(*pb.LeaseKeepAliveRequest).ID = r.ID
		}
		return err
	}})
	defer s.close()
	return l.inner.LeaseKeepAlive(&grpc.GenericServerStream[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]{ServerStream: s})
}

type watchInside struct {
	pb.UnimplementedWatchServer
	inner pb.WatchServer
	g     *guard
}

// Watch implements pb.WatchServer.
func (w *watchInside) Watch(ss pb.Watch_WatchServer) error {
	s := w.g.openInside(handed{ss, func(msg any) error {
		r, err := ss.Recv()
		if err == nil {
			msg.(*pb.WatchRequest).RequestUnion = r.RequestUnion
		}
		return err
	}})
	defer s.close()
	return w.inner.Watch(&grpc.GenericServerStream[pb.WatchRequest, pb.WatchResponse]{ServerStream: s})
}

// openInside looks at a stream of the in-process client.
func (g *guard) openInside(ss grpc.ServerStream) *looked {
	ctx, cancel := context.WithCancelCause(ss.Context())
	return &looked{ServerStream: ss, g: g, ctx: ctx, cancel: cancel, grant: everything, confine: true}
}

// handed is a stream in which messages are handed over as they are instead of being decoded into the receiver's.
type handed struct {
	grpc.ServerStream
	recv func(msg any) error
}

// RecvMsg implements grpc.ServerStream.
func (h handed) RecvMsg(msg any) error { return h.recv(msg) }

type clusterInside struct {
	pb.UnimplementedClusterServer
	inner pb.ClusterServer
}

// MemberList implements pb.ClusterServer.
func (c *clusterInside) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	resp, err := c.inner.MemberList(ctx, r)
	if err != nil {
		return nil, err
	}
	reveal(resp)
	return resp, nil
}

// grpcText is the text of a status, without its code.
func grpcText(err error) string {
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return s.Message()
	}
	return err.Error()
}
