package v2

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxTries bounds how often a write that others get in the way of is planned anew. Writes of one node through this machine wait for each
// other, so only other machines and v3 clients count.
const maxTries = 64

// errBusy is said when others changed the same node again and again.
var errBusy = errors.New("others changed the same keys too often")

// note remembers what the header of an answer tells.
func (a *API) note(h *pb.ResponseHeader) {
	if h == nil { // of a member that is ending
		return
	}
	a.cluster.Store(h.ClusterId)
	for {
		seen := a.seen.Load()
		if h.Revision <= seen || a.seen.CompareAndSwap(seen, h.Revision) {
			return
		}
	}
}

// change carries a request out and gives its event and the term of the store's leader.
func (a *API) change(ctx context.Context, q request) (*Event, uint64, *problem) {
	w := write{request: q, ends: q.expires(time.Now())}
	for again := true; ; again = false {
		if q.method != http.MethodDelete && w.detail(0).Expires != 0 {
			var err error
			if w.lease, err = a.lease(ctx, w.ends); err != nil {
				return nil, 0, failed(err)
			}
		}
		ev, term, bad := a.attempt(ctx, w)
		if bad != nil && again && errors.Is(bad.err, rpctypes.ErrLeaseNotFound) { // a v3 client revoked it
			a.leases.forget(w.lease)
			continue
		}
		return ev, term, bad
	}
}

// attempt remembers or guesses first, where that is promising; then it looks, decides and commits until nobody got in the way.
func (a *API) attempt(ctx context.Context, w write) (*Event, uint64, *problem) {
	if resp, ev, err := a.remember(ctx, w); resp != nil || err != nil {
		return outcome(resp, ev, err)
	}
	local := true // the look may be old: a guard notices
	if p := w.guess(); p != nil {
		resp, ev, err := a.commit(ctx, p)
		if err != nil || resp.Succeeded {
			return outcome(resp, ev, err)
		}
		local = false
	}
	unlock, ok := a.lock(ctx, w.key)
	if !ok {
		return nil, 0, failed(ctx.Err())
	}
	defer unlock()
	for try := range maxTries {
		l, err := a.lookFor(ctx, w, local)
		if err != nil {
			return nil, 0, failed(err)
		}
		w.after, w.bump = a.seen.Load(), int64(try)
		p, bad := w.decide(l)
		if bad != nil && local { // it may be so because the look was old
			local = false
			continue
		}
		if bad != nil {
			return nil, 0, bad
		}
		resp, ev, err := a.commit(ctx, p)
		if err != nil || resp.Succeeded {
			return outcome(resp, ev, err)
		}
		if local = false; try > 2 {
			pause(ctx, try)
		}
	}
	return nil, 0, failed(errBusy)
}

// outcome is what is said of a commit that is the last.
func outcome(resp *clientv3.TxnResponse, ev *Event, err error) (*Event, uint64, *problem) {
	if err != nil {
		return nil, 0, failed(err)
	}
	return ev, resp.Header.RaftTerm, nil
}

// remember carries out a write of a file that was seen here lately, if it still is as it was; else all it gives is nil.
func (a *API) remember(ctx context.Context, w write) (resp *clientv3.TxnResponse, ev *Event, err error) {
	file, side, ok := a.recent.borrow(w.key, time.Now())
	if !ok {
		return nil, nil, nil
	}
	wrong := false
	defer func() { a.recent.give(w.key, wrong, time.Now()) }()
	p := w.recall(file, side)
	if p == nil {
		return nil, nil, nil
	}
	if resp, ev, err = a.commit(ctx, p); err == nil && !resp.Succeeded {
		wrong = true
		return nil, nil, nil
	}
	return resp, ev, err
}

// lookFor looks at what a write needs to know. For a file that is there already that is nothing but the file.
func (a *API) lookFor(ctx context.Context, w write, local bool) (look, error) {
	switch w.action() {
	case actUpdate, actSwap, actDrop:
		if l, err := a.glance(ctx, w.key, local); err != nil || l.file != nil {
			return l, err
		}
	}
	return a.look(ctx, w.key, local, true)
}

// pause waits some random milliseconds, so that machines do not meet again and again.
func pause(ctx context.Context, try int) {
	t := time.NewTimer(time.Duration(rand.IntN(1000*min(try, 10))) * time.Microsecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// commit asks for a plan's transaction, and gives its event if it succeeded. When a guard does not hold nobody is told why: that question would go through the log of every member with every
// write.
func (a *API) commit(ctx context.Context, p *plan) (*clientv3.TxnResponse, *Event, error) {
	resp, err := a.kv.Txn(ctx).If(p.guards...).Then(p.ops()...).Commit()
	if err != nil {
		return nil, nil, err
	}
	a.note(resp.Header)
	if !resp.Succeeded {
		return resp, nil, nil
	}
	c := p.did(resp)
	a.recall(p.record, c)
	if p.record.Action == actGet { // it only tidied up
		return resp, nil, nil
	}
	return resp, told(p.record, resp.Header.Revision, c, time.Now()), nil
}

// recall remembers the file of a v2 write for the next one.
func (a *API) recall(r record, c changes) {
	a.recent.saw(r.Key, c[r.Key].now, c[sideDetail+r.Key].now)
}

// before gives the one key value that a put or a removal found.
func before(op *pb.ResponseOp) *mvccpb.KeyValue {
	if kv := op.GetResponsePut().GetPrevKv(); kv != nil {
		return kv
	}
	if kvs := op.GetResponseDeleteRange().GetPrevKvs(); len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}
