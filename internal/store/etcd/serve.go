package etcd

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
)

// Both sides of a connection ask whether the other is there after 2 s of silence, and give it 2 s to answer. gRPC's client
// does not ask more often than every 10 s, so it is the transport's task to notice a dead machine sooner.
const (
	pingAfter = 2 * time.Second
	pingWait  = 2 * time.Second
)

// server is the member's gRPC service on a unix socket. It is not one of etcd's own listeners, because those wait for 7 s
// for watches to end when they are closed.
type server struct {
	grpc *grpc.Server
	done sync.WaitGroup
}

// serve starts it on the socket at path; a socket left there by a process that died is replaced. Stopped by stop.
func serve(n *Node, path string) (*server, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fault.Wrap(fault.Internal, err, "listen for clients of the store")
	}
	ln, err := listenPrivate(path)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "listen for clients of the store")
	}
	sv := &server{grpc: v3rpc.Server(n.etcd.Server, nil, n.calmUnary,
		grpc.ChainStreamInterceptor(n.calmStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
	)}
	sv.done.Go(func() { _ = sv.grpc.Serve(ln) }) // its error only ever says that stop was called
	return sv, nil
}

// Calm gives the interceptors that every gRPC server on Server needs: a call that meets the end of the member is answered with Unavailable, where the
// embedded server's own handlers would end the process.
func (n *Node) Calm() (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	return n.calmUnary, n.calmStream
}

// calmUnary answers a client whose call met the end of the member, instead of ending the process.
func (n *Node) calmUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Error(codes.Unavailable, n.panicked(p).Error())
		}
	}()
	return next(ctx, req)
}

// calmStream is calmUnary for streams.
func (n *Node) calmStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Error(codes.Unavailable, n.panicked(p).Error())
		}
	}()
	return next(srv, ss)
}

// listenPrivate makes a unix socket that only its owner may use from its first moment on.
func listenPrivate(path string) (net.Listener, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, syscall.S_IRUSR|syscall.S_IWUSR); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// stop ends all connections and removes the socket.
func (s *server) stop() {
	s.grpc.Stop()
	s.done.Wait()
}
