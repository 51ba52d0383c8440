// Package scheduler decides which machine runs which unit. It is the mind: Make takes everything that is known of the
// cluster and the time, and gives the moves that make the stored places right, each with a reason an operator understands.
//
// The invariant: Make is a pure function. The same cluster in any order and the same now give the same plan; applying a
// plan and planning again gives no moves, but for the next step of a move that takes several (leave, finish;
// stopping an exclusive unit before it starts elsewhere). Nothing is moved that need not move.
//
// It never reads a clock, a disk or the network, starts no goroutine, logs nothing, and changes nothing it is given.
//
// Start reading at Cluster, Plan and Make; then planner (plan.go) for the order of the work, check.go for what may be where
// and pick.go for what is best. Kill, Drain, Add, Rebalance and Apply answer what-if questions with the same function.
package scheduler

import (
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// Unit is a stored unit with its requirements read once. Make one with Prepare, and keep it as long as the
// stored unit is the same: reading 100,000 files for each plan would take seconds.
type Unit struct {
	unit.Unit
	Hash      string     // of the content, as Unit.Hash gives it
	Fleet     unit.Fleet // what [X-Fleet] asks for
	Exclusive bool       // [X-Flota] Exclusive=: never runs twice, so it is stopped before it is started elsewhere
	Needs     unit.Needs // memory and processor time it is counted with; zero is unknown
	Bad       string     // why its options cannot be read; empty when they can. A bad unit is never placed anew.

	conflicts, replaces []glob
	metadata            []wish    // Fleet.Metadata by key
	template            unit.Name // of an instance; "" for none
	wants               string    // MachineID and metadata in one order, to tell equal wishes apart; "" for none
}

// Machine is a machine of the cluster, there or not.
type Machine struct {
	machine.Machine
	Presence *machine.Presence // nil: it is not there
	Lost     time.Time         // since when it is not there; zero is unknown or long ago. Only read when Presence is nil.
	Blinked  time.Time         // when it was lost last though it is there now; zero is never. Evidence for the brake only.
}

// Cluster is everything a plan is made from. The slices may be in any order, and Make does not change them; it is
// quickest when units are sorted by name and places by machine, as the store lists them.
type Cluster struct {
	Machines []Machine
	Units    []Unit
	// Places are as stored. A plan is quicker if those whose unit is as stored share its options slice.
	Places []unit.Place
	// States tells what a machine reports of a unit; ok is false when it reports nothing. nil: nobody reports anything.
	States func(machine.ID, unit.Name) (s unit.State, ok bool)
	// Lease is how long a machine is believed to be there without a sign of life; 0 is DefaultLease. The brake counts
	// machines lost within one lease of each other.
	Lease time.Duration
}

// DefaultLease is the lease of a machine's presence. Source: DESIGN.md section 6.
const DefaultLease = 6 * time.Second

// BrakeFor is how long after the last loss nothing is moved off machines that were lost together. Source: DESIGN.md section 5.
const BrakeFor = 60 * time.Second

// LeaveFor is how long a place that is being left is kept while the unit is not yet active on its new machine. 90 s is
// systemd's default time to start (DefaultTimeoutStartSec=).
const LeaveFor = 90 * time.Second

// Kind says what a move does to the stored places.
type Kind string

// The kinds of move. All of a move's changes are one transaction.
const (
	KindPlace  Kind = "place"  // put the unit on To, where it was on no machine
	KindMove   Kind = "move"   // delete the place on From, put the one on To
	KindRemove Kind = "remove" // delete the place on From
	KindUpdate Kind = "update" // put the place on To again: new content, target or run, or no longer leaving
	KindLeave  Kind = "leave"  // mark the place on From Leaving, put the one on To: start there before stopping here
	KindFinish Kind = "finish" // delete the Leaving place on From
)

// Move is one change of one unit's places.
type Move struct {
	Kind   Kind        `json:"kind"`
	Unit   unit.Name   `json:"unit"`
	From   machine.ID  `json:"from,omitempty"` // empty for place and update
	To     machine.ID  `json:"to,omitempty"`   // empty for remove and finish
	Put    *unit.Place `json:"put,omitempty"`  // what to store at To; nil for remove and finish
	Reason string      `json:"reason"`         // in an operator's words
	// IfGone: the move is right only as long as From has no presence. The leader makes that a condition of the
	// transaction, so that a machine that came back meanwhile keeps its units, and no exclusive unit runs twice.
	IfGone bool `json:"ifGone,omitempty"`
}

// Waiting is a unit that is not where it should be, and why.
type Waiting struct {
	Unit   unit.Name `json:"unit"`
	Reason string    `json:"reason"`
}

// Brake says that units are left on lost machines for now, because so many were lost at once.
type Brake struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// Plan is what to change and what cannot be done.
type Plan struct {
	Moves   []Move    `json:"moves"`             // in the order to carry them out
	Waiting []Waiting `json:"waiting,omitempty"` // by unit name; one for each unit that is not fully placed or must leave and cannot
	Brake   *Brake    `json:"brake,omitempty"`   // nil: it does not hold
	Next    time.Time `json:"next"`              // when to plan again though nothing changed; zero is never
}
