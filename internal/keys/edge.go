package keys

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"flota/internal/fault"
)

// Patience with voters.
const (
	reachWait  = 5 * time.Second // until a call is told that no voter can be reached
	askEvery   = 2 * time.Second // whether the voter in use still has a quorum
	askWait    = 3 * time.Second // for its answer
	readTries  = 3               // of a call that changes nothing
	backoffMax = time.Second     // between attempts to connect
)

// edge carries calls out at a voter's front, on a machine without a member. The client's connection stays here; when the voter dies, calls that only
// read are asked again elsewhere, and the others and all streams end as Unavailable, since nobody knows how far they got. Clients of etcd
// take a watch up again by themselves then, after the last revision they saw.
type edge struct {
	g       *guard
	cc      *grpc.ClientConn
	methods map[string]method
	forward func(context.Context) (net.Conn, error)

	mu   sync.Mutex // guards the field below
	conn net.Conn   // the last one made to a voter

	lost atomic.Bool // the voter that was asked last had no quorum
}

// method is what is needed to pass a call on.
type method struct {
	in, out   protoreflect.MessageType
	streaming bool
}

// newEdge makes an edge; forward connects to a voter's front, to another one each time if it can.
func newEdge(g *guard, forward func(context.Context) (net.Conn, error)) (*edge, error) {
	e := &edge{g: g, methods: map[string]method{}, forward: forward}
	for name := range allowed {
		m, err := describe(name)
		if err != nil {
			return nil, err
		}
		e.methods[name] = m
	}
	params := grpc.ConnectParams{MinConnectTimeout: reachWait}
	params.Backoff.BaseDelay, params.Backoff.Multiplier, params.Backoff.Jitter, params.Backoff.MaxDelay = backoffMax/20, 1.6, 0.2, backoffMax
	var err error
	e.cc, err = grpc.NewClient("passthrough:///voter",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the connection is another room's, with its TLS
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := forward(ctx)
			if err != nil {
				return nil, err
			}
			e.mu.Lock()
			e.conn = c
			e.mu.Unlock()
			return c, nil
		}),
		grpc.WithConnectParams(params),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: askWait, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newPassing()), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "connect to a voter's keys")
	}
	return e, nil
}

// describe finds the messages of a method among the protocols that are linked in.
func describe(name string) (method, error) {
	full := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(full)
	md, ok := d.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		return method{}, fault.New(fault.Internal, "method %s is not known", name)
	}
	in, err1 := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
	out, err2 := protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
	if err := errors.Join(err1, err2); err != nil {
		return method{}, fault.Wrap(fault.Internal, err, "method %s", name)
	}
	return method{in: in, out: out, streaming: md.IsStreamingClient() || md.IsStreamingServer()}, nil
}

// handle is called for every method.
func (e *edge) handle(_ any, ss grpc.ServerStream) (err error) {
	name, _ := grpc.MethodFromServerStream(ss) // "" is not allowed either
	defer e.g.recovered(name, &err)
	m, ok := e.methods[name]
	if !ok {
		return refusal(name)
	}
	switch {
	case m.streaming:
		return e.pump(ss, name, m)
	case isKV(name):
		return e.pass(ss, name, m)
	}
	req := m.in.New().Interface()
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	gr, err := e.g.vet(ss.Context(), name, req)
	if err != nil {
		return err
	}
	if a, ok := req.(*pb.AuthenticateRequest); ok {
		resp, err := e.g.authenticate(ss.Context(), a)
		if err != nil {
			return err
		}
		return ss.SendMsg(resp)
	}
	resp := m.out.New().Interface()
	head, err := e.invoke(ss.Context(), name, req, resp)
	if err != nil {
		return err
	}
	noteLease(ss.Context(), req, resp)
	return e.answer(ss, head, trim(gr, resp))
}

// isKV says whether a method is one of those that make up nearly all calls: to read and to write keys.
func isKV(name string) bool { return strings.HasPrefix(name, "/etcdserverpb.KV/") }

// pass passes a call on as it came. It is looked into only if something could be wrong with it: if the caller may not do everything, or if it is so long
// that there could be a key or a value in it that is longer than allowed.
func (e *edge) pass(ss grpc.ServerStream, name string, m method) error {
	ctx, req, resp := ss.Context(), &raw{}, &raw{}
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	gr, err := e.g.grant(ctx)
	if err != nil {
		return err
	}
	if !gr.All || len(req.b) > min(e.g.limits.KeyBytes, e.g.limits.ValueBytes) {
		msg := m.in.New().Interface()
		if err := proto.Unmarshal(req.b, msg); err != nil {
			return status.Errorf(codes.Internal, "the request cannot be read: %v", err)
		}
		if err := e.g.limits.check(msg); err != nil {
			return err
		}
		if err := e.g.permit(ctx, gr, msg); err != nil {
			return err
		}
	}
	head, err := e.invoke(ctx, name, req, resp)
	if err != nil {
		return err
	}
	return e.answer(ss, head, resp)
}

// answer sends what a voter answered.
func (e *edge) answer(ss grpc.ServerStream, head metadata.MD, resp any) error {
	if len(head.Get(StaleHeader)) > 0 {
		_ = ss.SetHeader(metadata.Pairs(StaleHeader, "true")) // nothing was sent yet
	}
	return ss.SendMsg(resp)
}

// invoke carries one call out.
func (e *edge) invoke(ctx context.Context, name string, req, resp any) (head metadata.MD, err error) {
	tries := 1
	if k := allowed[name]; k == read || k == open {
		tries = readTries
	}
	for ; tries > 0 && ctx.Err() == nil; tries-- {
		if err = e.reach(ctx); err != nil {
			return nil, err
		}
		err = e.cc.Invoke(outgoing(ctx), name, req, resp, grpc.Header(&head))
		if status.Code(err) != codes.Unavailable {
			return head, err
		}
	}
	return nil, e.away(err)
}

// away puts into words what became of a call whose connection to a voter broke. What voters say themselves stays as it is.
func (e *edge) away(err error) error {
	switch {
	case status.Code(err) != codes.Unavailable || strings.HasPrefix(grpcText(err), "etcdserver:"):
		return err
	case e.lost.Load():
		return status.Error(codes.Unavailable, "etcdserver: no leader; whether it was done is not known")
	}
	return status.Error(codes.Unavailable, "etcdserver: the machine that holds the keys went away; whether it was done is not known")
}

// reach waits a little until there is a connection to a voter.
func (e *edge) reach(ctx context.Context) error {
	if e.cc.GetState() == connectivity.Ready {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	for {
		e.cc.Connect()
		s := e.cc.GetState()
		if s == connectivity.Ready {
			return nil
		}
		if s == connectivity.Shutdown || !e.cc.WaitForStateChange(wait, s) {
			return status.Error(codes.Unavailable, "etcdserver: no machine that holds the keys can be reached")
		}
	}
}

// pump passes a stream's messages on in both directions.
func (e *edge) pump(ss grpc.ServerStream, name string, m method) error {
	s, err := e.g.open(ss, name)
	if err != nil {
		return err
	}
	defer s.close()
	if err := e.reach(s.ctx); err != nil {
		return err
	}
	up, err := e.cc.NewStream(outgoing(s.ctx), &grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return err
	}
	go func() { // ends with the stream, at the latest when handle returns
		for {
			msg := m.in.New().Interface()
			err := s.RecvMsg(msg)
			if errors.Is(err, io.EOF) {
				_ = up.CloseSend() // the other direction tells how it ended
				return
			}
			if err != nil {
				s.cancel(err)
				return
			}
			if up.SendMsg(msg) != nil { // the other direction tells why
				return
			}
		}
	}()
	for {
		msg := m.out.New().Interface()
		if err := up.RecvMsg(msg); err != nil {
			return ended(s.ctx, err)
		}
		if err := s.SendMsg(msg); err != nil {
			return err
		}
	}
}

// ended gives why a stream ended: what was refused here first.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		if _, ok := status.FromError(cause); ok {
			return cause
		}
	}
	return err
}

// leaseKeys asks a voter which keys end with a lease.
func (e *edge) leaseKeys(ctx context.Context, id int64) ([][]byte, error) {
	resp := &pb.LeaseTimeToLiveResponse{}
	_, err := e.invoke(ctx, "/etcdserverpb.Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}, resp)
	return resp.Keys, err
}

// leaseIDs asks a voter which leases of applications there are.
func (e *edge) leaseIDs(ctx context.Context) ([]int64, error) {
	resp := &pb.LeaseLeasesResponse{}
	_, err := e.invoke(ctx, "/etcdserverpb.Lease/LeaseLeases", &pb.LeaseLeasesRequest{}, resp)
	return idsOf(resp), err
}
