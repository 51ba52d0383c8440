package keys

import (
	"context"
	"net"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// watch leaves the voter in use when it does not serve and another one does better, until ctx ends. Where none serves the connection stays: copies are
// read through it.
func (e *edge) watch(ctx context.Context) {
	defer e.cc.Close()
	for ctx.Err() == nil {
		err := e.reach(ctx)
		if err == nil {
			err = serves(ctx, e.cc)
		}
		e.lost.Store(err != nil)
		if err != nil && e.better(ctx, answered(err)) {
			e.mu.Lock()
			c := e.conn
			e.mu.Unlock()
			if c != nil {
				c.Close()
			}
		}
		pause(ctx, askEvery)
	}
}

// serves asks a voter for something that needs a quorum.
func serves(ctx context.Context, cc *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	return cc.Invoke(ctx, "/etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte{0}, CountOnly: true}, &pb.RangeResponse{}, grpc.WaitForReady(true))
}

// answered says whether a voter gave an answer at all, if only that there is no leader.
func answered(err error) bool {
	return err == nil || strings.HasPrefix(grpcText(err), "etcdserver:")
}

// better says whether the next voter in turn serves, or at least answers while the one in use does not.
func (e *edge) better(ctx context.Context, answers bool) bool {
	cc, err := grpc.NewClient("passthrough:///voter",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.forward(ctx) }))
	if err != nil {
		return false
	}
	defer cc.Close()
	err = serves(ctx, cc)
	return err == nil || !answers && answered(err)
}
