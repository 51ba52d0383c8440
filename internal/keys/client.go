package keys

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// connKey finds the client of a call's connection in its context. Calls from within the process have none: many clients come over one of those.
type connKey struct{}

// client is what one connection holds. The zero value holds nothing.
type client struct {
	watches atomic.Int64

	mu     sync.Mutex // guards the fields below
	leases map[int64]struct{}
	asked  time.Time // when it was last asked which of them have ended
}

// askAgain is how long a client that has as many leases as it may is told so without asking whether some have ended.
const askAgain = time.Second

// clientOf gives the client of a call; nil if it is not counted.
func clientOf(ctx context.Context) *client {
	c, _ := ctx.Value(connKey{}).(*client)
	return c
}

// mayGrant refuses one more lease to a client that has as many as it may: codes.ResourceExhausted.
func (g *guard) mayGrant(ctx context.Context) error {
	c := clientOf(ctx)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	have, ask := len(c.leases), time.Since(c.asked) > askAgain
	if have >= g.limits.Leases && ask {
		c.asked = time.Now()
	}
	c.mu.Unlock()
	if have < g.limits.Leases {
		return nil
	}
	if ask {
		alive, err := g.leaseIDs(ctx)
		if err != nil {
			return err
		}
		slices.Sort(alive)
		c.mu.Lock()
		maps.DeleteFunc(c.leases, func(id int64, _ struct{}) bool {
			_, there := slices.BinarySearch(alive, id)
			return !there
		})
		have = len(c.leases)
		c.mu.Unlock()
	}
	if have < g.limits.Leases {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "etcdserver: this connection has %d leases, the limit is %d; let some end before granting more", have, g.limits.Leases)
}

// noteLease remembers a lease that was granted or revoked over the connection.
func noteLease(ctx context.Context, req, resp any) {
	c := clientOf(ctx)
	if c == nil {
		return
	}
	switch m := resp.(type) {
	case *pb.LeaseGrantResponse:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.leases == nil {
			c.leases = map[int64]struct{}{}
		}
		c.leases[m.ID] = struct{}{}
	case *pb.LeaseRevokeResponse:
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.leases, req.(*pb.LeaseRevokeRequest).ID)
	}
}
