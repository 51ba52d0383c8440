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
	may          kinds // who may ask
}

// table is the whole of /v1.
func (s *Server) table() []route {
	at := func(method, path string, f func(http.ResponseWriter, *http.Request) error) route {
		return route{method: method, path: path, handler: s.plain(f), may: anybody}
	}
	only := func(may kinds, method, path string, f func(http.ResponseWriter, *http.Request) error) route {
		r := at(method, path, f)
		r.may = may
		return r
	}
	return slices.Concat(s.trustTable(only), []route{
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
		at("POST", "/v1/machines/{name}/remove", s.removeMachine),
		at("POST", "/v1/machines/{name}/drain", s.drain),
		at("POST", "/v1/machines/{name}/resume", s.resume),
		at("GET", "/v1/machines/{name}/why", s.whyMachine),
		at("POST", "/v1/plan", s.plan),
		at("POST", "/v1/rebalance", s.rebalance),
		at("GET", "/v1/events", s.events),
		at("GET", "/v1/watch", s.watch),
		only(members, "GET", "/v1/store", s.serveStore),
		only(members, "GET", "/v1/keyfront", s.serveKeys),
		// Only root may open keys: the TCP listener does not know who asks, and a token made there would make tokens worthless.
		only(rootOnly, "GET", "/v1/keytokens", s.listKeyTokens),
		only(rootOnly, "POST", "/v1/keytokens", s.makeKeyToken),
		only(rootOnly, "DELETE", "/v1/keytokens/{id}", s.revokeKeyToken),
		only(rootOnly, "POST", "/v1/halt", s.halt),
	})
}

// trustTable is the part of /v1 by which machines come in and go, and the cluster is kept.
func (s *Server) trustTable(only func(kinds, string, string, func(http.ResponseWriter, *http.Request) error) route) []route {
	return []route{
		only(of(Local, Machines, Joiners), "POST", "/v1/join", s.join),
		only(of(Local, Machines, Renewers), "POST", "/v1/trust/renew", s.renew),
		only(of(Machines), "GET", "/v1/trust/authority", s.authority),
		only(rootOnly, "GET", "/v1/trust", s.getTrust),
		only(rootOnly, "POST", "/v1/trust/rotate", s.rotate),
		only(rootOnly, "GET", "/v1/tokens", s.listTokens),
		only(rootOnly, "POST", "/v1/tokens", s.makeToken),
		only(rootOnly, "DELETE", "/v1/tokens/{id}", s.revokeToken),
		only(members, "GET", "/v1/cluster", s.getCluster),
		only(rootOnly, "POST", "/v1/leave", s.leave),
		only(rootOnly, "POST", "/v1/recover", s.recover),
		only(rootOnly, "GET", "/v1/backup", s.backup),
		only(rootOnly, "GET", "/v1/backup/schedule", s.getSchedule),
		only(rootOnly, "PUT", "/v1/backup/schedule", s.putSchedule),
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
