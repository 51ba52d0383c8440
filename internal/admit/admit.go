// Package admit decides who is a machine of the cluster: it makes join tokens, lets machines in, gives them certificates, removes them, and
// changes the cluster's authority. All of it is written into the store; room api puts it on the wire.
//
// The invariant: a machine is a member exactly while machines/<id> names the key that it was admitted with. Token, record and name are
// written in one transaction, so that of two machines that ask for one name or one use of a token exactly one gets it; every step may be
// repeated after a crash or a lost answer, by any voter, with the same end.
//
// It serves no requests, makes no connections, and never decides where a unit runs or who votes: it marks a machine as leaving and
// waits until the leader and the steward have acted.
//
// Start reading at Desk, then Admit (join.go), Remove (remove.go), Rotate (rotate.go) and Run (run.go).
package admit

import (
	"context"
	"log/slog"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// Options are what a Desk needs of its machine. Store, Identity and ID must be set.
type Options struct {
	Store    *store.Store
	Identity *trust.Identity // this machine's; only on voters it can issue certificates
	ID       machine.ID
	Name     string
	Witness  bool
	// External: the store is the user's own, in which nobody votes. Every machine holds the authority's key then: whoever has such a store's credentials
	// can have any machine run anything, and while one machine is left it lets others in.
	External bool
	// Addrs gives the addresses (host:port) of this machine's API, for command lines. nil: none.
	Addrs func() []string
	// Keys fetches the authorities with their keys from another voter: what its Authority gives. nil: they are never fetched.
	Keys func(ctx context.Context) ([]byte, error)
	Life time.Duration    // of the certificates that are issued here; 0: trust.Life
	Log  *slog.Logger     // nil logs nothing
	Now  func() time.Time // nil: time.Now
	Tick time.Duration    // how often what is over is removed; 0: an hour
}

// Desk is where machines come in and go. Make one with New. Safe for concurrent use.
type Desk struct {
	o Options
	// turn holds one token: requests of this machine's joiners change the same token one after the other instead of in a race.
	turn chan struct{}
}

// New gives a desk; nothing runs yet.
func New(o Options) *Desk {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Addrs == nil {
		o.Addrs = func() []string { return nil }
	}
	if o.Tick == 0 {
		o.Tick = time.Hour
	}
	return &Desk{o: o, turn: make(chan struct{}, 1)}
}

// now is the time as it is stored.
func (d *Desk) now() time.Time { return d.o.Now().UTC() }

// Holds says whether this machine can issue certificates: it holds the authority's key, as voters do. Admit, Renew and Authority of
// another desk have to be asked otherwise.
func (d *Desk) Holds() bool {
	_, err := d.o.Identity.Authority()
	return err == nil
}

// authority gives what issues certificates: fault.Unavailable on a machine that holds no key.
func (d *Desk) authority() (*trust.Authority, error) {
	a, err := d.o.Identity.Authority()
	if fault.Is(err, fault.NotFound) {
		return nil, fault.WithHint(fault.Wrap(fault.Unavailable, err, "%s cannot issue certificates", d.o.Name), "ask a voter")
	}
	return a, err
}

// issuer gives what issues certificates now, and the cluster's record, whose authorities this machine takes over first if it was late: a leaf
// of the authority before would be renewed at once.
func (d *Desk) issuer(ctx context.Context) (*trust.Authority, machine.Cluster, error) {
	if _, err := d.authority(); err != nil && !d.mayAct() {
		return nil, machine.Cluster{}, err
	}
	e, err := d.cluster(ctx)
	if err != nil {
		return nil, e.Value, err
	}
	if e.Value.Trust != "" {
		if err := d.o.Identity.SetBundle([]byte(e.Value.Trust)); err != nil {
			return nil, e.Value, err
		}
	}
	a, err := d.authority()
	return a, e.Value, err
}

// cluster reads the cluster's own record. fault.Unavailable while the first machine has not made it yet.
func (d *Desk) cluster(ctx context.Context) (store.Entry[machine.Cluster], error) {
	e, ok, err := d.o.Store.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err == nil && !ok {
		err = fault.New(fault.Unavailable, "the cluster is still being made")
	}
	return e, err
}

// commit makes the transaction; done is false if somebody was faster.
func (d *Desk) commit(ctx context.Context, t store.Txn) (done bool, err error) {
	_, done, err = d.o.Store.KV.Commit(ctx, t)
	return done, err
}

// retryMin and retryMax bound the pause before a transaction is tried again that another machine's was faster than. 2 ms is about one
// transaction on a fast disk; 100 ms spreads the requests that five voters take for 200 machines at once.
const (
	retryMin = 2 * time.Millisecond
	retryMax = 100 * time.Millisecond
)

// sleep waits for about pause; false when ctx ended first.
func sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
