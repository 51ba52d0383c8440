// Package voter makes the store's members what they should be. The Steward, on the machine that leads the cluster, carries out the plans of room
// quorum: it adds, promotes and removes members at the store's engine and writes down at voters/<machine> what each machine is wanted to be.
// Local, on every machine, follows that record: it starts and closes this machine's member, and tells the daemon, before and after,
// so that what runs moves over without a gap.
//
// The invariants: only the steward writes voters/, guarded by the election of the machine that it runs on; every step may be the last one of a
// process that dies, and is repaired from what there is by whoever comes next; a copy of the store is never deleted because
// others cannot be reached, and one that is no longer a member's is set aside, not deleted.
//
// It decides nothing about who should vote, and knows no certificates, addresses or transports: those are the daemon's.
//
// Start reading at Engine and Steward (steward.go), then Member and Local (local.go).
package voter

import (
	"context"

	"flota/internal/store"
	"flota/internal/store/etcd"
)

// Engine is what the steward needs of this machine's member of the store. *etcd.Node is one.
type Engine interface {
	Members(ctx context.Context) ([]etcd.Member, error) // linearizable
	AddLearner(ctx context.Context, peerAddr string) (id uint64, all []etcd.Member, err error)
	Promote(ctx context.Context, id uint64) error // fault.Unavailable: its copy is not complete yet
	Remove(ctx context.Context, id uint64) error
}

// Member is this machine's member of the store while it runs. *etcd.Node is one.
type Member interface {
	Engine
	KV() store.KV
	MemberID() uint64
	Ready(ctx context.Context) error // waits until it has joined and serves
	Stopped() <-chan struct{}
	Votes() bool   // started, a member, and no learner
	Removed() bool // true after Stopped when the cluster removed it
	HandOver(ctx context.Context) error
	Close() error
}

var _ Member = (*etcd.Node)(nil)

// Role is what this machine is in the store now.
type Role struct {
	Member Member // nil: no member of its own is to be used
	Votes  bool   // Member votes: it answers everything; otherwise it is a learner, which answers stale reads only
}

// Node is the member as room store/etcd gave it; nil for none.
func (r Role) Node() *etcd.Node {
	n, _ := r.Member.(*etcd.Node)
	return n
}

// Start says how a member is to be started. The daemon adds what it knows: addresses, TLS, sockets.
type Start struct {
	Dir      string            // where its data lies
	Name     string            // of the machine
	Peers    map[string]string // name to host:port of all members, this one among them; empty: this one alone. Means nothing once there is data
	Existing bool              // there is a cluster to join; it means nothing once there is data
	Force    bool              // become the only voter, from this copy
}
