package v2

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A machine removes what has expired between 0 and expireSpread after the time, at random, so that mostly one of them does it and the others see that it is
// gone. etcd did so every 500 ms, which clients can have noticed.
const expireSpread = 400 * time.Millisecond

// expireAgain is how long to wait when the store did not take a removal.
const expireAgain = time.Second

// reload reads what expires from the store, for what the changes do not tell because they are compacted.
func (a *API) reload(ctx context.Context) error {
	for from := sideDetail; from != ""; {
		resp, err := a.kv.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(sideDetail)), clientv3.WithLimit(page), clientv3.WithSerializable())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			a.expect(string(kv.Key), kv)
		}
		from = ""
		if resp.More {
			from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		}
	}
	return nil
}

// expire removes what has expired until ctx ends.
func (a *API) expire(ctx context.Context) error {
	for a.reload(ctx) != nil {
		if !a.rest(ctx, expireAgain, nil) {
			return ctx.Err()
		}
	}
	for {
		key, at, ok := a.queue.first()
		wait := time.Duration(math.MaxInt64)
		if ok {
			wait = time.Until(time.Unix(0, at).Add(rand.N(expireSpread)))
		}
		if wait > 0 {
			if !a.rest(ctx, wait, a.queue.moved) {
				return ctx.Err()
			}
			// Something changed, or the time has come: look again, without a new delay for what is due.
			if key2, at2, ok := a.queue.first(); !ok || key2 != key || at2 != at || time.Now().Before(time.Unix(0, at)) {
				continue
			}
		}
		gone, err := a.remove(ctx, key)
		switch {
		case err != nil:
			a.o.Log.Debug("an expired key is not removed yet", "key", key, "err", err)
			if !a.rest(ctx, expireAgain, nil) {
				return ctx.Err()
			}
		case gone:
			a.queue.drop(key, at)
		}
	}
}

// rest waits, until wake at most, and says whether ctx goes on.
func (a *API) rest(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// drop forgets key if it is still that time it is due at.
func (q *queue) drop(key string, at int64) {
	q.mu.Lock()
	d := q.byKey[key]
	still := d != nil && d.at == at
	q.mu.Unlock()
	if still {
		q.set(key, 0)
	}
}

// remove ends the node of a v3 key if its time has come, and says whether it is settled: false when somebody changed it meanwhile.
func (a *API) remove(ctx context.Context, key string) (settled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.o.Timeout)
	defer cancel()
	name, marker, ok := nodeOf(key)
	if !ok {
		return true, nil
	}
	l, err := a.look(ctx, name, false, true)
	if err != nil {
		return false, err
	}
	p := l.ended(marker, time.Now())
	if p == nil {
		return true, nil
	}
	resp, _, err := a.commit(ctx, p)
	if err != nil || !resp.Succeeded {
		return false, err
	}
	if p.record.Action == actExpire {
		a.stats.expired.Add(1)
	}
	return true, nil
}

// ended plans the removal of what has expired; nil when nothing has.
func (l look) ended(marker bool, now time.Time) *plan {
	p := &plan{record: record{Action: actExpire, Key: l.key}}
	kv, side := l.file, l.fileSide
	if marker {
		kv, side = l.dir, l.dirSide
	}
	d := detailOf(side, side)
	switch {
	case d.Expires == 0 || now.UnixNano() < d.Expires:
		return nil
	case kv == nil && marker && l.first != nil && l.file == nil:
		// The lease removed the marker while no machine served keys. What is below goes now.
		p.guard(same(string(side.Key), side), absent(dirKey(l.key)), absent(l.key))
		p.record.Created = l.first.CreateRevision
		p.dropDir(l.key, nil, side)
	case kv == nil || side.ModRevision != kv.ModRevision:
		// The lease removed it, or a v3 client wrote it anew: only the detail is left over.
		p.guard(same(string(side.Key), side))
		p.record = record{Action: actGet, Key: l.key}
		p.steps = []step{{key: string(side.Key), ask: true}}
	case marker:
		p.guard(same(dirKey(l.key), l.dir))
		p.dropDir(l.key, l.dir, l.dirSide)
	default:
		p.guard(same(l.key, l.file))
		p.dropFile(l.key)
	}
	return p
}
