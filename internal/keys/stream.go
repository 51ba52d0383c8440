package keys

import (
	"context"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"flota/internal/keys/access"
)

// streams is the interceptor of a voter's front for streams.
func (g *guard) streams(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer g.recovered(info.FullMethod, &err)
	s, err := g.open(ss, info.FullMethod)
	if err != nil {
		return err
	}
	defer s.close()
	s.confine = true
	return handler(srv, s)
}

// looked is a stream whose messages are looked at one by one. Made by guard.open; close it when it has ended.
type looked struct {
	grpc.ServerStream
	g       *guard
	ctx     context.Context
	cancel  context.CancelCauseFunc
	grant   access.Grant
	confine bool // rewrite keys; else only look

	conn *client      // whose stream it is; nil: not counted
	held atomic.Int64 // watches of this stream

	mu      sync.Mutex // guards the field below
	creates []string   // for each watch asked for and not answered yet, why it is refused; "": it is not
}

// open begins to look at a stream. Its errors are what the caller is to be told.
func (g *guard) open(ss grpc.ServerStream, method string) (*looked, error) {
	k, ok := allowed[method]
	if !ok || k != stream {
		return nil, refusal(method)
	}
	gr, err := g.grant(ss.Context())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	s := &looked{ServerStream: ss, g: g, ctx: ctx, cancel: cancel, grant: gr}
	s.conn = clientOf(ctx)
	return s, nil
}

// close gives back what the stream held.
func (s *looked) close() {
	s.cancel(nil)
	s.hold(-s.held.Load())
}

func (s *looked) hold(n int64) {
	s.held.Add(n)
	s.g.watches.Add(n)
	if s.conn != nil {
		s.conn.watches.Add(n)
	}
}

// Context implements grpc.ServerStream.
func (s *looked) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream: what comes from the client.
func (s *looked) RecvMsg(msg any) error {
	if err := s.ServerStream.RecvMsg(msg); err != nil {
		return err
	}
	if m, ok := msg.(*pb.WatchRequest); ok {
		s.recvWatch(m)
	} else if err := s.recvOther(msg); err != nil {
		return err
	}
	if !s.confine {
		return nil
	}
	return confine(msg)
}

func (s *looked) recvOther(msg any) error {
	if err := s.g.limits.check(msg); err != nil {
		return err
	}
	if err := s.g.permit(s.ctx, s.grant, msg); err != nil {
		return err
	}
	if m, ok := msg.(*pb.RangeRequest); ok && s.confine {
		return s.g.gate(s.ctx, m)
	}
	return nil
}

// recvWatch turns a watch that is refused into one that the server refuses too, so that the answers keep their order; SendMsg says why.
func (s *looked) recvWatch(m *pb.WatchRequest) {
	c := m.GetCreateRequest()
	if c == nil {
		return
	}
	if len(c.Key) == 0 { // as etcd reads it
		c.Key = []byte{0}
	}
	s.hold(1)
	reason := s.refuse(m)
	if reason != "" {
		c.Key, c.RangeEnd, c.StartRevision = []byte{0}, nil, -1
	}
	s.mu.Lock()
	s.creates = append(s.creates, reason)
	s.mu.Unlock()
}

// refuse says why a watch is refused, or "".
func (s *looked) refuse(m *pb.WatchRequest) string {
	l := s.g.limits
	if err := l.check(m); err != nil {
		return grpcText(err)
	}
	if !covers(s.grant, m) && !s.grant.All {
		return grpcText(errNotGranted)
	}
	if s.conn != nil && s.conn.watches.Load() > int64(l.Watches) {
		return "etcdserver: too many watches on this connection"
	}
	if s.g.watches.Load() > int64(l.AllWatches) {
		return "etcdserver: too many watches through this machine"
	}
	return ""
}

// SendMsg implements grpc.ServerStream: what goes to the client.
func (s *looked) SendMsg(msg any) error {
	if s.confine {
		msg = reveal(msg)
	}
	if m, ok := msg.(*pb.WatchResponse); ok {
		s.sendWatch(m)
		if len(m.Events) > 0 && !s.stillGranted() {
			s.cancel(errNotGranted)
			return errNotGranted
		}
	}
	return s.ServerStream.SendMsg(msg)
}

// sendWatch keeps count of the watches, and gives refusals their reason.
func (s *looked) sendWatch(m *pb.WatchResponse) {
	if m.Created {
		s.mu.Lock()
		if len(s.creates) > 0 {
			if reason := s.creates[0]; reason != "" {
				m.CancelReason = reason
			}
			s.creates = s.creates[1:]
		}
		s.mu.Unlock()
	}
	if m.Canceled {
		s.hold(-1)
	}
}

// stillGranted says whether the token that opened the stream still counts: a watch may live for months.
func (s *looked) stillGranted() bool {
	if s.grant.All {
		return true
	}
	_, err := s.g.grant(s.ServerStream.Context())
	return err == nil
}

// outgoing passes on what a client said of its call to the server that carries it out.
func outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx) // nil: it said nothing
	out := metadata.MD{}
	for _, k := range []string{"hasleader", "client-api-version"} {
		if v := in.Get(k); len(v) > 0 {
			out.Set(k, v...)
		}
	}
	return metadata.NewOutgoingContext(ctx, out)
}
