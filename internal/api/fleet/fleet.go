// Package fleet serves fleet's v1 API, so that a fleetctl of 2017 and programs written for fleet work with a Flota cluster
// as they are. It knows fleet's paths, words, messages and status codes, and nothing of how a cluster works: that is Backend's.
//
// The invariant: what a client of fleet v1.0.0 relies on is answered as fleet answered it, to the message; facts on fleet,
// sections 2 and 7, say what that is. Where fleet's own answer only hurts (a crash, an empty message with status 500, a state
// that is no state stored for ever) this package gives the answer that fleet meant, and a comment says so.
//
// It keeps no state. Start reading at New, then put in units.go.
package fleet

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/unit"
)

// Unit is a stored unit, where it is and what is reported of it.
type Unit struct {
	unit.Unit
	Global bool         // runs on every machine that fits
	Place  *unit.Place  // the one that is not leaving; nil for none
	State  *unit.State  // what the machine of Place reports; nil for nothing
	States []unit.State // what all machines report, by machine
}

// Machine is a machine that is there.
type Machine struct {
	ID       machine.ID
	Addr     string // IP
	Metadata map[string]string
}

// Backend is the cluster. Its errors are fault errors.
type Backend interface {
	// Units gives all units by name.
	Units(ctx context.Context) ([]Unit, error)
	// Unit gives one unit, or fault.NotFound.
	Unit(ctx context.Context, name unit.Name) (Unit, error)
	// States gives what all machines report, by unit and machine.
	States(ctx context.Context) ([]unit.State, error)
	// Machines gives the machines that are there, by ID.
	Machines(ctx context.Context) ([]Machine, error)
	// Put creates a unit, or gives it this content and target. The options have been checked.
	Put(ctx context.Context, name unit.Name, opts []unit.Option, target unit.Target) error
	// SetTarget wants a state of a unit. A change to launched starts it anew, however short a time it was not to be launched.
	SetTarget(ctx context.Context, name unit.Name, target unit.Target) error
	// Destroy removes a unit, or gives fault.NotFound.
	Destroy(ctx context.Context, name unit.Name) error
	// Label sets metadata of a machine, which need not have joined yet; nil removes.
	Label(ctx context.Context, id machine.ID, set map[string]*string) error
}

// Options are settings. The zero value is fine.
type Options struct {
	Log *slog.Logger     // nil logs nothing
	Now func() time.Time // nil is time.Now
}

// serverName is the Server header. fleet sent "fleetd/" and its version: clients that look at it find the version whose API this is.
const serverName = "fleetd/1.0.0"

// handler serves the API below its prefix.
type handler struct {
	b   Backend
	log *slog.Logger
	now func() time.Time
}

// Serves reports whether the path belongs to this package when it is mounted at /fleet/v1 and /v1-alpha.
func Serves(path string) bool {
	for _, prefix := range []string{"/fleet/v1", "/v1-alpha"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// New gives the handler. It expects paths without the prefix that it is mounted at.
func New(b Backend, o Options) http.Handler {
	h := &handler{b: b, log: o.Log, now: o.Now}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", serverName)
	collection, item, below := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if strings.Contains(item, "/") {
		Fail(w, http.StatusNotFound, "")
		return
	}
	switch {
	case collection == "" && !below:
		Fail(w, http.StatusMethodNotAllowed, "")
	case collection == "units" && item == "":
		h.only(w, r, "only GET supported against this resource", map[string]http.HandlerFunc{"GET": h.listUnits})
	case collection == "units":
		h.only(w, r, "only GET, PUT and DELETE supported against this resource", map[string]http.HandlerFunc{
			"GET":    func(w http.ResponseWriter, r *http.Request) { h.getUnit(w, r, item) },
			"PUT":    func(w http.ResponseWriter, r *http.Request) { h.putUnit(w, r, item) },
			"DELETE": func(w http.ResponseWriter, r *http.Request) { h.deleteUnit(w, r, item) },
		})
	case collection == "state" && item == "":
		h.only(w, r, "only GET supported against this resource", map[string]http.HandlerFunc{"GET": h.listStates})
	case collection == "state":
		h.only(w, r, "only GET supported against this resource", map[string]http.HandlerFunc{
			"GET": func(w http.ResponseWriter, r *http.Request) { h.getState(w, r, item) },
		})
	case collection == "machines" && item == "":
		h.only(w, r, "only GET and PATCH supported against this resource", map[string]http.HandlerFunc{
			"GET": h.listMachines, "PATCH": h.patchMachines,
		})
	case collection == "discovery" && item == "":
		h.discovery(w, r)
	default:
		Fail(w, http.StatusNotFound, "")
	}
}

// only calls the handler of the request's method, or answers 405.
func (h *handler) only(w http.ResponseWriter, r *http.Request, otherwise string, by map[string]http.HandlerFunc) {
	if f := by[r.Method]; f != nil {
		f(w, r)
		return
	}
	Fail(w, http.StatusMethodNotAllowed, otherwise)
}

// Fail answers with an error in fleet's form.
func Fail(w http.ResponseWriter, code int, message string) {
	var e struct {
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	e.Error.Code, e.Error.Message = code, message
	w.Header().Set("Server", serverName)
	send(w, code, e)
}

// send answers with v as JSON.
func send(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":{"code":500,"message":""}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}

// noEtcd begins the message of every answer without a quorum; clients and fleet's tests look for it.
const noEtcd = "fleet server unable to communicate with etcd"

// failed answers with an error of the backend. fleet gives an empty message with every 500; the details are in the log here too.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch fault.KindOf(err) {
	case fault.Invalid:
		Fail(w, http.StatusBadRequest, err.Error())
	case fault.NotFound:
		Fail(w, http.StatusNotFound, "unit does not exist")
	case fault.Conflict, fault.Exists:
		Fail(w, http.StatusConflict, err.Error())
	case fault.Unavailable, fault.TimedOut:
		Fail(w, http.StatusServiceUnavailable, noEtcd+": "+err.Error())
	default:
		if r.Context().Err() == nil {
			h.log.Error("request of a fleet client failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		Fail(w, http.StatusInternalServerError, "")
	}
}
