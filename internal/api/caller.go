package api

import (
	"context"
	"net/http"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/trust"
)

// Kind is where a request came from, and so what it may do. A listener has one kind for all of its connections.
type Kind int

// The kinds of callers.
const (
	Local    Kind = iota // the socket that only root on this machine can open: everything
	Plain                // HTTP on loopback, from anybody on this host: what people and fleet's clients need
	Machines             // a machine of this cluster, both sides verified: what Plain may, and what machines need of each other
	Joiners              // a machine that is in no cluster yet, verified by nothing: the join request
	Renewers             // a machine of this cluster whose certificate may have expired: the renewal
)

// kinds is a set of Kind.
type kinds uint

// of makes a set.
func of(all ...Kind) (s kinds) {
	for _, k := range all {
		s |= 1 << k
	}
	return s
}

// has says whether k is in the set.
func (s kinds) has(k Kind) bool { return s&(1<<k) != 0 }

// The rights of routes.
var (
	anybody  = of(Local, Plain, Machines)
	rootOnly = of(Local)
	members  = of(Local, Machines)
)

// caller is who sent a request.
type caller struct {
	kind Kind
	id   machine.ID // proved by its certificate; "" for Local, Plain and Joiners
}

// callerKey is where a request's context has its caller.
type callerKey struct{}

// callerOf gives who sent the request.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// identified puts the caller into each request.
func identified(k Kind, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := caller{kind: k}
		if p, ok := trust.PeerOfRequest(r); ok {
			c.id = p.ID
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// rootHeader marks a request that root sent on the socket of the machine that passes it on. It counts from machines of the cluster only.
const rootHeader = "Flota-Root"

// mayAsk refuses a request whose caller has no right to a route: fault.Denied.
func mayAsk(may kinds, r *http.Request) error {
	c := callerOf(r)
	if may.has(c.kind) || may.has(Local) && c.kind == Machines && forwarded(r) && r.Header.Get(rootHeader) != "" {
		return nil
	}
	if may == members {
		return fault.New(fault.Denied, "only machines of the cluster may ask for this, and root on this machine by its socket flota.sock")
	}
	return fault.WithHint(fault.New(fault.Denied, "only the machine itself may ask for this"), "use its socket flota.sock, as root")
}

// isRoot says whether root asked, here or on the machine that passed the request on.
func isRoot(r *http.Request) bool { return mayAsk(rootOnly, r) == nil }
