package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
	"flota/internal/store"
)

// A list is read in pages, all at the revision of the first. The first page is 100 items; the next are as many
// as make about 4 MiB, going by the items seen so far, and at most 5,000: few round trips for small values, bounded messages for
// large ones.
const (
	pageFirst = 100
	pageMax   = 5_000
	pageBytes = 4 << 20
)

// listTries is how often a list is begun again because its revision was compacted, or unknown to the next voter, meanwhile.
const listTries = 5

// List implements store.KV. Without a deadline in ctx each page has 1.5 s.
func (k *kv) List(ctx context.Context, prefix string, r store.Read) (items []store.Item, rev int64, err error) {
	for range listTries {
		items, rev, err = k.listOnce(ctx, prefix, r)
		switch {
		case err == nil:
			return items, rev, nil
		case !errors.Is(err, rpctypes.ErrCompacted) && !errors.Is(err, rpctypes.ErrFutureRev):
			return nil, 0, problem("list "+prefix, err)
		}
	}
	return nil, 0, fault.Wrap(fault.Unavailable, err, "list %s", prefix)
}

func (k *kv) listOnce(ctx context.Context, prefix string, r store.Read) (items []store.Item, rev int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if prefix == "" {
		from, end = "\x00", "\x00"
	}
	items = []store.Item{}
	limit, bytes := int64(pageFirst), 0
	for {
		resp, err := k.page(ctx, from, r, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, p := range resp.Kvs {
			items = append(items, item(p))
			bytes += len(p.Key) + len(p.Value)
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return items, rev, nil
		}
		from = items[len(items)-1].Key + "\x00"
		limit = int64(min(max(pageBytes/(bytes/len(items)+1), 1), pageMax))
	}
}

// page reads one page under a deadline of its own.
func (k *kv) page(ctx context.Context, from string, r store.Read, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, done, err := k.begin(ctx, readWait)
	if err != nil {
		return nil, err
	}
	defer done()
	return k.read(ctx, from, r, opts...)
}
