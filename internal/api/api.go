// Package api is the wire contract of Flota: the JSON types, the HTTP handlers that serve them under /v1, and the Go
// client that speaks to them. Subroom fleet serves fleet's v1 API beside it.
//
// The invariant: any machine answers any question; what only another machine knows (logs, statistics) is asked of that machine.
// The api is the one writer of units/, and with room admit, which it puts on the wire, of machines/. It never decides where a unit runs. What a
// request may do depends on where it came from (caller.go): the own socket, plain HTTP on loopback, a machine of the cluster, or one
// that joins or renews its certificate.
//
// Start reading at Unit and Machine below, then the table of routes (routes.go), cluster (cluster.go: how answers are read) and modify
// (write.go: how everything is changed), and Client (client.go, calls.go). It is larger than other rooms, because server and client
// share one table of errors, one form of streams and one list of routes, and would drift apart in two rooms.
package api

import (
	"time"

	"flota/internal/driver"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/unit"
)

// Unit is everything known of one unit.
type Unit struct {
	unit.Unit
	Hash    string      `json:"hash"`
	Global  bool        `json:"global,omitempty"`
	Current unit.Target `json:"current,omitempty"` // fleet's currentState; empty for global units
	Places  []Place     `json:"places,omitempty"`
	States  []State     `json:"states,omitempty"`
	Waiting string      `json:"waiting,omitempty"` // why it has no place though it wants one
	Notes   []string    `json:"notes,omitempty"`   // warnings about the unit file, given when it was stored
}

// Place says on which machine a unit is and why; unit.Place without the copy of the unit.
type Place struct {
	Machine machine.ID `json:"machine"`
	Name    string     `json:"name"` // of the machine
	Addr    string     `json:"addr,omitempty"`
	Since   time.Time  `json:"since"`
	Reason  string     `json:"reason"`
	Leaving bool       `json:"leaving,omitempty"`
}

// State is a unit's state with the name and address of the machine that reports it.
type State struct {
	unit.State
	Name string `json:"name"`
	Addr string `json:"addr,omitempty"`
}

// Machine is everything known of one machine.
type Machine struct {
	machine.Machine
	Presence *machine.Presence `json:"presence,omitempty"` // absent: the machine is not there
	All      map[string]string `json:"all,omitempty"`      // labels, its own and those set
	Status   string            `json:"status"`             // ready, gone, drained, leaving, restarting
	Leader   bool              `json:"leader,omitempty"`
	Units    int               `json:"units"` // places on it
}

// Status is the cluster at a glance.
type Status struct {
	Version   string         `json:"version"`
	Answered  string         `json:"answered"` // name of the machine that answers
	Leader    string         `json:"leader,omitempty"`
	Store     store.Health   `json:"store"`
	Machines  []Machine      `json:"machines"`
	Units     map[string]int `json:"units"`              // how many by state: active, failed, waiting, ...
	Attention []string       `json:"attention"`          // what wants a person's attention, most urgent first
	Advice    []string       `json:"advice,omitempty"`   // what would make the cluster better; nothing is wrong
	External  bool           `json:"external,omitempty"` // the store is the user's own: its members are none of the machines, and not managed
	Stale     bool           `json:"stale,omitempty"`
}

// PutUnit creates or changes a unit: PUT /v1/units/<name>.
type PutUnit struct {
	Text    string        `json:"text,omitempty"`    // the unit file, or
	Options []unit.Option `json:"options,omitempty"` // its options
	Replace bool          `json:"replace,omitempty"` // overwrite another content; else fault.Conflict
	Strict  bool          `json:"strict,omitempty"`  // refuse what would only be warned of
}

// SetTarget wants a state: POST /v1/units/<name>/target.
type SetTarget struct {
	Target unit.Target `json:"target"`
	// Start a unit anew: "" only if it is not launched; "down" also if it is launched but neither active nor on its way (what
	// `flota start` does); "always" whatever it does now (what `flota restart` does).
	Anew string `json:"anew,omitempty"`
}

// Why answers `flota why`: POST-free, GET /v1/units/<name>/why and /v1/machines/<name>/why.
type Why struct {
	Subject   string   `json:"subject"`
	Sentences []string `json:"sentences"` // the answer, most important first
	Events    []Event  `json:"events,omitempty"`
}

// Event is something that happened in the cluster, in a sentence.
type Event struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Unit    unit.Name `json:"unit,omitempty"`
	Machine string    `json:"machine,omitempty"` // its name
	Text    string    `json:"text"`
}

// PlanRequest asks what would happen: POST /v1/plan. Nothing is changed.
type PlanRequest struct {
	Kill      []string  `json:"kill,omitempty"`  // machines, by name or id
	Drain     []string  `json:"drain,omitempty"` // machines
	Add       []AddUnit `json:"add,omitempty"`
	Rebalance bool      `json:"rebalance,omitempty"`
}

// AddUnit is a unit that does not exist yet, for PlanRequest.
type AddUnit struct {
	Name unit.Name `json:"name"`
	Text string    `json:"text"`
}

// Plan is what would happen. Names of machines are in Names.
type Plan struct {
	scheduler.Plan
	Names map[machine.ID]string `json:"names"`
}

// LogLine is one line of a unit's output, with the name of the machine that it ran on.
type LogLine struct {
	driver.LogLine
	Machine string `json:"machine"`
}

// Problem is the body of every error (RFC 9457, application/problem+json).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Kind   string `json:"kind"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}
