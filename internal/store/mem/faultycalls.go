package mem

import (
	"context"
	"time"

	"flota/internal/store"
)

// List implements store.KV.
func (f *Faulty) List(ctx context.Context, prefix string, r store.Read) (items []store.Item, rev int64, err error) {
	err = f.do(ctx, Call{Op: "list", Key: prefix}, readWait, r.Stale, func(ctx context.Context) (err error) {
		items, rev, err = f.kv.List(ctx, prefix, r)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return items, rev, nil
}

// Get implements store.KV.
func (f *Faulty) Get(ctx context.Context, key string, r store.Read) (item store.Item, ok bool, err error) {
	err = f.do(ctx, Call{Op: "get", Key: key}, readWait, r.Stale, func(ctx context.Context) (err error) {
		item, ok, err = f.kv.Get(ctx, key, r)
		return err
	})
	if err != nil {
		return store.Item{}, false, err
	}
	return item, ok, nil
}

// Commit implements store.KV.
func (f *Faulty) Commit(ctx context.Context, t store.Txn) (rev int64, ok bool, err error) {
	err = f.do(ctx, Call{Op: "commit", Txn: t}, writeWait, false, func(ctx context.Context) (err error) {
		rev, ok, err = f.kv.Commit(ctx, t)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return rev, ok, nil
}

// Grant implements store.KV.
func (f *Faulty) Grant(ctx context.Context, ttl time.Duration) (id store.LeaseID, err error) {
	err = f.do(ctx, Call{Op: "grant"}, writeWait, false, func(ctx context.Context) (err error) {
		id, err = f.kv.Grant(ctx, ttl)
		return err
	})
	if err != nil {
		return 0, err
	}
	return id, nil
}

// Renew implements store.KV.
func (f *Faulty) Renew(ctx context.Context, id store.LeaseID) error {
	return f.do(ctx, Call{Op: "renew", Lease: id}, writeWait, false, func(ctx context.Context) error { return f.kv.Renew(ctx, id) })
}

// Revoke implements store.KV.
func (f *Faulty) Revoke(ctx context.Context, id store.LeaseID) error {
	return f.do(ctx, Call{Op: "revoke", Lease: id}, writeWait, false, func(ctx context.Context) error { return f.kv.Revoke(ctx, id) })
}

// Health implements store.KV; there is no quorum during an outage.
func (f *Faulty) Health(ctx context.Context) store.Health {
	h := f.kv.Health(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outage != None || f.closed {
		h.Quorum, h.Leader = false, ""
	}
	return h
}

// Close ends this client's watches and makes its calls fail; the store behind it stays.
func (f *Faulty) Close() error {
	f.set(func() {
		if !f.closed {
			f.closed = true
			close(f.quit)
		}
	})
	f.pump.Wait()
	return nil
}
