package voter

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
)

// StewardOptions are what a steward needs. ID, Store, Engine and Log must be set.
type StewardOptions struct {
	ID    machine.ID
	Store *store.Store
	// Engine gives this machine's member, or nil while it has none that votes. Local.Engine is such a function.
	Engine   func() Engine
	Settings quorum.Settings
	// Removing says of a machine in the table that it is to be forgotten as soon as its vote has been handed over; nil: none.
	Removing func(machine.Machine) bool
	// Runs gives, from its presence, the engine's ID (hex) of the member that a machine says it runs; "": it does not say. nil: none do.
	Runs func(machine.Presence) string
	Log  *slog.Logger
}

// Status is what the steward of this machine knows. The zero value: another machine leads.
type Status struct {
	Leads   bool          `json:"leads"`
	Planned time.Time     `json:"planned,omitzero"` // when the last plan was made
	Voters  int           `json:"voters"`           // how many are wanted
	Members []Part        `json:"members,omitempty"`
	Doing   []quorum.Step `json:"doing,omitempty"` // what the last plan wants done, the next one first
	Since   time.Time     `json:"since,omitzero"`  // since when Doing begins with the step that it begins with
	Waiting []string      `json:"waiting,omitempty"`
	Trouble string        `json:"trouble,omitempty"` // why the last step, or the plan itself, failed; it is tried again
}

// Part is one member of the store.
type Part struct {
	Machine machine.ID   `json:"machine,omitempty"` // "" for one of no known machine
	Name    string       `json:"name"`
	Role    machine.Role `json:"role"`
	Member  string       `json:"member"`
	Alive   bool         `json:"alive"`
	Since   time.Time    `json:"since,omitzero"`
	Reason  string       `json:"reason,omitempty"`
}

// Steward keeps the store's members as they should be while this machine leads. Make one with NewSteward, run it with Run on every machine:
// it acts only where Flota's leader is, and learns elsewhere since when machines are away. Status may be called at any time.
type Steward struct {
	opts StewardOptions
	seen *sight

	mu     sync.Mutex // guards status
	status Status
}

// NewSteward makes a steward that has seen nothing yet.
func NewSteward(o StewardOptions) *Steward {
	return &Steward{opts: o, seen: newSight(o.Store)}
}

// Status is how things were after the last plan or step.
func (s *Steward) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run follows the machines, and acts whenever this machine leads, until ctx ends; then it returns nil.
func (s *Steward) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.seen.run(ctx) })
	g.Go(func() error {
		s.loop(ctx)
		return nil
	})
	return g.Wait()
}

// Between two plans: soon after one that did something, or that waits for members to get ready, which no table tells of; rarely when all is
// well, for what somebody did to the engine behind the cluster's back.
const (
	soon   = 50 * time.Millisecond
	retry  = 500 * time.Millisecond
	rarely = 30 * time.Second
)

// loop plans and acts until ctx ends.
func (s *Steward) loop(ctx context.Context) {
	for ctx.Err() == nil {
		leader, changed := s.seen.look()
		pause := rarely
		if leader == s.opts.ID {
			pause = s.round(ctx)
		} else {
			s.show(Status{})
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// round makes one plan and carries it out as far as it goes; pause is when to make the next one if nothing changes.
func (s *Steward) round(ctx context.Context) (pause time.Duration) {
	engine := s.opts.Engine()
	if engine == nil {
		s.trouble(fault.New(fault.Unavailable, "this machine leads, but its member of the store does not vote"))
		return retry
	}
	now, err := s.read(ctx, engine)
	if err != nil {
		s.trouble(err)
		return retry
	}
	plan := quorum.Make(now.input, time.Now())
	s.plan(now, plan)
	for i, step := range plan.Steps {
		err := s.lead(ctx, now.guard)
		if err == nil {
			err = s.do(ctx, engine, now, step)
		}
		if err != nil {
			s.failed(step, err)
			return retry
		}
		s.did(step, plan.Steps[i+1:])
	}
	switch until := time.Until(plan.Next); {
	case len(plan.Steps) > 0:
		return soon
	case len(plan.Waiting) > 0:
		return retry
	case !plan.Next.IsZero() && until < rarely:
		return max(until, soon)
	}
	return rarely
}
