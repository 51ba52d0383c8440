package keys

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestLeaseLimit grants one lease too many over a connection, at a voter and at a machine without one: it is refused, other clients are not, and
// each that ends makes room, whoever ended it.
func TestLeaseLimit(t *testing.T) {
	b := newBed(t, 1, true, func(o *Options) { o.Limits.Leases = 3 })
	ctx := patientCtx(t)
	for i := range b.boxes {
		c, other := b.dial(i), b.dial(i)
		var ids []clientv3.LeaseID
		grant := func(c *clientv3.Client) error {
			r, err := c.Grant(ctx, 600)
			if err == nil {
				ids = append(ids, r.ID)
			}
			return err
		}
		for range 3 {
			if err := grant(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := grant(c); err == nil || !contains(err.Error(), "this connection has 3 leases, the limit is 3") {
			t.Errorf("%d: one more gives %v", i, err)
		}
		if err := grant(other); err != nil {
			t.Errorf("%d: another client: %v", i, err)
		}
		if _, err := c.Revoke(ctx, ids[0]); err != nil {
			t.Fatal(err)
		}
		if err := grant(c); err != nil {
			t.Errorf("%d: after a lease was revoked: %v", i, err)
		}
		if _, err := other.Revoke(ctx, ids[1]); err != nil {
			t.Fatal(err)
		}
		for grant(c) != nil { // it is asked once a second whether some have ended
			if ctx.Err() != nil {
				t.Fatalf("%d: no room after somebody else revoked a lease", i)
			}
			pause(ctx, 50*time.Millisecond)
		}
	}
}
