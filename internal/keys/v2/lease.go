package v2

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// backstop is how much longer than its TTL the lease of a node lasts at least, in seconds. A node is removed by the first machine whose clock says so; the
// lease does it when no machine serves keys any more.
const backstop = 10

// maxLease is the longest lease etcd grants, in seconds. Source: lease.MaxLeaseTTL.
const maxLease = 9_000_000_000

// leases are those of this machine's nodes. Nodes that end at about the same time share one, because a lease costs the cluster as much as a write: a lease
// ends up to an eighth of the TTL, or 16 s, after its nodes' backstop.
type leases struct {
	mu    sync.Mutex // guards byEnd
	byEnd map[int64]clientv3.LeaseID
}

// leaseEnd gives when the lease of what ends in left seconds ends, in Unix seconds.
func leaseEnd(now, left int64) int64 {
	left = min(max(left, 0), maxLease/2) + backstop
	width := int64(16)
	for width < left/8 {
		width *= 2
	}
	return (now+left)/width*width + width
}

// lease gives one that lasts beyond ends.
func (a *API) lease(ctx context.Context, ends time.Time) (clientv3.LeaseID, error) {
	now := time.Now().Unix()
	end := leaseEnd(now, ends.Unix()-now)
	if id, ok := a.leases.get(end, now); ok {
		return id, nil
	}
	unlock, ok := a.lock(ctx, "lease")
	if !ok {
		return 0, ctx.Err()
	}
	defer unlock()
	if id, ok := a.leases.get(end, now); ok {
		return id, nil
	}
	resp, err := a.o.Client.Grant(ctx, end-now)
	if err != nil {
		return 0, err
	}
	a.leases.mu.Lock()
	defer a.leases.mu.Unlock()
	a.leases.byEnd[end] = resp.ID
	return resp.ID, nil
}

// get gives the lease that ends at end, and forgets those that have ended.
func (l *leases) get(end, now int64) (clientv3.LeaseID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.byEnd[end]
	if !ok {
		for e := range l.byEnd {
			if e <= now {
				delete(l.byEnd, e)
			}
		}
	}
	return id, ok
}

// forget is for a lease that is there no more.
func (l *leases) forget(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e, have := range l.byEnd {
		if have == id {
			delete(l.byEnd, e)
		}
	}
}
