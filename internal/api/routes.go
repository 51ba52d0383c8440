package api

import (
	_ "embed" // for the API's document
	"net/http"
	"slices"
	"strings"

	"flota/internal/fault"
)

// openAPI describes the API; it is kept by hand, and a test holds it and the routes together.
//
//go:embed openapi.json
var openAPI []byte

// route is one method of one path.
type route struct {
	method, path string
	handler      http.Handler
	local        bool // only on the machine's own socket
}

// table is the whole of /v1.
func (s *Server) table() []route {
	at := func(method, path string, f func(http.ResponseWriter, *http.Request) error) route {
		return route{method: method, path: path, handler: s.plain(f)}
	}
	local := func(method, path string, f func(http.ResponseWriter, *http.Request) error) route {
		r := at(method, path, f)
		r.local = true
		return r
	}
	return []route{
		at("GET", "/v1/status", s.getStatus),
		at("GET", "/v1/version", s.version),
		at("GET", "/v1/health", s.health),
		at("GET", "/v1/openapi.json", s.document),
		at("GET", "/v1/units", s.listUnits),
		at("GET", "/v1/units/{name}", s.getUnit),
		at("PUT", "/v1/units/{name}", s.putUnit),
		at("DELETE", "/v1/units/{name}", s.deleteUnit),
		at("POST", "/v1/units/{name}/target", s.setTarget),
		at("POST", "/v1/units/{name}/reload", s.reload),
		at("POST", "/v1/units/{name}/reset-failed", s.resetFailed),
		at("GET", "/v1/units/{name}/why", s.whyUnit),
		at("GET", "/v1/units/{name}/logs", s.logs),
		at("GET", "/v1/machines", s.listMachines),
		at("GET", "/v1/machines/{name}", s.getMachine),
		at("PATCH", "/v1/machines/{name}", s.patchMachine),
		at("DELETE", "/v1/machines/{name}", s.removeMachine),
		at("POST", "/v1/machines/{name}/drain", s.drain),
		at("POST", "/v1/machines/{name}/resume", s.resume),
		at("GET", "/v1/machines/{name}/why", s.whyMachine),
		at("POST", "/v1/plan", s.plan),
		at("POST", "/v1/rebalance", s.rebalance),
		at("GET", "/v1/events", s.events),
		at("GET", "/v1/watch", s.watch),
		at("GET", "/v1/store", s.serveStore),
		at("GET", "/v1/keyfront", s.serveKeys),
		// Only root may open keys: the TCP listener does not know who asks, and a token made there would make tokens worthless.
		local("GET", "/v1/keytokens", s.listKeyTokens),
		local("POST", "/v1/keytokens", s.makeKeyToken),
		local("DELETE", "/v1/keytokens/{id}", s.revokeKeyToken),
		local("POST", "/v1/halt", s.halt),
	}
}

// paths gives each path of the table once.
func (s *Server) paths() []string {
	var all []string
	for _, r := range s.routes {
		if !slices.Contains(all, r.path) {
			all = append(all, r.path)
		}
	}
	return all
}

// badMethod answers a path that does not know the request's method: 405.
func (s *Server) badMethod(path string) func(http.ResponseWriter, *http.Request) error {
	var known []string
	for _, r := range s.routes {
		if r.path == path {
			known = append(known, r.method)
		}
	}
	allow := strings.Join(known, ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return withStatus(http.StatusMethodNotAllowed, fault.New(fault.Invalid, "%s is not possible here, only %s", clip(r.Method), allow))
	}
}

// document answers GET /v1/openapi.json.
func (s *Server) document(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI)
	return nil
}
