package keys

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"flota/internal/keys/access"
	"flota/internal/store/etcd"
)

// StaleHeader marks an answer that was read from this machine's copy while no quorum could say whether it is the newest.
const StaleHeader = "flota-stale"

var (
	errLeaseID = status.Error(codes.InvalidArgument, "etcdserver: lease IDs below 0, and those with bit 62 set, are the cluster's own; 0 lets the server choose")
	errLeases  = status.Error(codes.ResourceExhausted, "etcdserver: there are too many leases already; let some end before granting more")
)

// guard stands between applications and a server. On a voter that is the embedded one (node is set), elsewhere a voter's front.
type guard struct {
	limits Limits
	auth   access.Auth // nil: everybody may do everything
	node   *etcd.Node
	usage  *usage // nil without a node
	// leaseKeys gives the keys, in the application's view, that end with a lease.
	leaseKeys func(ctx context.Context, id int64) ([][]byte, error)
	leaseIDs  func(ctx context.Context) ([]int64, error) // of all of applications
	watches   atomic.Int64                               // through this machine
	log       *slog.Logger
}

// vet is what every request of an application must pass, wherever it is carried out: may the caller do it, and is it small enough.
func (g *guard) vet(ctx context.Context, method string, msg any) (access.Grant, error) {
	k, ok := allowed[method]
	if !ok {
		return access.Grant{}, refusal(method)
	}
	if err := g.limits.check(msg); err != nil {
		return access.Grant{}, err
	}
	if k == open {
		return everything, nil
	}
	gr, err := g.grant(ctx)
	if err != nil {
		return gr, err
	}
	if err := g.permit(ctx, gr, msg); err != nil {
		return gr, err
	}
	if _, ok := msg.(*pb.LeaseGrantRequest); ok {
		return gr, g.mayGrant(ctx)
	}
	return gr, nil
}

// refusal is the answer to a method that is not allowed.
func refusal(method string) error {
	if s := why[method]; s != "" {
		return status.Errorf(codes.PermissionDenied, "%s is not for applications: %s", method, s)
	}
	return status.Errorf(codes.PermissionDenied, "%s is not for applications", method)
}

// unary is the interceptor of a voter's front.
func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer g.recovered(info.FullMethod, &err)
	gr, err := g.vet(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	if m, ok := req.(*pb.AuthenticateRequest); ok {
		return g.authenticate(ctx, m)
	}
	resp, err = g.carry(ctx, req, handler)
	if err == nil {
		noteLease(ctx, req, resp)
	}
	return trim(gr, resp), err
}

// recovered turns a panic into an error: gRPC lets it end the process, and with it the voter.
func (g *guard) recovered(method string, err *error) {
	if p := recover(); p != nil {
		g.log.Error("a request made the keys panic", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "panic: %v", p)
	}
}

// trim leaves out of an answer which keys of a lease the caller may not know of.
func trim(gr access.Grant, resp any) any {
	if m, ok := resp.(*pb.LeaseTimeToLiveResponse); ok && m != nil && !gr.All {
		m.Keys = slices.DeleteFunc(m.Keys, func(k []byte) bool { return !gr.Allows(k, nil, false) })
	}
	return resp
}

// carry has a vetted request carried out by the embedded server, confined. Locks and elections come by twice: as themselves, and as the
// requests that their server makes of them, which are confined then.
func (g *guard) carry(ctx context.Context, req any, handler grpc.UnaryHandler) (any, error) {
	if err := g.gate(ctx, req); err != nil {
		return nil, err
	}
	if err := g.usage.admit(req); err != nil {
		return nil, err
	}
	if err := g.prepare(ctx, req); err != nil {
		return nil, err
	}
	if err := confine(req); err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, g.stopped(err)
	}
	return reveal(resp), nil
}

// stopped gives the errors of a server that is being stopped the code that has clients go elsewhere: some have none.
func (g *guard) stopped(err error) error {
	if status.Code(err) != codes.Unknown {
		return err
	}
	select {
	case <-g.node.Server().StoppingNotify():
		return rpctypes.ErrGRPCStopped
	default:
		return err
	}
}

// gate waits for a leader before what cannot be answered without one, so that the answer is a clear one. What can is marked.
func (g *guard) gate(ctx context.Context, req any) error {
	switch m := req.(type) {
	case *pb.RangeRequest:
		if m.Serializable {
			g.mark(ctx)
			return nil
		}
	case *pb.TxnRequest:
		if txn.IsTxnSerializable(m) {
			g.mark(ctx)
			return nil
		}
	case *pb.StatusRequest, *pb.MemberListRequest, *pb.AuthStatusRequest:
		return nil
	}
	if g.node.AwaitLeader(ctx) != nil {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

// mark marks the answer to a call that is answered from this voter's copy, if there is no quorum to say whether that is the newest.
func (g *guard) mark(ctx context.Context) {
	if g.stale() {
		_ = grpc.SetHeader(ctx, metadata.Pairs(StaleHeader, "true")) // fails for callers inside, who have no headers
	}
}

// stale says whether this voter knows of no leader.
func (g *guard) stale() bool { return g.node != nil && g.node.Server().Leader() == 0 }

// prepare gives locks and elections a lease of an application's: their server would have one made whose ID may look like the cluster's.
func (g *guard) prepare(ctx context.Context, req any) (err error) {
	switch m := req.(type) {
	case *v3lockpb.LockRequest:
		m.Lease, err = g.leaseFor(ctx, m.Lease)
	case *v3electionpb.CampaignRequest:
		m.Lease, err = g.leaseFor(ctx, m.Lease)
	case *v3electionpb.ProclaimRequest:
		err = noLeaseless(m.Leader)
	case *v3electionpb.ResignRequest:
		err = noLeaseless(m.Leader)
	}
	return err
}

// noLeaseless refuses a leader without a lease of an application's, for which the election's server would grant one.
func noLeaseless(l *v3electionpb.LeaderKey) error {
	if l != nil && (l.Lease == 0 || foreign(l.Lease)) {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	return nil
}

func (g *guard) leaseFor(ctx context.Context, id int64) (int64, error) {
	if foreign(id) {
		return 0, rpctypes.ErrGRPCLeaseNotFound
	}
	if id != 0 {
		return id, nil
	}
	id = newLeaseID()
	_, err := g.grantLease(ctx, &pb.LeaseGrantRequest{ID: id, TTL: leaseTTL})
	return id, err
}

// grantLease grants an application's lease.
func (g *guard) grantLease(ctx context.Context, m *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if err := g.usage.admit(m); err != nil {
		return nil, err
	}
	return g.usage.leases.LeaseGrant(ctx, m)
}

// newLeaseID gives an ID for an application's lease that nobody has used: 62 random bits, not 0.
func newLeaseID() int64 { return 1 + rand.Int64N(etcd.LeaseBit-1) }
