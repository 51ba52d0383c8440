package keys

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// edgeKV has what this machine's own rooms ask for carried out at a voter, without a journey through this machine's gRPC server first.
type edgeKV struct {
	pb.KVClient // for what is rarely asked
	e           *edge
}

// carryOut has one request carried out, within the same limits as everybody's.
func carryOut[R any](ctx context.Context, e *edge, name string, req any, resp *R) (*R, error) {
	if err := e.g.limits.check(req); err != nil {
		return nil, err
	}
	if _, err := e.invoke(ctx, name, req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// Range implements pb.KVClient.
func (k edgeKV) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return carryOut(ctx, k.e, pb.KV_Range_FullMethodName, r, &pb.RangeResponse{})
}

// Put implements pb.KVClient.
func (k edgeKV) Put(ctx context.Context, r *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	return carryOut(ctx, k.e, pb.KV_Put_FullMethodName, r, &pb.PutResponse{})
}

// DeleteRange implements pb.KVClient.
func (k edgeKV) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return carryOut(ctx, k.e, pb.KV_DeleteRange_FullMethodName, r, &pb.DeleteRangeResponse{})
}

// Txn implements pb.KVClient.
func (k edgeKV) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return carryOut(ctx, k.e, pb.KV_Txn_FullMethodName, r, &pb.TxnResponse{})
}
