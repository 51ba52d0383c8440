package keys

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
)

// Limits bound what applications may use. A zero field means the default.
type Limits struct {
	ValueBytes int   // of one value; default 1 MiB, the limit that etcd recommends; at most that
	KeyBytes   int   // of one key; default 4 KiB, as paths have
	QuotaBytes int64 // of all keys with their values; default 512 MiB, at most half of the store's own quota
	Conns      int   // connections to this machine's front at once; default 8192, at most half of the files the process may open
	Watches    int   // of one connection; default 10,000
	AllWatches int   // through this machine; default 100,000, which take about 1 GB when all differ
	Leases     int   // granted over one connection and not ended; default 10,000
	AllLeases  int   // in the cluster; default 100,000
}

// The defaults of Limits.
const (
	valueBytes = 1 << 20
	keyBytes   = 4 << 10
	quotaBytes = 512 << 20
	conns      = 8192
	watches    = 10_000
	allWatches = 100_000
	leases     = 10_000
	allLeases  = 100_000
)

// fill sets defaults. fault.Invalid for limits that cannot be held.
func (l Limits) fill() (Limits, error) {
	for _, f := range []struct {
		p *int
		d int
	}{{&l.ValueBytes, valueBytes}, {&l.KeyBytes, keyBytes}, {&l.Conns, conns}, {&l.Watches, watches}, {&l.AllWatches, allWatches}, {&l.Leases, leases}, {&l.AllLeases, allLeases}} {
		if *f.p == 0 {
			*f.p = f.d
		}
		if *f.p < 0 {
			return l, fault.New(fault.Invalid, "limits of keys: %d is below 0", *f.p)
		}
	}
	if l.QuotaBytes == 0 {
		l.QuotaBytes = quotaBytes
	}
	if l.QuotaBytes < 0 || l.ValueBytes > valueBytes {
		return l, fault.New(fault.Invalid, "limits of keys: a quota of %d bytes, values of %d: want a positive quota, values of at most %d", l.QuotaBytes, l.ValueBytes, valueBytes)
	}
	return l, nil
}

// maxDepth is how deep transactions may lie in each other. 8: nobody has a use for more, and each is walked through recursively.
const maxDepth = 8

// check refuses requests with keys or values that are too large, codes.InvalidArgument, in words that name the limit.
func (l Limits) check(msg any) error {
	switch m := msg.(type) {
	case *pb.RangeRequest:
		return l.key(m.Key, m.RangeEnd)
	case *pb.PutRequest:
		return l.put(m)
	case *pb.DeleteRangeRequest:
		return l.key(m.Key, m.RangeEnd)
	case *pb.TxnRequest:
		return l.txn(m, maxDepth)
	case *pb.WatchRequest:
		return l.key(m.GetCreateRequest().GetKey(), m.GetCreateRequest().GetRangeEnd())
	case *v3lockpb.LockRequest:
		return l.key(m.Name)
	case *v3lockpb.UnlockRequest:
		return l.key(m.Key)
	case *v3electionpb.CampaignRequest:
		return l.pair(m.Name, m.Value)
	case *v3electionpb.ProclaimRequest:
		return l.pair(m.GetLeader().GetKey(), m.Value)
	}
	return nil
}

func (l Limits) put(m *pb.PutRequest) error { return l.pair(m.Key, m.Value) }

func (l Limits) pair(key, value []byte) error {
	if len(value) > l.ValueBytes {
		return status.Errorf(codes.InvalidArgument, "etcdserver: request is too large: a value of %d bytes, the limit is %d", len(value), l.ValueBytes)
	}
	return l.key(key)
}

func (l Limits) key(keys ...[]byte) error {
	for _, k := range keys {
		if len(k) > l.KeyBytes {
			return status.Errorf(codes.InvalidArgument, "etcdserver: request is too large: a key of %d bytes, the limit is %d", len(k), l.KeyBytes)
		}
	}
	return nil
}

func (l Limits) txn(m *pb.TxnRequest, depth int) error {
	if depth == 0 {
		return status.Errorf(codes.InvalidArgument, "etcdserver: transactions lie more than %d deep in each other", maxDepth)
	}
	for _, c := range m.Compare {
		if err := l.pair(c.Key, c.GetValue()); err != nil {
			return err
		}
		if err := l.key(c.RangeEnd); err != nil {
			return err
		}
	}
	for _, ops := range [][]*pb.RequestOp{m.Success, m.Failure} {
		for _, op := range ops {
			var err error
			switch o := op.Request.(type) {
			case *pb.RequestOp_RequestTxn:
				err = l.txn(o.RequestTxn, depth-1)
			case *pb.RequestOp_RequestPut:
				err = l.put(o.RequestPut)
			case *pb.RequestOp_RequestRange:
				err = l.check(o.RequestRange)
			case *pb.RequestOp_RequestDeleteRange:
				err = l.check(o.RequestDeleteRange)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// added is how many bytes a request may add to the applications' keys at most. 0 for what only reads or deletes.
func added(msg any) int64 {
	switch m := msg.(type) {
	case *pb.PutRequest:
		return sizeOf(m.Key, m.Value)
	case *pb.TxnRequest:
		return max(addedBy(m.Success), addedBy(m.Failure))
	case *v3lockpb.LockRequest:
		return sizeOf(m.Name, nil)
	case *v3electionpb.CampaignRequest:
		return sizeOf(m.Name, m.Value)
	case *v3electionpb.ProclaimRequest:
		return sizeOf(m.GetLeader().GetKey(), m.Value)
	}
	return 0
}

func addedBy(ops []*pb.RequestOp) (n int64) {
	for _, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			n += added(o.RequestPut)
		case *pb.RequestOp_RequestTxn:
			n += added(o.RequestTxn)
		}
	}
	return n
}

// overhead is what a key costs beside its bytes and its value's: about what etcd's index takes for it. Without it a quota of bytes would
// let in a hundred million empty keys.
const overhead = 128

// sizeOf is what a key counts towards the quota.
func sizeOf(key, value []byte) int64 { return int64(len(key)+len(value)) + overhead }
