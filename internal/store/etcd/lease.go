package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/store"
)

// Grant implements store.KV.
func (k *kv) Grant(ctx context.Context, ttl time.Duration) (id store.LeaseID, err error) {
	ctx, done, err := k.begin(ctx, writeWait)
	if err != nil {
		return 0, err
	}
	defer done()
	seconds := max(1, int64((ttl+time.Second-1)/time.Second))
	got := make(chan int64, 1)
	err = k.ask(ctx, func(ctx context.Context) error {
		fresh := newLeaseID()
		err := k.grant(ctx, fresh, seconds)
		if err == nil {
			got <- fresh
		}
		return err
	})
	if err != nil {
		return 0, problem("grant a lease", err)
	}
	return store.LeaseID(<-got), nil
}

// LeaseBit is set in the ID of every lease that the cluster holds for itself, and in none of an application: etcd's leases have no
// namespace, and this is how room keys tells which ones applications may touch.
const LeaseBit = 1 << 62

// newLeaseID gives an ID that nobody has used: 62 random bits beside LeaseBit.
func newLeaseID() int64 { return rand.Int64N(LeaseBit) | LeaseBit }

// Renew implements store.KV.
func (k *kv) Renew(ctx context.Context, id store.LeaseID) error {
	ctx, done, err := k.begin(ctx, writeWait)
	if err != nil {
		return err
	}
	defer done()
	// Not through ask: clientv3 repeats a renewal without a pause while a voter refuses it for want of a leader, and
	// a voter that is not told to refuse waits for one.
	if k.gate != nil {
		if err := k.gate(ctx); err != nil {
			return err
		}
	}
	err = k.do(func() error {
		_, err := k.c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
		return err
	})
	return problem("renew a lease", err)
}

// Revoke implements store.KV.
func (k *kv) Revoke(ctx context.Context, id store.LeaseID) error {
	ctx, done, err := k.begin(ctx, writeWait)
	if err != nil {
		return err
	}
	defer done()
	err = k.ask(ctx, func(ctx context.Context) error {
		_, err := k.c.Revoke(ctx, clientv3.LeaseID(id))
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return problem("revoke a lease", err)
}
