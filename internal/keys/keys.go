// Package keys serves the applications' keys on every machine: etcd v3 by gRPC and JSON, and with room v2 the API of etcd 2, on one port. On a
// machine with a member of the store the embedded server itself answers; elsewhere the calls are carried out at such a machine's front.
//
// The invariant: nothing that comes in here reaches a key outside of user/, a lease of the cluster's own, or a method that is not on the list of
// allowed ones; and no application can use up what the cluster needs to go on. Methods that are not known are refused.
//
// Keys are put into their space where the member is (space.go); what a caller may do, and how large a request may be, is checked where the caller's
// connection ends (guard.go). Machines trust each other's fronts.
//
// Start reading at Options and Front, then allow.go, guard.go and space.go.
package keys

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"flota/internal/fault"
	"flota/internal/keys/access"
	"flota/internal/store/etcd"
)

// Options say how a front works. Log, and either Node or Forward, are needed.
type Options struct {
	// Listen is where applications come; it is closed when Run returns. nil: nobody comes here, only other machines' fronts (Conn).
	Listen net.Listener
	// Node is this machine's member of the store; nil if it has none.
	Node *etcd.Node
	// Forward connects to the front of a machine with a member, to another one each time if it can; for machines without one.
	Forward func(ctx context.Context) (net.Conn, error)
	Auth    access.Auth // says what callers may do; nil: everybody may do everything
	Limits  Limits
	// V2 makes what answers /v2/; c sees the applications' keys only. nil: there is none.
	V2  func(c *clientv3.Client) Handler
	Log *slog.Logger
}

// Handler answers requests while Run runs.
type Handler interface {
	http.Handler
	Run(ctx context.Context) error
}

// Front serves the applications' keys. Make one with New, and have Run running.
type Front struct {
	Options
	guard  *guard
	edge   *edge // nil with a Node
	grpc   *grpc.Server
	apps   *clientv3.Client // the applications' keys, without asking for a token
	v2     Handler          // nil: there is none
	http   http.Handler
	gate   *grpc.ClientConn // of the gateway
	inside pipe
	json   pipe
}

// New makes a front; it serves nothing yet. fault.Invalid for options that cannot work.
func New(o Options) (*Front, error) {
	if o.Log == nil || (o.Node == nil) == (o.Forward == nil) {
		return nil, fault.New(fault.Invalid, "serve keys: a log, and either a member or a way to one, are needed")
	}
	var err error
	if o.Limits, err = o.Limits.fill(); err != nil {
		return nil, err
	}
	if o.Node != nil {
		o.Limits.QuotaBytes = min(o.Limits.QuotaBytes, o.Node.QuotaBytes()/2)
	}
	o.Limits.Conns = min(o.Limits.Conns, filesMax()/2)
	f := &Front{Options: o, inside: newPipe(insideAddr), json: newPipe(gatewayAddr)}
	f.guard = &guard{limits: o.Limits, auth: o.Auth, node: o.Node, log: o.Log}
	if o.Node != nil {
		f.voter()
	} else if err := f.other(); err != nil {
		return nil, err
	}
	gw, gate, err := gateway(f.json)
	if err != nil {
		return nil, errors.Join(err, f.apps.Close())
	}
	f.gate = gate
	if o.V2 != nil {
		f.v2 = o.V2(f.apps)
	}
	f.http = f.handler(gw)
	return f, nil
}

// other makes the front of a machine without a member.
func (f *Front) other() (err error) {
	if f.edge, err = newEdge(f.guard, f.Forward); err != nil {
		return err
	}
	f.guard.leaseKeys, f.guard.leaseIDs = f.edge.leaseKeys, f.edge.leaseIDs
	f.grpc = grpc.NewServer(append(serverOptions(), grpc.UnknownServiceHandler(f.edge.handle), grpc.ForceServerCodecV2(newPassing()),
		grpc.MaxRecvMsgSize(recvBytes), grpc.MaxSendMsgSize(math.MaxInt32))...)
	f.apps, err = clientv3.New(clientv3.Config{
		Endpoints:          []string{"passthrough:///inside"},
		MaxCallSendMsgSize: recvBytes,
		Logger:             zap.NewNop(), // who asks is told
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return f.inside.DialContext(ctx) }),
			grpc.WithAuthority("flota"),
		},
	})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "connect to the keys from within")
	}
	f.apps.KV = clientv3.NewKVFromKVClient(edgeKV{pb.NewKVClient(f.apps.ActiveConnection()), f.edge}, f.apps)
	return nil
}

// recvBytes is the largest message that a client may send: 2.5 MiB, what the embedded server takes.
const recvBytes = 5 << 19

// filesMax is how many files this process may have open.
func filesMax() int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(r.Cur)
}

// Run serves until ctx ends, and closes everything. It returns nil then; a Front runs once.
func (f *Front) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { _ = f.grpc.Serve(f.inside) }) // their errors only ever say that they were stopped
	all.Go(func() { _ = f.grpc.Serve(f.json) })
	if f.edge != nil {
		all.Go(func() { f.edge.watch(ctx) })
	} else {
		all.Go(func() { f.guard.usage.run(ctx) })
	}
	if f.v2 != nil {
		all.Go(func() {
			if err := f.v2.Run(ctx); err != nil && ctx.Err() == nil {
				f.Log.Error("the v2 API of the keys ended", "err", err)
			}
		})
	}
	var err error
	if f.Listen != nil {
		err = f.listen(ctx, &all)
	} else {
		<-ctx.Done()
	}
	cancel()
	_ = f.gate.Close()
	_ = f.apps.Close() // says that its context has ended
	f.grpc.Stop()
	all.Wait()
	return err
}

// listen serves applications until ctx ends.
func (f *Front) listen(ctx context.Context, all *sync.WaitGroup) error {
	s := newSplit(f.Listen, f.Limits.Conns)
	srv := &http.Server{
		Handler: f.http, ReadHeaderTimeout: headerWait, IdleTimeout: idleWait, MaxHeaderBytes: headerBytes,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(f.Log.Handler(), slog.LevelDebug),
	}
	all.Go(func() { _ = f.grpc.Serve(s.grpc) })
	all.Go(func() { _ = srv.Serve(s.http) })
	defer srv.Close()
	if f.Auth == nil && f.Node != nil {
		f.Log.Debug("the keys are open to every program on this machine", "addr", f.Listen.Addr().String())
	}
	err := s.run(ctx)
	if err != nil && ctx.Err() == nil {
		return fault.Wrap(fault.Internal, err, "serve keys on %s", f.Listen.Addr())
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	_ = srv.Shutdown(end) // what does not end in time is closed
	return nil
}

// endWait is how long requests under way get when the front ends.
const endWait = time.Second

// Conn gives a connection to this front for another machine's, or for a room of this machine: it is asked for no token. fault.Unavailable after
// the front has ended.
func (f *Front) Conn(ctx context.Context) (net.Conn, error) {
	c, err := f.inside.DialContext(ctx)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connect to the keys of this machine")
	}
	return c, nil
}

// Warnings are what a person should know of the applications' keys; none on machines without a member.
func (f *Front) Warnings() []string {
	if f.guard.usage != nil {
		if w := f.guard.usage.warning(); w != "" {
			return []string{w}
		}
	}
	return nil
}

// Run makes a Front and serves until ctx ends.
func Run(ctx context.Context, o Options) error {
	f, err := New(o)
	if err != nil {
		return err
	}
	return f.Run(ctx)
}
