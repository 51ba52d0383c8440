package v2

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// past knows what keys were before their next change. It is only for who sees all changes in order. Where it does not know, the store is asked, which is
// what a watch with previous values costs for each event. Bounded like recent.
type past struct {
	young, old map[string]*mvccpb.KeyValue // nil: known not to be there
	bytes      int                         // of young
}

// get gives what a key is, and whether that is known.
func (p *past) get(key string) (kv *mvccpb.KeyValue, ok bool) {
	if kv, ok = p.young[key]; ok {
		return kv, true
	}
	kv, ok = p.old[key]
	return kv, ok
}

// set notes what a key is now. What is too large to keep is not known.
func (p *past) set(key string, kv *mvccpb.KeyValue) {
	cost := func(kv *mvccpb.KeyValue) int { return recentCost/2 + len(key) + len(kv.GetValue()) }
	if was, ok := p.young[key]; ok {
		p.bytes -= cost(was)
		delete(p.young, key)
	}
	delete(p.old, key)
	if len(kv.GetValue()) > recentValue {
		return
	}
	if p.young == nil || p.bytes > recentBytes {
		p.old, p.young, p.bytes = p.young, map[string]*mvccpb.KeyValue{}, 0
	}
	p.young[key] = kv
	p.bytes += cost(kv)
}

// forget is for when changes were missed.
func (p *past) forget() { *p = past{} }

// askAtOnce is how many keys are asked for in one transaction, of which etcd takes 128.
const askAtOnce = 100

// before fills in what the changed keys of one revision were. What the store has forgotten stays out, as in a watch of its own.
func (a *API) before(ctx context.Context, rev int64, c changes) error {
	var ask []string
	for _, key := range needed(c) {
		ch := c[key]
		if ch.now != nil && ch.now.Version == 1 {
			continue // there was nothing
		}
		var ok bool
		if ch.old, ok = a.past.get(key); !ok {
			ask = append(ask, key)
		}
		c[key] = ch
	}
	for part := range slices.Chunk(ask, askAtOnce) {
		ops := make([]clientv3.Op, len(part))
		for i, key := range part {
			ops[i] = clientv3.OpGet(key, clientv3.WithRev(rev-1), clientv3.WithSerializable())
		}
		ctx, cancel := context.WithTimeout(ctx, a.o.Timeout)
		resp, err := a.kv.Txn(ctx).Then(ops...).Commit()
		cancel()
		if errors.Is(err, rpctypes.ErrCompacted) {
			continue
		}
		if err != nil {
			return err
		}
		for i, key := range part {
			ch := c[key]
			ch.old = kvAt(resp, i)
			c[key] = ch
		}
	}
	return nil
}

// needed gives the changed keys of whose past something will be told.
func needed(c changes) (keys []string) {
	if last := c[sideLast].now; last != nil {
		var r record
		if json.Unmarshal(last.Value, &r) == nil {
			for _, key := range []string{r.Key, sideDetail + r.Key, dirKey(r.Key), sideDetail + dirKey(r.Key)} {
				if _, ok := c[key]; ok {
					keys = append(keys, key)
				}
			}
			if len(keys) > 0 {
				return keys
			}
		}
	}
	for key := range c {
		if key != sideLast && !strings.HasPrefix(key, sideNext) {
			keys = append(keys, key)
		}
	}
	return keys
}
