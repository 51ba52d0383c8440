package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flota/internal/admit"
	"flota/internal/api/fleet"
	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/view"
)

// Options are what a Server needs of its machine. ID, Name, Store and Driver must be set.
type Options struct {
	ID      machine.ID
	Name    string // the machine's name
	Version string // of the program
	Store   *store.Store
	// View gives this voter's picture of the cluster; nil, or a nil answer, on a machine that is no voter now: events are then asked of a
	// voter, and since when a machine is gone is not told.
	View   func() *view.View
	Driver driver.Driver
	// Desk lets machines in and out; nil (tests): nobody comes or goes.
	Desk *admit.Desk
	// Dial makes every connection to another machine's API, verified on both sides; addr is host:port. nil dials plain TCP (tests).
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Halt shuts this machine down cleanly; it returns when its units have been taken elsewhere or that failed. nil: it cannot.
	Halt func(ctx context.Context) error
	// StoreConn connects to this voter's store; nil, or fault.Unavailable, on a machine that is no voter now.
	StoreConn func(ctx context.Context) (net.Conn, error)
	// KeysConn connects to the applications' keys at this voter; nil, or fault.Unavailable, on a machine that is no voter now.
	KeysConn func(ctx context.Context) (net.Conn, error)
	// Leave takes this machine out of the cluster; when it has returned, nothing needs the machine any more. nil: Desk.Leave.
	Leave func(ctx context.Context, o admit.RemoveOptions) error
	// Recover makes a cluster of one voter out of this machine's copy of the store, telling each step. nil: it cannot.
	Recover func(ctx context.Context, q Recover, tell func(string)) error
	// Backup writes a consistent copy of the store. nil: it cannot.
	Backup func(ctx context.Context, w io.Writer) error
	// Certificate gives when this machine's certificate was made and until when it is valid; nil: it has none (tests).
	Certificate func() (made, ends time.Time)
	// ReplaceAfter is how long a voter may be away before it is replaced, for the status; 0: 60 s.
	ReplaceAfter time.Duration
	// External: the store is one that the user runs; no machine is a voter.
	External bool
	// Warnings gives what other rooms of this machine want a person's attention for; nil: nothing. Shown in the status.
	Warnings func() []string
	// Rebalance carries a rebalancing out, as the leader: fault.Conflict if this machine does not lead. nil: it never does.
	Rebalance func(ctx context.Context) (scheduler.Plan, error)
	Log       *slog.Logger         // nil logs nothing
	Metrics   *prometheus.Registry // nil makes one
}

// Server answers the API on this machine. Make one with New. Safe for concurrent use.
type Server struct {
	Options
	metrics *metrics
	routes  []route
	fleet   http.Handler
	clocks  clocks
	lost    atomic.Int64 // when a read last found no quorum, as Unix milliseconds
}

// New gives a server; it serves nothing yet.
func New(o Options) *Server {
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if o.ReplaceAfter == 0 {
		o.ReplaceAfter = defaultReplace
	}
	s := &Server{Options: o}
	s.routes = s.table()
	s.fleet = fleet.New(fleetBackend{s}, fleet.Options{Log: o.Log})
	s.metrics = newMetrics(s)
	return s
}

// maxBody is the largest body of a request. A unit is at most 1 MiB as text and as options; JSON quoting takes some more.
const maxBody = 2 << 20

// maxDrain is how much of a body that is too large is read and dropped, so that the client gets to read the answer.
const maxDrain = 64 << 20

// Deadlines on a connection.
const (
	bodyPatience   = 30 * time.Second // for the whole body of a request
	answerDeadline = 60 * time.Second // for answering a request that is no stream
)

// Handler serves the API to callers of one kind.
func (s *Server) Handler(k Kind) http.Handler {
	if k == Joiners || k == Renewers {
		return s.door(k)
	}
	mux := http.NewServeMux()
	for _, r := range s.routes {
		mux.Handle(r.method+" "+r.path, s.wrap(r.path, s.plain(func(w http.ResponseWriter, q *http.Request) error {
			if err := mayAsk(r.may, q); err != nil {
				return err
			}
			r.handler.ServeHTTP(w, q)
			return nil
		})))
	}
	for _, path := range s.paths() {
		mux.Handle(path, s.wrap(path, s.plain(s.badMethod(path))))
	}
	mux.Handle("GET /metrics", s.wrap("/metrics", s.metrics.handler()))
	for _, prefix := range []string{"/fleet/v1", "/v1-alpha"} {
		h := s.wrap(prefix, http.StripPrefix(prefix, s.fleet))
		mux.Handle(prefix, h)
		mux.Handle(prefix+"/", h)
	}
	mux.Handle("/", s.wrap("", s.plain(noRoute)))
	return s.safe(identified(k, s.guard(k, mux)))
}

// door serves the one route that machines without a valid certificate have.
func (s *Server) door(k Kind) http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes {
		if r.may.has(k) {
			mux.Handle(r.method+" "+r.path, s.wrap(r.path, r.handler))
		}
	}
	mux.Handle("/", s.wrap("", s.plain(noRoute)))
	return s.safe(identified(k, s.guard(k, mux)))
}

// noRoute answers paths that are not there.
func noRoute(_ http.ResponseWriter, r *http.Request) error {
	return fault.WithHint(fault.New(fault.NotFound, "there is no %q here", r.URL.Path), "GET /v1/openapi.json lists what there is")
}

// wrap counts the request and gives it its deadlines.
func (s *Server) wrap(path string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerDeadline))
		c := &counted{ResponseWriter: w}
		defer func() { s.metrics.request(path, r.Method, c.status) }()
		h.ServeHTTP(c, r)
	})
}

// counted remembers the status of an answer.
type counted struct {
	http.ResponseWriter
	status int // 0: nothing was answered yet
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *counted) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// plain makes a handler of a function whose error becomes a problem.
func (s *Server) plain(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			s.problem(w, r, err)
		}
	})
}

// problem answers with err.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // nobody is there to read it
	}
	p := ProblemOf(err, s.Name)
	if p.Kind == internalKind {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	b, _ := json.Marshal(p)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

// safe turns a panic into a 500 with an entry in the log.
func (s *Server) safe(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counted{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			s.Log.Error("a request made the API panic", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			if c.status != 0 {
				panic(http.ErrAbortHandler) // half an answer is out: break the connection so that it is not taken for a whole one
			}
			s.problem(w, r, fault.New(fault.Internal, "panic: %v", v))
		}()
		h.ServeHTTP(c, r)
	})
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "send the answer")
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerDeadline))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
	return nil
}

// answerRead sends what was read, marked if it may be old.
func answerRead(w http.ResponseWriter, stale bool, v any) error {
	if stale {
		w.Header().Set(StaleHeader, "true")
	}
	return answer(w, http.StatusOK, v)
}

// body reads the JSON body of a request into v. An unknown field is refused, because it is a misspelt one. fault.Invalid.
func body(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return fault.New(fault.Invalid, "the body is empty, want JSON")
		}
		return fault.Wrap(fault.Invalid, err, "read the body")
	}
	if _, err := d.Token(); err != io.EOF {
		return fault.New(fault.Invalid, "read the body: something follows the JSON")
	}
	return nil
}
