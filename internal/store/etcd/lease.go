package etcd

import (
	"context"
	"errors"
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
	err = k.ask(ctx, func(ctx context.Context) error {
		resp, err := k.c.Grant(ctx, seconds)
		if err == nil {
			id = store.LeaseID(resp.ID)
		}
		return err
	})
	return id, problem("grant a lease", err)
}

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
	_, err = k.c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
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
