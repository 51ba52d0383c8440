package store

import (
	"context"
	"time"
)

// KV is the small interface that the whole of Flota's memory rests on: an ordered map of strings to bytes with one global
// revision that grows by one with each transaction that changes something, watches, transactions and leases. store/etcd and store/mem
// implement it and pass one conformance suite (storetest). Keys are plain strings; a prefix is matched byte-wise.
//
// Every call needs a ctx with a deadline or gets the implementation's own (3 s for writes). Errors: fault.Unavailable when no quorum
// answers (the write may or may not have happened: every caller's write is safe to repeat), fault.NotFound for
// leases that are gone, fault.Invalid for what can never be done. Values that are given out may be shared: never change them.
type KV interface {
	// List gives all items under prefix sorted by key, and the revision that the answer is true of.
	List(ctx context.Context, prefix string, r Read) (items []Item, rev int64, err error)
	// Get gives one item; ok is false when there is none.
	Get(ctx context.Context, key string, r Read) (item Item, ok bool, err error)
	// Watch sends every change under prefix after revision after, in order, none lost, none twice. Updates of one transaction come together. The
	// channel is closed when ctx ends, or after an Update with Err set: ErrCompacted when after is no
	// longer kept (list again), or fault.Unavailable when the stream broke.
	// An Update with no events tells of progress only: everything up to Rev has been sent. The first Update is always
	// such a one, with Rev = after: it says that the stream stands. after may lie in the future; the store's Close ends all watches.
	Watch(ctx context.Context, prefix string, after int64) <-chan Update
	// Commit does all of t's ops if all of its conditions hold, or nothing. rev is the revision after it.
	// A transaction without ops only asks whether the conditions hold; it is as fresh as a linearizable read. fault.Invalid: see Txn.Check;
	// fault.NotFound: a lease of a put has ended.
	Commit(ctx context.Context, t Txn) (rev int64, ok bool, err error)
	// Grant makes a lease of ttl (rounded up to whole seconds, at least 1 s; etcd makes it at least 1.5 elections, 2 s).
	// Keys put under it vanish with it, all in one revision.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// Renew gives the lease its full ttl again. fault.NotFound when it has ended.
	Renew(ctx context.Context, id LeaseID) error
	// Revoke ends the lease and deletes its keys. No error if it has ended already.
	Revoke(ctx context.Context, id LeaseID) error
	// Health says whether a quorum answers now, and what the members are; it does not wait longer than ctx.
	Health(ctx context.Context) Health
	Close() error
}

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Read says how fresh an answer must be. The zero value is linearizable: it sees every acknowledged write.
type Read struct {
	Stale bool // answer from the local copy without a quorum; may be old
}

// Item is one key with its value. Rev is the revision that last changed it; Created the one that made it.
type Item struct {
	Key     string
	Value   []byte
	Rev     int64
	Created int64
	Lease   LeaseID
}

// Event is a change of one key; Deleted items have only Key and Rev.
type Event struct {
	Item
	Deleted bool
}

// Update is what one transaction changed under a watched prefix.
type Update struct {
	Rev    int64
	Events []Event
	Err    error
}

// Txn is a set of conditions and what to do when all of them hold. At most 100 ops (etcd's limit is 128).
type Txn struct {
	If   []Cond
	Then []Op
}

// Cond holds when the key was last changed at revision Rev (0: the key does not exist), or, with Created set, when it
// was created at that revision.
type Cond struct {
	Key     string
	Rev     int64
	Created int64 // when not 0, compared instead of Rev
}

// Op puts a key (Value not nil) or deletes it (Value nil).
type Op struct {
	Key   string
	Value []byte
	Lease LeaseID // of a put; 0 is none
}

// Health is the state of the store as this machine sees it.
type Health struct {
	Quorum  bool     `json:"quorum"`
	Trouble string   `json:"trouble,omitempty"` // what the engine complains of, such as a disk quota used up
	Leader  string   `json:"leader,omitempty"`  // name of the store's leading member, not of Flota's leader
	Members []Member `json:"members"`
}

// Member is one voter of the store.
type Member struct {
	Name    string `json:"name"` // the machine's name
	Learner bool   `json:"learner,omitempty"`
}
