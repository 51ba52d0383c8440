package keys

import (
	"context"
	"encoding/base64"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
	"flota/internal/keys/access"
)

// everything is what a caller may do who needs no token.
var everything = access.Grant{All: true}

// grant says what the caller of a method may do.
func (g *guard) grant(ctx context.Context) (access.Grant, error) {
	if g.auth == nil || trusted(ctx) {
		return everything, nil
	}
	md, _ := metadata.FromIncomingContext(ctx) // empty: no credentials
	for _, field := range []string{rpctypes.TokenFieldNameSwagger, rpctypes.TokenFieldNameGRPC} {
		if v := md.Get(field); len(v) > 0 && v[0] != "" {
			return g.check(ctx, Credentials(v[0]))
		}
	}
	return g.check(ctx, "")
}

// trusted says whether the call comes from another room of this machine, or from another machine's front, where access was checked.
func trusted(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	return ok && p.Addr == insideAddr
}

// check asks Auth, and gives its errors gRPC's codes.
func (g *guard) check(ctx context.Context, credentials string) (access.Grant, error) {
	gr, err := g.auth.Check(ctx, credentials)
	switch {
	case err == nil:
		return gr, nil
	case fault.Is(err, fault.Unavailable):
		return gr, status.Error(codes.Unavailable, err.Error())
	case credentials == "":
		return gr, status.Error(codes.Unauthenticated, err.Error())
	}
	return gr, status.Error(codes.PermissionDenied, err.Error())
}

// Credentials reads the value of an Authorization header, or of etcd's token: "Bearer TOKEN", "Basic BASE64", or the token alone.
func Credentials(header string) string {
	scheme, rest, two := strings.Cut(header, " ")
	switch {
	case two && strings.EqualFold(scheme, "Bearer"):
		return strings.TrimSpace(rest)
	case two && strings.EqualFold(scheme, "Basic"):
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
		if err != nil {
			return ""
		}
		return string(b)
	}
	return header
}

// authenticate answers etcd's way of logging in, which etcdctl --user uses. What it gives as a token is the name and password again: nothing
// has to be remembered here, and revoking them counts at once.
func (g *guard) authenticate(ctx context.Context, m *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	if g.auth == nil {
		return nil, rpctypes.ErrGRPCAuthNotEnabled
	}
	pair := m.Name + ":" + m.Password
	if _, err := g.check(ctx, pair); err != nil {
		return nil, err
	}
	return &pb.AuthenticateResponse{Header: &pb.ResponseHeader{}, Token: pair}, nil
}

// errNotGranted is what a caller gets whose token does not open what it asked for. Source: etcd's words, for clients that look for them.
var errNotGranted = rpctypes.ErrGRPCPermissionDenied

// permit says whether the grant covers a request, whose keys are the application's.
func (g *guard) permit(ctx context.Context, gr access.Grant, msg any) error {
	if gr.All {
		return nil
	}
	if m, ok := msg.(*pb.LeaseRevokeRequest); ok {
		return g.permitRevoke(ctx, gr, m.ID)
	}
	if covers(gr, msg) {
		return nil
	}
	return errNotGranted
}

// permitRevoke lets a lease be revoked by who may delete all keys that end with it.
func (g *guard) permitRevoke(ctx context.Context, gr access.Grant, id int64) error {
	keys, err := g.leaseKeys(ctx, id)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if !gr.Allows(k, nil, true) {
			return errNotGranted
		}
	}
	return nil
}

// covers says whether the grant covers a request. Leases belong to nobody; their IDs are as good as secrets.
func covers(gr access.Grant, msg any) bool {
	switch m := msg.(type) {
	case *pb.RangeRequest:
		return gr.Allows(m.Key, m.RangeEnd, false)
	case *pb.PutRequest:
		return gr.Allows(m.Key, nil, true) && (!m.PrevKv || gr.Allows(m.Key, nil, false))
	case *pb.DeleteRangeRequest:
		return gr.Allows(m.Key, m.RangeEnd, true) && (!m.PrevKv || gr.Allows(m.Key, m.RangeEnd, false))
	case *pb.TxnRequest:
		return coversTxn(gr, m)
	case *pb.WatchRequest:
		c := m.GetCreateRequest()
		return c == nil || gr.Allows(c.Key, c.RangeEnd, false)
	case *pb.LeaseLeasesRequest:
		return gr.Allows([]byte{0}, []byte{0}, false)
	case *v3lockpb.LockRequest:
		return below(gr, m.Name, true)
	case *v3lockpb.UnlockRequest:
		return gr.Allows(m.Key, nil, true)
	case *v3electionpb.CampaignRequest:
		return below(gr, m.Name, true)
	case *v3electionpb.ProclaimRequest:
		return gr.Allows(m.GetLeader().GetKey(), nil, true)
	case *v3electionpb.ResignRequest:
		return gr.Allows(m.GetLeader().GetKey(), nil, true)
	case *v3electionpb.LeaderRequest:
		return below(gr, m.Name, false)
	}
	return true
}

// below says whether the grant covers the keys that a lock or an election of that name makes: name/…
func below(gr access.Grant, name []byte, write bool) bool {
	prefix := string(name) + "/"
	return gr.Allows([]byte(prefix), []byte(clientv3.GetPrefixRangeEnd(prefix)), write)
}

func coversTxn(gr access.Grant, m *pb.TxnRequest) bool {
	for _, c := range m.Compare {
		if !gr.Allows(c.Key, c.RangeEnd, false) {
			return false
		}
	}
	for _, ops := range [][]*pb.RequestOp{m.Success, m.Failure} {
		for _, op := range ops {
			ok := true
			switch o := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				ok = covers(gr, o.RequestRange)
			case *pb.RequestOp_RequestPut:
				ok = covers(gr, o.RequestPut)
			case *pb.RequestOp_RequestDeleteRange:
				ok = covers(gr, o.RequestDeleteRange)
			case *pb.RequestOp_RequestTxn:
				ok = coversTxn(gr, o.RequestTxn)
			}
			if !ok {
				return false
			}
		}
	}
	return true
}
