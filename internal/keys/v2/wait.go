package v2

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// wait answers a request for the next events.
func (a *API) wait(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) {
	now, term, stale, bad := a.now(ctx)
	if bad != nil {
		bad.write(w)
		return
	}
	since := q.waitIndex
	if since == 0 {
		since = now + 1
	}
	x, bad := a.window.watch(q.key, q.recursive, q.stream, since, now)
	if bad != nil {
		bad.write(w)
		return
	}
	defer x.stop()
	if stale {
		w.Header().Set(StaleHeader, "true")
	}
	putIndex(w.Header(), now, term)
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush() // the client is to know that it waits
	for _, ev := range x.past {
		if !a.send(w, out, ev) || !q.stream {
			return
		}
	}
	x.past = nil
	for {
		select {
		case ev, ok := <-x.next:
			if !ok || !a.send(w, out, ev) || !q.stream {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// send writes one event as a line, and says whether the client took it in time.
func (a *API) send(w http.ResponseWriter, out *http.ResponseController, ev *Event) bool {
	b, err := json.Marshal(ev)
	if err != nil {
		return false
	}
	_ = out.SetWriteDeadline(time.Now().Add(a.o.Grace)) // not every writer has deadlines
	if _, err := w.Write(append(b, '\n')); err != nil {
		return false
	}
	err = out.Flush()
	_ = out.SetWriteDeadline(time.Time{})
	return err == nil
}

// now gives the store's index, and makes sure that all that v2 clients have written up to then is in the window. Without a quorum it is what this
// machine knows, and stale.
func (a *API) now(ctx context.Context) (index, term uint64, stale bool, bad *problem) {
	resp, stale, err := a.last(ctx)
	if err != nil {
		return 0, 0, false, failed(err)
	}
	a.note(resp.Header)
	written := uint64(0)
	if len(resp.Kvs) > 0 {
		written = uint64(resp.Kvs[0].ModRevision)
	}
	for {
		ok, moved := a.window.reached(written)
		if ok {
			return uint64(resp.Header.Revision), resp.Header.RaftTerm, stale, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, 0, false, failed(ctx.Err())
		}
	}
}

// last reads when v2 was last written; stale says that no quorum answered.
func (a *API) last(ctx context.Context) (resp *clientv3.GetResponse, stale bool, err error) {
	first, cancel := context.WithTimeout(ctx, a.o.Timeout/3)
	defer cancel()
	resp, err = a.kv.Get(first, sideLast, clientv3.WithKeysOnly())
	if err != nil {
		stale = true
		resp, err = a.kv.Get(ctx, sideLast, clientv3.WithKeysOnly(), clientv3.WithSerializable())
	}
	return resp, stale, err
}
