package voter

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"flota/internal/machine"
	"flota/internal/store"
)

// LocalOptions are what Local needs; all must be set but for Found and Now.
type LocalOptions struct {
	ID   machine.ID
	Name string
	// Dir is where the member's data lies (DATA/store). Beside it, old copies are set aside as Dir.old-TIME.
	Dir string
	// Store is over the relay: it works while this machine has no member, through other machines'.
	Store *store.Store
	// Found: this machine made its cluster, so with nothing on disk it starts the first member. It may stay set for ever: a machine founds once,
	// and remembers that in Dir.founded.
	Found bool
	// Start starts a member: etcd.Start with the daemon's addresses and TLS. It may be called again after it failed, and after Close.
	Start func(ctx context.Context, how Start) (Member, error)
	// Changed tells the daemon what this machine is now. It returns when everything uses the new member, or none. Called from one goroutine at a
	// time, before a member is closed (Role{}) and after one can be used. An error is logged and the change goes on: the daemon must not go on using what it
	// was told to leave.
	Changed func(ctx context.Context, r Role) error
	// Authority fetches the cluster's CA key and keeps it; called before a member is started that may come to vote. Tried again on error.
	Authority func(ctx context.Context) error
	// DropAuthority deletes it from this machine, which holds no member any more. It may be called when there is none.
	DropAuthority func() error
	// Epoch is the cluster's epoch as this machine has stored it, SetEpoch stores a higher one (room trust).
	Epoch    func() int
	SetEpoch func(int) error
	// Highest asks other machines for the highest epoch that they know; an error if none answers. It must give up within ctx.
	Highest func(ctx context.Context) (int, error)
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Local is this machine's part in the store. Make it with Open, keep it with Run, end it with Close.
//
// A member that starts from data is used at once, so that stale reads are answered without a quorum; a new one when it is ready.
type Local struct {
	opts LocalOptions
	disk disk
	asks chan ask      // of Recover
	wake chan struct{} // capacity 1: the record has changed, or the member is ready
	high chan int      // a higher epoch was heard of

	// The fields below belong to Open, then Run's goroutine, then Close.
	note     note
	waiting  sync.WaitGroup     // for the member to get ready
	unwait   context.CancelFunc // ends that
	again    time.Duration      // pause before the next attempt
	fetched  bool               // the authority's key is here for a member that has not started yet
	released bool               // the record has told this machine to move off the member
	matched  bool               // a record of the running member has been seen
	orphan   time.Time          // since when there is none any more

	mu     sync.Mutex // guards the fields below
	record *machine.Vote
	read   bool   // record is what the store has
	member Member // nil: none runs
	ready  bool   // member may be used
	role   Role   // as the daemon was told last
	status LocalStatus
}

// LocalStatus is how Local is, for `flota status` of this machine.
type LocalStatus struct {
	Role    machine.Role `json:"role"`
	Member  string       `json:"member,omitempty"` // the engine's ID of the running member, hex
	Doing   string       `json:"doing,omitempty"`  // what is being done: "copying the store"
	Since   time.Time    `json:"since,omitzero"`   // of Doing
	Trouble string       `json:"trouble,omitempty"`
}

// askEpoch bounds asking the other machines for the epoch before data is used: a machine that boots alone must not wait long.
const askEpoch = 2 * time.Second

// Open looks at what is on disk and, if that is a member's data, or this machine is to found its cluster, starts the member. It does not wait for a
// quorum. Changed has been called before it returns if a member runs. An error is the member's own: its data cannot be used now, and
// another attempt belongs into another process.
func Open(ctx context.Context, o LocalOptions) (*Local, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Local{opts: o, disk: disk{o.Dir}, asks: make(chan ask), wake: make(chan struct{}, 1), high: make(chan int)}
	n, ok, err := l.disk.read()
	if err != nil {
		return nil, err
	}
	if l.note = n; !ok {
		l.note.Epoch = o.Epoch()
	}
	if l.disk.holds() && !l.note.Recovering {
		if err := l.checkEpoch(ctx); err != nil {
			return nil, err
		}
	}
	switch {
	case l.disk.holds():
		err = l.begin(ctx, Start{Force: l.note.Recovering})
	case o.Found && !l.disk.founded():
		l.note = note{Epoch: o.Epoch()}
		if err = l.disk.clear(); err == nil {
			err = l.begin(ctx, Start{})
		}
	default:
		return l, o.DropAuthority()
	}
	if err == nil && o.Found {
		err = l.disk.found()
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if !l.note.Recovering { // else Run finishes that first
		l.use(ctx)
	}
	return l, nil
}

// checkEpoch sets data aside that is of the time before a recovery elsewhere. When nobody answers the data is used: a network that is away says nothing.
func (l *Local) checkEpoch(ctx context.Context) error {
	highest := l.opts.Epoch()
	ask, cancel := context.WithTimeout(ctx, askEpoch)
	defer cancel()
	if e, err := l.opts.Highest(ask); err == nil {
		highest = max(highest, e)
	}
	if highest <= l.note.Epoch {
		return nil
	}
	return l.outdated(highest)
}

// outdated sets the data aside and then, not before, takes the epoch over.
func (l *Local) outdated(epoch int) error {
	if err := l.setAside("the cluster was recovered or restored elsewhere"); err != nil {
		return err
	}
	l.note.Epoch = epoch
	return l.opts.SetEpoch(epoch)
}

// setAside moves the data away, if there is any. No member runs.
func (l *Local) setAside(why string) error {
	to, err := l.disk.aside(l.opts.Now())
	if to != "" {
		l.opts.Log.Info("this machine's copy of the store is set aside", "to", to, "reason", why)
	}
	l.note = note{Epoch: l.note.Epoch}
	return err
}

// Role is what this machine is now, as Changed was told last.
func (l *Local) Role() Role {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.role
}

// Status says how this machine's part in the store is.
func (l *Local) Status() LocalStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Engine is this machine's member while it votes and is in use, else nil: as StewardOptions.Engine wants it.
func (l *Local) Engine() Engine {
	if r := l.Role(); r.Votes {
		return r.Member
	}
	return nil
}

// Close tells the daemon to use no member and closes it. Call it after Run has returned.
func (l *Local) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return l.end(ctx)
}

// closeWait bounds what the daemon does at the end.
const closeWait = 10 * time.Second
