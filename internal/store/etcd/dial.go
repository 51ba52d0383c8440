package etcd

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"flota/internal/fault"
)

// DialOptions say where a client finds the voters. Log is needed.
type DialOptions struct {
	// Endpoints name the voters: whatever Dialer understands, or paths of unix sockets without a Dialer. Empty: none is known yet, see Client.SetEndpoints.
	Endpoints []string
	// Dialer connects to one of the Endpoints; nil: to the unix socket of that path. A connection over a network must
	// notice by itself within a few seconds that the other machine is dead: see NetDialer.
	Dialer func(ctx context.Context, endpoint string) (net.Conn, error)
	Log    *slog.Logger
}

// reconnectMax bounds the pause between attempts to connect to a voter. 1 s, so that a voter that returns is used soon.
const reconnectMax = time.Second

// connectMin is how long one attempt may take before another begins. More than the dialer's own patience and a TLS handshake need in peace.
const connectMin = 2 * time.Second

// scheme marks our endpoints, so that neither etcd nor gRPC reads a meaning into them. nobody stands for an empty list, which clientv3 does not take.
const (
	scheme = "flota://"
	nobody = scheme
)

// Client is store.KV on voters elsewhere. It spreads its calls over the voters and goes on with the others when one dies.
type Client struct {
	*kv
	none atomic.Bool // there are no endpoints
}

// Dial makes a client. It returns at once: whether a voter answers shows with the first call.
func Dial(ctx context.Context, o DialOptions) (*Client, error) {
	if o.Log == nil {
		return nil, fault.New(fault.Invalid, "connect to the store: a log is needed")
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
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            marked(o.Endpoints),
		DialKeepAliveTime:    pingAfter,
		DialKeepAliveTimeout: pingWait,
		MaxCallSendMsgSize:   requestBytes,
		Logger:               zapOver(o.Log, zapcore.WriteThenPanic),
		DialOptions: append(connecting(), grpc.WithAuthority("flota"),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == nobody {
					return nil, errNobody
				}
				return dial(ctx, strings.TrimPrefix(addr, scheme))
			})),
	})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "connect to the store")
	}
	out := &Client{kv: outside(c)}
	out.none.Store(len(o.Endpoints) == 0)
	out.lost = func() error {
		if out.none.Load() {
			return errNobody
		}
		return nil
	}
	return out, nil
}

var errNobody = fault.New(fault.Unavailable, "no voter of the store is known yet")

func marked(endpoints []string) []string {
	out := []string{}
	for _, e := range endpoints {
		out = append(out, scheme+e)
	}
	if len(out) == 0 {
		out = append(out, nobody)
	}
	return out
}

// connecting is how fast connections are tried again.
func connecting() []grpc.DialOption {
	params := grpc.ConnectParams{MinConnectTimeout: connectMin}
	params.Backoff.BaseDelay = reconnectMax / 20
	params.Backoff.Multiplier = 1.6
	params.Backoff.Jitter = 0.2
	params.Backoff.MaxDelay = reconnectMax
	return []grpc.DialOption{grpc.WithConnectParams(params)}
}

// outside is the store through a client's connections.
func outside(c *clientv3.Client) *kv {
	status := func(ctx context.Context) (*pb.StatusResponse, error) {
		return pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	}
	grant := func(ctx context.Context, id, seconds int64) error {
		_, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: seconds})
		return clientv3.ContextError(ctx, err)
	}
	return newKV(c, status, grant, nil)
}

// SetEndpoints changes where the voters are found, while calls and watches run; what a voter that stays is doing is not disturbed. With an empty list
// calls fail as fault.Unavailable. Safe for concurrent use.
func (c *Client) SetEndpoints(endpoints []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.none.Store(len(endpoints) == 0)
	c.c.SetEndpoints(marked(endpoints)...)
}
