package v2

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// formOverhead is what a request's body may hold besides the value: field names and the other fields.
const formOverhead = 64 << 10

// StaleHeader marks what was read from a machine's copy without a quorum and may be old. It is the API's word for it, and the v3 front's.
const StaleHeader = "Flota-Stale"

// methods are those that keys answer to, as etcd names them.
const methods = "HEAD,GET,PUT,POST,DELETE"

// ServeHTTP answers /v2/…, /version and /health; all else is not found.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	if p := tidy(r.URL.Path); p != r.URL.Path && r.Method != http.MethodConnect {
		u := url.URL{Path: p, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, u.String(), http.StatusMovedPermanently)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// tidy removes doubled slashes and dots from a URL's path, and leaves the slash at its end. The redirect to it says 301, which Go's own does no more.
func tidy(p string) string {
	if p == "" {
		return "/"
	}
	t := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && t != "/" {
		t += "/"
	}
	return t
}

// smallAnswer is what the kernel takes at once for any client, so that nobody needs to be waited for: half of the 16 KiB that Linux gives a new
// connection to send from.
const smallAnswer = 8 << 10

// keys answers /v2/keys.
func (a *API) keys(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodHead, http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		w.Header().Set("Allow", methods)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.o.Timeout)
	defer cancel()
	a.putCluster(ctx, w)
	q, bad := a.read(w, r)
	switch {
	case bad != nil:
		bad.write(w)
	case q.wait:
		a.wait(ctx, w, r, q)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		a.answerGet(ctx, w, q)
	default:
		ev, term, bad := a.change(ctx, q)
		a.stats.count(q.action(), bad == nil)
		if bad != nil {
			bad.write(w)
			return
		}
		a.answer(w, ev, ev.index, term, q.noValue)
	}
}

// read takes a request in, within the limits of size and time.
func (a *API) read(w http.ResponseWriter, r *http.Request) (q request, bad *problem) {
	if r.Body != nil && r.Body != http.NoBody {
		// Not every writer has deadlines: tests' have none.
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(a.o.Grace))
		defer func() {
			if bad == nil { // else the server reads on in what is left of the body, and must not do so for ever
				_ = rc.SetReadDeadline(time.Time{})
			}
		}()
		r.Body = http.MaxBytesReader(w, r.Body, int64(3*a.o.MaxValue+formOverhead)) // a form needs up to 3 bytes for one
	}
	q, bad = parse(r)
	switch {
	case bad != nil:
	case len(q.value) > a.o.MaxValue:
		bad = refuse(invalidForm, 0, "the value is larger than "+strconv.Itoa(a.o.MaxValue)+" bytes").with(http.StatusRequestEntityTooLarge)
	case len(above(q.key)) > maxDepth:
		bad = refuse(invalidField, 0, "a key of more than 50 names")
	}
	return q, bad
}

// answerGet answers a read. Where no quorum answers, a read that does not insist gets what this machine knows, marked as stale.
func (a *API) answerGet(ctx context.Context, w http.ResponseWriter, q request) {
	first, cancel := ctx, context.CancelFunc(func() {})
	if !q.quorum {
		first, cancel = context.WithTimeout(ctx, a.o.Timeout/3)
	}
	defer cancel()
	ev, l, bad := a.get(first, q, false)
	if bad != nil && bad.Code == internal && !q.quorum && bad.Cause != errTooLong.Error() {
		var old *problem
		if ev, l, old = a.get(ctx, q, true); old == nil || old.Code != internal {
			bad = old
			w.Header().Set(StaleHeader, "true")
		}
	}
	a.stats.count(actGet, bad == nil)
	if bad != nil {
		bad.write(w)
		return
	}
	a.answer(w, ev, uint64(l.rev), l.term, false)
}

// putCluster sets the header that every answer has.
func (a *API) putCluster(ctx context.Context, w http.ResponseWriter) {
	if a.cluster.Load() == 0 { // nothing has been heard of the store yet
		if resp, err := a.kv.Get(ctx, sideLast, clientv3.WithSerializable()); err == nil {
			a.note(resp.Header)
		}
	}
	w.Header().Set("X-Etcd-Cluster-Id", strconv.FormatUint(a.cluster.Load(), 16))
}

// putIndex sets the headers of a success. The v3 API tells no raft index, so the store's index stands for it.
func putIndex(h http.Header, index, term uint64) {
	h.Set("Content-Type", "application/json")
	h.Set("X-Etcd-Index", strconv.FormatUint(index, 10))
	h.Set("X-Raft-Index", strconv.FormatUint(index, 10))
	h.Set("X-Raft-Term", strconv.FormatUint(term, 10))
}

// answer sends an event as the outcome of a request.
func (a *API) answer(w http.ResponseWriter, ev *Event, index, term uint64, noValue bool) {
	status := http.StatusOK
	if ev.Action == actCreate || ev.Action == actSet && ev.PrevNode == nil {
		status = http.StatusCreated
	}
	if noValue {
		switch ev.Action {
		case actSet, actUpdate, actCreate, actSwap:
			ev = &Event{Action: ev.Action}
		}
	}
	b, err := json.Marshal(ev)
	if err != nil { // a time after the year 9999
		failed(err).write(w)
		return
	}
	putIndex(w.Header(), index, term)
	w.WriteHeader(status)
	if len(b) < smallAnswer {
		_, _ = w.Write(append(b, '\n')) // who is not there any more need not be told
		return
	}
	out := http.NewResponseController(w)
	_ = out.SetWriteDeadline(time.Now().Add(a.o.Grace + time.Duration(len(b)>>10)*time.Millisecond)) // a second more for each MiB
	_, _ = w.Write(append(b, '\n'))
	_ = out.Flush()
	_ = out.SetWriteDeadline(time.Time{})
}

// cause gives an error of the store in words that do not name its parts.
func cause(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "etcdserver: request timed out, perhaps for want of a quorum"
	}
	return rpctypes.ErrorDesc(err)
}
