package etcd

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"flota/internal/fault"
	"flota/internal/store"
)

// DialOptions say where a client finds the voters. Endpoints and Log are needed.
type DialOptions struct {
	// Endpoints name the voters: whatever Dialer understands, or paths of unix sockets without a Dialer.
	Endpoints []string
	// Dialer connects to one of the Endpoints; nil: to the unix socket of that path. A connection over a network must
	// notice by itself within a few seconds that the other machine is dead (TCP keepalive and user timeout).
	Dialer func(ctx context.Context, endpoint string) (net.Conn, error)
	Log    *slog.Logger
}

// reconnectMax bounds the pause between attempts to connect to a voter. 1 s, so that a voter that returns is used soon.
const reconnectMax = time.Second

// scheme marks our endpoints, so that neither etcd nor gRPC reads a meaning into them.
const scheme = "flota://"

// Dial makes a client that spreads its calls over the voters and goes on with the others when one dies. It
// returns at once: whether a voter answers shows with the first call. fault.Invalid when there is no endpoint.
func Dial(ctx context.Context, o DialOptions) (store.KV, error) {
	if len(o.Endpoints) == 0 || o.Log == nil {
		return nil, fault.New(fault.Invalid, "connect to the store: the voters' addresses and a log are needed")
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connect to the store")
	}
	dial := o.Dialer
	if dial == nil {
		dial = func(ctx context.Context, path string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	var endpoints []string
	for _, e := range o.Endpoints {
		endpoints = append(endpoints, scheme+e)
	}
	params := grpc.ConnectParams{MinConnectTimeout: reconnectMax}
	params.Backoff.BaseDelay = reconnectMax / 20
	params.Backoff.Multiplier = 1.6
	params.Backoff.Jitter = 0.2
	params.Backoff.MaxDelay = reconnectMax
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialKeepAliveTime:    pingAfter,
		DialKeepAliveTimeout: pingWait,
		MaxCallSendMsgSize:   requestBytes,
		Logger:               zapOver(o.Log),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return dial(ctx, strings.TrimPrefix(addr, scheme))
			}),
			grpc.WithConnectParams(params),
			grpc.WithAuthority("flota"),
		},
	})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "connect to the store")
	}
	status := func(ctx context.Context) (*pb.StatusResponse, error) {
		return pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	}
	grant := func(ctx context.Context, id, seconds int64) error {
		_, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: seconds})
		return clientv3.ContextError(ctx, err)
	}
	return newKV(c, status, grant, nil), nil
}
