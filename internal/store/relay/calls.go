package relay

import (
	"context"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// once makes a call on the backend in use.
func once(ctx context.Context, r *Relay, call func(store.KV) error) error {
	s, done, err := r.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	return call(s.kv)
}

// again is once for calls that may be repeated: one that fails because its backend was switched away is made on the next.
func again(ctx context.Context, r *Relay, call func(store.KV) error) error {
	for {
		s, done, err := r.take(ctx)
		if err != nil {
			return err
		}
		err = call(s.kv)
		done()
		if !fault.Is(err, fault.Unavailable) || s.over.Err() == nil || ctx.Err() != nil {
			return err
		}
	}
}

// List implements store.KV.
func (r *Relay) List(ctx context.Context, prefix string, o store.Read) (items []store.Item, rev int64, err error) {
	err = again(ctx, r, func(kv store.KV) (err error) {
		items, rev, err = kv.List(ctx, prefix, o)
		return err
	})
	return items, rev, err
}

// Get implements store.KV.
func (r *Relay) Get(ctx context.Context, key string, o store.Read) (item store.Item, ok bool, err error) {
	err = again(ctx, r, func(kv store.KV) (err error) {
		item, ok, err = kv.Get(ctx, key, o)
		return err
	})
	return item, ok, err
}

// Commit implements store.KV. A transaction that cannot be valid fails without a backend too.
func (r *Relay) Commit(ctx context.Context, t store.Txn) (rev int64, ok bool, err error) {
	if err := t.Check(); err != nil {
		return 0, false, err
	}
	err = once(ctx, r, func(kv store.KV) (err error) {
		rev, ok, err = kv.Commit(ctx, t)
		return err
	})
	return rev, ok, err
}

// Grant implements store.KV.
func (r *Relay) Grant(ctx context.Context, ttl time.Duration) (id store.LeaseID, err error) {
	err = once(ctx, r, func(kv store.KV) (err error) {
		id, err = kv.Grant(ctx, ttl)
		return err
	})
	return id, err
}

// Renew implements store.KV.
func (r *Relay) Renew(ctx context.Context, id store.LeaseID) error {
	return again(ctx, r, func(kv store.KV) error { return kv.Renew(ctx, id) })
}

// Revoke implements store.KV.
func (r *Relay) Revoke(ctx context.Context, id store.LeaseID) error {
	return again(ctx, r, func(kv store.KV) error { return kv.Revoke(ctx, id) })
}

// Health implements store.KV. It does not wait for a backend: without one there is no quorum.
func (r *Relay) Health(ctx context.Context) store.Health {
	s, _, err := r.look()
	if s == nil || err != nil {
		return store.Health{}
	}
	defer s.calls.Done()
	return s.kv.Health(ctx)
}
