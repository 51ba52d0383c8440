package etcd

import (
	"context"

	"flota/internal/store"
)

// learner is the store on a machine whose member does not vote.
type learner struct {
	*Client
	node *Node
}

// LearnerKV is the store on a machine whose member is a learner: stale reads are answered from its own copy, which needs nobody, and all else by the
// voters through c. A copy that was never complete is not read. Close closes c, and leaves the member running.
func (n *Node) LearnerKV(c *Client) store.KV { return &learner{Client: c, node: n} }

// local says whether the own copy may answer a stale read.
func (l *learner) local(r store.Read) bool {
	if !r.Stale || l.node.doom.why() != nil {
		return false
	}
	select {
	case <-l.node.stopped:
		return false
	default:
		return l.node.ready() || l.node.hadData
	}
}

// List implements store.KV.
func (l *learner) List(ctx context.Context, prefix string, r store.Read) ([]store.Item, int64, error) {
	if l.local(r) {
		return l.node.kv.List(ctx, prefix, r)
	}
	return l.Client.List(ctx, prefix, r)
}

// Get implements store.KV.
func (l *learner) Get(ctx context.Context, key string, r store.Read) (store.Item, bool, error) {
	if l.local(r) {
		return l.node.kv.Get(ctx, key, r)
	}
	return l.Client.Get(ctx, key, r)
}

// Health implements store.KV. When no voter can be reached the members are those that this machine's own knows of.
func (l *learner) Health(ctx context.Context) store.Health {
	h := l.Client.Health(ctx)
	if len(h.Members) == 0 {
		for _, m := range l.node.LocalMembers() {
			h.Members = append(h.Members, store.Member{Name: m.Name, Learner: m.Learner})
		}
	}
	return h
}
