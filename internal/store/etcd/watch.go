package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
	"flota/internal/store"
)

// Watch implements store.KV. A client's watch ends when its voter has lost the quorum, so that it can be resumed at another; a
// member's own watch stands still meanwhile, as there is nowhere else to go.
func (k *kv) Watch(ctx context.Context, prefix string, after int64) <-chan store.Update {
	out := make(chan store.Update, 1)
	run, done, err := k.begin(ctx, 0)
	if err != nil {
		out <- store.Update{Err: err}
		close(out)
		return out
	}
	if k.gate == nil {
		run = clientv3.WithRequireLeader(run)
	}
	go func() {
		defer done()
		defer close(out)
		if err := k.stream(run, prefix, max(after, 0), out); err != nil && ctx.Err() == nil {
			select {
			case out <- store.Update{Err: problem("watch "+prefix, err)}:
			case <-run.Done():
			}
		}
	}()
	return out
}

// stream sends until the watch ends, and gives why.
func (k *kv) stream(ctx context.Context, prefix string, after int64, out chan<- store.Update) error {
	in := k.c.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	last, kept := after, false
	for resp := range in {
		if err := resp.Err(); err != nil {
			return err
		}
		if k.forgets && !resp.Created && !kept {
			if err := k.kept(ctx, after); err != nil {
				return err
			}
			kept = true
		}
		for _, u := range updates(&resp, after, last) {
			select {
			case out <- u:
				last = u.Rev
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fault.New(fault.Unavailable, "the stream ended")
}

// kept says, with an error, whether an etcd may have left out deletions at the revision after the given one, because that is the one it is compacted at: older
// releases do (etcd's issue 18089), Debian 12's among them. It is asked when the first changes have come, because a later compaction cannot have touched those.
func (k *kv) kept(ctx context.Context, after int64) error {
	if after == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	_, err := k.c.Get(ctx, "\x00", clientv3.WithCountOnly(), clientv3.WithRev(after), clientv3.WithSerializable())
	if errors.Is(err, rpctypes.ErrFutureRev) {
		return nil
	}
	return err
}

// updates groups a response's events by revision, those of one transaction together. after is where the watch starts; what is not
// newer than last was sent before.
func updates(resp *clientv3.WatchResponse, after, last int64) []store.Update {
	switch {
	case resp.Created:
		return []store.Update{{Rev: after}}
	case resp.IsProgressNotify():
		if resp.Header.Revision <= last {
			return nil
		}
		return []store.Update{{Rev: resp.Header.Revision}}
	}
	var out []store.Update
	for _, e := range resp.Events {
		rev := e.Kv.ModRevision
		if rev <= last {
			continue
		}
		if len(out) == 0 || out[len(out)-1].Rev != rev {
			out = append(out, store.Update{Rev: rev})
		}
		u := &out[len(out)-1]
		if e.Type == clientv3.EventTypeDelete {
			u.Events = append(u.Events, store.Event{Item: store.Item{Key: string(e.Kv.Key), Rev: rev}, Deleted: true})
		} else {
			u.Events = append(u.Events, store.Event{Item: item(e.Kv)})
		}
	}
	return out
}
