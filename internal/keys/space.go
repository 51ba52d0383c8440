package keys

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"flota/internal/store/etcd"
)

// space is where the applications' keys lie in the store; spaceEnd is the first key after them.
const (
	space    = "user/"
	spaceEnd = "user0"
)

// leaseTTL is what a lease gets that a lock or an election makes by itself. 60 s. Source: etcd's concurrency.NewSession.
const leaseTTL = 60

// inside gives where an application's key lies. An empty key stays empty: the server refuses it in its own words.
func inside(key []byte) []byte {
	if len(key) == 0 {
		return nil
	}
	return append([]byte(space), key...)
}

// endInside gives where a range ends: "\x00" means the end of all keys, which is the end of the space here; empty means one key.
func endInside(end []byte) []byte {
	switch {
	case len(end) == 0:
		return nil
	case len(end) == 1 && end[0] == 0:
		return []byte(spaceEnd)
	}
	return append([]byte(space), end...)
}

// outside gives the application's view of a key of the space.
func outside(key []byte) []byte { return bytes.TrimPrefix(key, []byte(space)) }

// confine rewrites a request so that it cannot reach out of the space. It changes msg, which must be the caller's own.
// rpctypes.ErrGRPCLeaseNotFound for what names a lease of the cluster's.
func confine(msg any) error {
	switch m := msg.(type) {
	case *pb.RangeRequest:
		m.Key, m.RangeEnd = inside(m.Key), endInside(m.RangeEnd)
	case *pb.PutRequest:
		if foreign(m.Lease) {
			return rpctypes.ErrGRPCLeaseNotFound
		}
		m.Key = inside(m.Key)
	case *pb.DeleteRangeRequest:
		m.Key, m.RangeEnd = inside(m.Key), endInside(m.RangeEnd)
	case *pb.TxnRequest:
		return confineTxn(m)
	case *pb.WatchRequest:
		if c := m.GetCreateRequest(); c != nil {
			if len(c.Key) == 0 { // as etcd reads it
				c.Key = []byte{0}
			}
			c.Key, c.RangeEnd = inside(c.Key), endInside(c.RangeEnd)
		}
	case *pb.LeaseGrantRequest:
		if m.ID < 0 || foreign(m.ID) {
			return errLeaseID
		}
		if m.ID == 0 {
			m.ID = newLeaseID()
		}
	case *pb.LeaseRevokeRequest:
		if foreign(m.ID) {
			return rpctypes.ErrGRPCLeaseNotFound
		}
	case *pb.LeaseTimeToLiveRequest:
		m.ID = hideLease(m.ID)
	case *pb.LeaseKeepAliveRequest:
		m.ID = hideLease(m.ID)
	}
	return nil
}

func confineTxn(m *pb.TxnRequest) error {
	for _, c := range m.Compare {
		c.Key, c.RangeEnd = inside(c.Key), endInside(c.RangeEnd)
	}
	for _, ops := range [][]*pb.RequestOp{m.Success, m.Failure} {
		for _, op := range ops {
			if err := confineOp(op); err != nil {
				return err
			}
		}
	}
	return nil
}

func confineOp(op *pb.RequestOp) error {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return confine(o.RequestRange)
	case *pb.RequestOp_RequestPut:
		return confine(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return confine(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return confine(o.RequestTxn)
	}
	return nil // the server refuses it
}

// foreign says whether a lease is the cluster's own.
func foreign(lease int64) bool { return lease > 0 && lease&etcd.LeaseBit != 0 }

// hideLease turns the ID of a lease of the cluster into one that never exists, so that the server answers as for any lease that has ended;
// showLease turns it back in the answer.
func hideLease(id int64) int64 {
	if foreign(id) {
		return -id
	}
	return id
}

func showLease(id int64) int64 {
	if id < 0 && foreign(-id) {
		return -id
	}
	return id
}

// reveal gives an answer in the application's view. It may change msg, except for events, which all watchers of the server share.
func reveal(msg any) any {
	switch m := msg.(type) {
	case *pb.RangeResponse:
		revealKVs(m.Kvs)
	case *pb.RangeStreamResponse:
		if m.RangeResponse != nil {
			revealKVs(m.RangeResponse.Kvs)
		}
	case *pb.PutResponse:
		revealKV(m.PrevKv)
	case *pb.DeleteRangeResponse:
		revealKVs(m.PrevKvs)
	case *pb.TxnResponse:
		revealTxn(m)
	case *pb.WatchResponse:
		return revealEvents(m)
	case *pb.LeaseTimeToLiveResponse:
		m.ID = showLease(m.ID)
		kept := m.Keys[:0:0]
		for _, k := range m.Keys {
			if bytes.HasPrefix(k, []byte(space)) {
				kept = append(kept, outside(k))
			}
		}
		m.Keys = kept
	case *pb.LeaseKeepAliveResponse:
		m.ID = showLease(m.ID)
	case *pb.LeaseLeasesResponse:
		kept := m.Leases[:0:0]
		for _, l := range m.Leases {
			if !foreign(l.ID) {
				kept = append(kept, l)
			}
		}
		m.Leases = kept
	case *pb.MemberListResponse:
		for _, x := range m.Members {
			x.PeerURLs = nil
		}
	}
	return msg
}

func revealKV(kv *mvccpb.KeyValue) {
	if kv != nil {
		kv.Key = outside(kv.Key)
	}
}

func revealKVs(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		revealKV(kv)
	}
}

func revealTxn(m *pb.TxnResponse) {
	for _, r := range m.Responses {
		switch o := r.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			reveal(o.ResponseRange)
		case *pb.ResponseOp_ResponsePut:
			reveal(o.ResponsePut)
		case *pb.ResponseOp_ResponseDeleteRange:
			reveal(o.ResponseDeleteRange)
		case *pb.ResponseOp_ResponseTxn:
			reveal(o.ResponseTxn)
		}
	}
}

// revealEvents copies what it changes.
func revealEvents(m *pb.WatchResponse) *pb.WatchResponse {
	out := &pb.WatchResponse{
		Header: m.Header, WatchId: m.WatchId, Created: m.Created, Canceled: m.Canceled, CompactRevision: m.CompactRevision,
		CancelReason: m.CancelReason, Fragment: m.Fragment,
	}
	if len(m.Events) > 0 {
		out.Events = make([]*mvccpb.Event, len(m.Events))
	}
	for i, e := range m.Events {
		out.Events[i] = &mvccpb.Event{Type: e.Type, Kv: copyKV(e.Kv), PrevKv: copyKV(e.PrevKv)}
	}
	return out
}

func copyKV(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	if kv == nil {
		return nil
	}
	return &mvccpb.KeyValue{
		Key: outside(kv.Key), Value: kv.Value, Lease: kv.Lease, Version: kv.Version,
		CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
	}
}
