// Package quorum decides which machines hold the store and which of them vote: from the machines, the members that the store's engine has
// and the votes that are written down, it gives the next steps towards what should be, each with its reason.
//
// The invariant: no step of a plan takes the working majority away, if the voters that are there are one; the size of the store does not
// shrink because machines are merely away (it does when one is removed, and a machine that is away then cannot be made a voter); and when nothing changes any more, a bounded number of plans ends in one without steps.
//
// What should be, by the number of machines: one voter for 1; one voter and a learner for 2; three voters from 3; five from 7. Voters are
// spread over zones; a voter that is gone for Settings.Replace is replaced if a live machine can take its place, and stays a member otherwise.
//
// It reads no clock and does nothing itself: room voter carries the steps out, in their order, and may stop after any of them: the next plan is
// made from what there is then.
//
// Start reading at Input, Plan and Make; want.go says what should be, step.go how to get there.
package quorum

import (
	"strconv"
	"time"

	"flota/internal/machine"
)

// Defaults and limits of Settings.
const (
	// DefaultReplace is long enough for a restart of a machine's agent and most boots, and leaves a minute of the 2 min in which a dead voter
	// is to be replaced.
	DefaultReplace = 60 * time.Second
	// DefaultSettle keeps a machine that comes and goes from taking votes from those that stay.
	DefaultSettle = 5 * time.Minute
	// DefaultHandoff is how long a machine has to move to other machines' members before its own is removed: a few round trips.
	DefaultHandoff = time.Second
	// DefaultStall is how long a learner may take to be ready before another machine is tried beside it: 2 GiB, the largest store, over a
	// line of 60 Mbit/s.
	DefaultStall = 5 * time.Minute
	// MaxVoters is the most voters of a store: with five, two may fail; more cost every write time and gain little.
	MaxVoters = 5
)

// Settings are what an operator may choose. The zero value is the default.
type Settings struct {
	Replace time.Duration // how long a voter is away before another machine takes its place; 0: DefaultReplace
	Voters  int           // the most voters wanted, rounded down to an odd number; 0: by the number of machines
	Settle  time.Duration // how long a machine that was away must be back before a working voter makes room for it; 0: DefaultSettle
	Handoff time.Duration // between Release and Remove; 0: DefaultHandoff
	Stall   time.Duration // after which a learner that is not ready is no longer counted on; 0: DefaultStall
}

// Machine is one machine of the cluster's table as the steward sees it now.
type Machine struct {
	ID      machine.ID
	Name    string
	Zone    string // its label "zone"; "" is a zone as well
	Peer    string // host:port where its member listens, or would; "" is unknown: it cannot get one
	Joined  time.Time
	Alive   bool      // its presence is there
	Lost    time.Time // when its presence went; means nothing while Alive
	Back    time.Time // since when it is there again; zero: it was never away, as far as is known
	Witness bool      // only ever votes: needed where there are fewer than three others
	Drained bool      // others are preferred
	Leaving bool      // it shuts down: others are preferred, but it may come back
	// Removing machines are to be forgotten: they are no longer counted, and hand everything over before they go.
	Removing bool
	// Member is the engine's ID, in hex, of the member that the machine says it runs. A machine that is there and says another one than the engine
	// has for it is as good as away. "" is unknown, which is never a reason.
	Member string
}

// Member is one member of the store as its engine lists it.
type Member struct {
	ID      string // of the engine, in hex: see MemberID
	Name    string // the machine's name; "" until it has started once
	Peer    string
	Learner bool
	Started bool
}

// MemberID writes an engine's member ID as it stands in a machine.Vote.
func MemberID(id uint64) string { return strconv.FormatUint(id, 16) }

// Input is all that a plan is made of. Order does not matter.
type Input struct {
	Machines []Machine
	Members  []Member
	Votes    map[machine.ID]machine.Vote
	Settings Settings
}

// Kind says what a step does.
type Kind string

// The kinds of step.
const (
	Add     Kind = "add"     // make the engine know a new learner at Peer, then write its vote down
	Record  Kind = "record"  // write down what the engine has: Member with Role
	Promote Kind = "promote" // make the learner Member a voter, then write it down; fails, and is tried again, while its copy is not complete
	Release Kind = "release" // write the role Client down, so that the machine moves to others' members while its own still runs
	Remove  Kind = "remove"  // take Member out of the engine, then delete the vote
	Forget  Kind = "forget"  // delete a vote without a member
)

// Step is one thing to do.
type Step struct {
	Kind    Kind         `json:"kind"`
	Machine machine.ID   `json:"machine,omitempty"` // "" for a member that belongs to no known machine
	Name    string       `json:"name"`              // of the machine, for people
	Member  string       `json:"member,omitempty"`  // what the step is about; "" for Add and Forget
	Peer    string       `json:"peer,omitempty"`
	Role    machine.Role `json:"role,omitempty"` // of Record: what to write
	Reason  string       `json:"reason"`
}

// String is the step in a line: "promote m3: …".
func (s Step) String() string { return string(s.Kind) + " " + s.Name + ": " + s.Reason }

// Plan is what Make gives. The zero value is a store that is as it should be.
type Plan struct {
	Steps   []Step    // in the order to be carried out; one that fails ends the round
	Waiting []string  // what is not as it should be and cannot be changed now, and why
	Next    time.Time // when time alone changes the plan; zero: never
	Voters  int       // how many voters are wanted now
}
