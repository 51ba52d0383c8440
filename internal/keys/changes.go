package keys

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// changes hands all changes of the keys from key to end, from revision rev on and in order, to each, until ctx or the server ends or each gives an error, which
// it returns. A watch by a client within the process would pass every change on through six goroutines. What each gets is shared with
// all who watch and must not be changed. Where changes are forgotten already it gets the revision that they are forgotten up to, and nothing after that.
func changes(ctx context.Context, s *etcdserver.EtcdServer, key, end []byte, rev int64, each func(mvcc.WatchResponse) error) error {
	w := s.Watchable().NewWatchStream()
	defer w.Close()
	if _, err := w.Watch(ctx, clientv3.AutoWatchID, key, end, rev); err != nil {
		return err
	}
	for {
		select {
		case r, ok := <-w.Chan():
			if !ok {
				return rpctypes.ErrStopped
			}
			if err := each(r); err != nil {
				return err
			}
		case <-s.StoppingNotify():
			return rpctypes.ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Changes is what the v2 API follows the applications' keys by: see v2.Changer.
func (w blankWatcher) Changes(ctx context.Context, key, end string, rev int64, each func(clientv3.WatchResponse) error) error {
	return changes(ctx, w.server, inside([]byte(key)), endInside([]byte(end)), rev, func(r mvcc.WatchResponse) error {
		resp := clientv3.WatchResponse{CompactRevision: r.CompactRevision, Canceled: r.CompactRevision != 0}
		for _, e := range r.Events {
			resp.Events = append(resp.Events, &clientv3.Event{Type: e.Type, Kv: copyKV(e.Kv)})
		}
		return each(resp)
	})
}
