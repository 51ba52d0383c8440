// Package v2 is etcd's keys API of version 2, /v2/keys and what its clients ask besides, on the transactions of version 3,
// so that curl, old clients and v3 clients see the same data.
//
// A v2 file /a/b is the v3 key "/a/b" with the plain value. A directory is the v3 key "/a/", its marker, which is empty; a directory
// that has none, because v3 clients made the keys below it, exists while there are such keys. What v3 has no place for lies in side
// keys that begin with a zero byte: see names.go. An index is a revision of the store; see node.go for how nodes get theirs.
//
// The invariant: every write is one guarded transaction, which carries beside the change a record of what was asked for (the
// side key "last"). Events of watches are made from nothing but the transactions as the store tells them, so all machines tell the
// same history in the same order, whoever wrote.
//
// The package never writes outside the keys that its client may see, and never retries a transaction whose outcome it does not know.
// Start reading at API, then look.go (reading), decide.go (what a write means), window.go (events).
package v2

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// Member is one machine that serves keys, as v2 clients are told of it.
type Member struct {
	ID         uint64   // of the store's member; 0 for a machine that has none
	Name       string   // the machine's name
	PeerURLs   []string // where members reach each other; may be empty
	ClientURLs []string // where applications reach its keys, such as http://127.0.0.1:2379
	Leader     bool     // leads the store now
	Self       bool     // this machine
}

// Changer is a Watcher that tells changes more cheaply than by Watch: in order, without previous values, all events of a revision at once. As Watch it tells
// of a gap by the response's CompactRevision; it returns when ctx ends or each gives an error.
type Changer interface {
	Changes(ctx context.Context, key, end string, rev int64, each func(clientv3.WatchResponse) error) error
}

// Options say what the keys lie on. Client, Members and Log are needed.
type Options struct {
	// Client sees the applications' keys only: what it calls "/a" is their key "/a". It must not share the key values of watch
	// events with others, which etcd's own namespace package over an in-process client does. Its Watcher may be a Changer.
	Client  *clientv3.Client
	Members func(ctx context.Context) []Member // all machines that serve keys, this one among them
	Log     *slog.Logger

	Timeout    time.Duration // for one request that is no watch; 0: 5 s, as etcd's own front had
	MaxValue   int           // bytes of a value; 0: 1 MiB
	MaxWatches int           // at the same time, on this machine; 0: 20,000
	MaxList    int           // bytes of values and keys in one listing; 0: 64 MiB
	Grace      time.Duration // for a client to take what is written to it, and to send its request; 0: 20 s
}

// API answers requests of version 2. Make it with New; ServeHTTP may be called at once, but watches wait until Run has begun.
type API struct {
	o      Options
	kv     clientv3.KV
	window *window
	stats  stats
	queue  *queue // of what expires
	recent *recent
	past   past // for follow only
	locks  [256]chan struct{}
	seed   maphash.Seed
	mux    *http.ServeMux
	began  time.Time
	leases leases

	cluster atomic.Uint64 // the cluster's ID; 0 until the first answer of the store
	seen    atomic.Int64  // the highest revision seen
}

// Defaults of Options. 1 MiB is the limit the product names for values; 5 s is etcd 3.4's request timeout; 20,000 watches of about
// 20 KiB are what a machine can bear; 64 MiB are 64 of the largest values.
const (
	defaultTimeout = 5 * time.Second
	defaultValue   = 1 << 20
	defaultWatches = 20_000
	defaultList    = 64 << 20
	defaultGrace   = 20 * time.Second
)

// Handler is New for who does not want to name the type. Its Run must be called all the same.
func Handler(o Options) *API { return New(o) }

// New makes the API. Nothing runs until Run.
func New(o Options) *API {
	o.Timeout = orElse(o.Timeout, defaultTimeout)
	o.MaxValue = orElse(o.MaxValue, defaultValue)
	o.MaxWatches = orElse(o.MaxWatches, defaultWatches)
	o.MaxList = orElse(o.MaxList, defaultList)
	o.Grace = orElse(o.Grace, defaultGrace)
	a := &API{
		o: o, kv: o.Client.KV, window: newWindow(o.MaxWatches), queue: newQueue(), recent: newRecent(), seed: maphash.MakeSeed(),
		began: time.Now(), leases: leases{byEnd: map[int64]clientv3.LeaseID{}},
	}
	for i := range a.locks {
		a.locks[i] = make(chan struct{}, 1)
	}
	a.routes()
	return a
}

func orElse[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Run follows the store for watches and removes what has expired until ctx ends; then it ends all watches. The error is ctx's.
func (a *API) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx) })
	g.Go(func() error { return a.expire(ctx) })
	err := g.Wait()
	a.window.close()
	return err
}

// lock serializes on this machine what would otherwise only make each other's transactions fail. It gives false when ctx ends first.
func (a *API) lock(ctx context.Context, key string) (unlock func(), ok bool) {
	c := a.locks[maphash.String(a.seed, key)%uint64(len(a.locks))]
	select {
	case c <- struct{}{}:
		return func() { <-c }, true
	case <-ctx.Done():
		return nil, false
	}
}
