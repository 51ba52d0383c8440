package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"flota/internal/fault"
)

// memberWait bounds a change of the members when ctx has no deadline. 5 s: one waits for the leader's disk and an earlier change of the same kind.
const memberWait = 5 * time.Second

// Member is one member of the store's engine. Its ID is never used again; several members, one of them dead, may have one machine's name.
type Member struct {
	ID      uint64
	Name    string // empty until it has started
	Peer    string // host:port
	Learner bool
	Started bool // it has run, now or once
}

// MemberID gives this member's ID.
func (n *Node) MemberID() uint64 { return uint64(n.etcd.Server.MemberID()) }

// Members lists the members, linearizably. fault.Unavailable without a quorum.
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	return n.change(ctx, "list the store's members", func(ctx context.Context) ([]*pb.Member, error) {
		resp, err := n.kv.c.MemberList(ctx)
		if err != nil {
			return nil, err
		}
		return resp.Members, nil
	})
}

// LocalMembers lists the members that this one knows of, without asking anybody.
func (n *Node) LocalMembers() []Member {
	var out []Member
	for _, m := range n.etcd.Server.Cluster().Members() {
		out = append(out, fromPeers(uint64(m.ID), m.Name, m.PeerURLs, m.IsLearner))
	}
	return out
}

// Votes says whether this member has started, serves, and is a voter of the cluster.
func (n *Node) Votes() bool {
	select {
	case <-n.stopped:
		return false
	default:
	}
	m := n.self()
	return n.ready() && m != nil && !m.IsLearner
}

// self is this member as it knows itself; nil once it was removed.
func (n *Node) self() *membership.Member {
	return n.etcd.Server.Cluster().Member(n.etcd.Server.MemberID())
}

func (n *Node) ready() bool {
	select {
	case <-n.etcd.Server.ReadyNotify():
		return true
	default:
		return false
	}
}

// AddLearner adds the member that will be started with PeerAddr peerAddr, and lists all of them. It may be repeated: a learner at that address
// that has never started is the one. fault.Exists when another member is there; fault.Unavailable while too many learners catch up (8), or without a quorum.
func (n *Node) AddLearner(ctx context.Context, peerAddr string) (id uint64, all []Member, err error) {
	u, err := peerURL(peerAddr, n.tls)
	if err != nil {
		return 0, nil, err
	}
	for range 2 {
		all, err = n.Members(ctx)
		if err != nil {
			return 0, nil, err
		}
		for _, m := range all {
			switch {
			case m.Peer != u.Host:
			case m.Learner && !m.Started:
				return m.ID, all, nil
			default:
				return 0, nil, fault.New(fault.Exists, "add a member to the store: %s is at %s already", describe(m), m.Peer)
			}
		}
		_, err = n.change(ctx, "add a member to the store", func(ctx context.Context) ([]*pb.Member, error) {
			_, err := n.kv.c.MemberAddAsLearner(ctx, []string{u.String()})
			return nil, err
		})
		if err != nil && !errors.Is(err, rpctypes.ErrPeerURLExist) {
			return 0, nil, err
		}
	}
	return 0, nil, fault.New(fault.Conflict, "add a member to the store: the member at %s was removed again", peerAddr)
}

// Promote makes a learner a voter; no error when it is one. fault.Unavailable when it has not caught up yet; fault.NotFound when there is no such member.
func (n *Node) Promote(ctx context.Context, id uint64) error {
	_, err := n.change(ctx, "make a member of the store a voter", func(ctx context.Context) ([]*pb.Member, error) {
		_, err := n.kv.c.MemberPromote(ctx, id)
		return nil, err
	})
	if errors.Is(err, rpctypes.ErrMemberNotLearner) {
		return nil
	}
	return err
}

// Remove removes a member, itself included; no error when there is none of that ID. fault.Conflict for the only voter. It does not ask whether the
// others are a working majority: room quorum does.
func (n *Node) Remove(ctx context.Context, id uint64) error {
	err := n.remove(ctx, id)
	if err != nil && id == n.MemberID() && n.isOut() {
		return nil // it stopped before it could answer
	}
	return err
}

// isOut says whether this member has been removed, or is just stopping because of it.
func (n *Node) isOut() bool {
	if n.etcd.Server.IsIDRemoved(n.MemberID()) {
		return true
	}
	select {
	case <-n.etcd.Server.StoppingNotify():
		<-n.stopped
	default:
	}
	return n.Removed()
}

func (n *Node) remove(ctx context.Context, id uint64) error {
	all, err := n.Members(ctx)
	if err != nil {
		return err
	}
	voters, there := 0, false
	var gone Member
	for _, m := range all {
		if m.ID == id {
			gone, there = m, true
		}
		if !m.Learner {
			voters++
		}
	}
	if !there {
		return nil
	}
	if !gone.Learner && voters == 1 { // raft would panic
		return fault.New(fault.Conflict, "remove a member of the store: %s is the only voter", describe(gone))
	}
	_, err = n.change(ctx, "remove a member of the store", func(ctx context.Context) ([]*pb.Member, error) {
		_, err := n.kv.c.MemberRemove(ctx, id)
		return nil, err
	})
	if errors.Is(err, rpctypes.ErrMemberNotFound) {
		return nil
	}
	return err
}

// HandOver gives the leadership to the voter that has been connected longest, if this one has it. fault.Unavailable when there is none.
func (n *Node) HandOver(ctx context.Context) error {
	_, err := n.change(ctx, "hand over the store's leadership", func(ctx context.Context) ([]*pb.Member, error) {
		if !n.Leads() {
			return nil, nil
		}
		if n.onlyVoter() {
			return nil, fault.New(fault.Unavailable, "hand over the store's leadership: there is no other voter")
		}
		done := make(chan error, 1)
		go func() { done <- n.etcd.Server.TryTransferLeadershipOnShutdown() }() // ends by itself, in 7 s with etcd's defaults
		select {
		case err := <-done:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return err
}

// onlyVoter says whether this member knows of no other voter.
func (n *Node) onlyVoter() bool {
	return !slices.ContainsFunc(n.LocalMembers(), func(m Member) bool { return !m.Learner && m.ID != n.MemberID() })
}

// change makes a call that concerns the members, and gives the members it answers with.
func (n *Node) change(ctx context.Context, what string, call func(context.Context) ([]*pb.Member, error)) ([]Member, error) {
	ctx, done, err := n.kv.begin(ctx, memberWait)
	if err != nil {
		return nil, err
	}
	defer done()
	got := make(chan []*pb.Member, 1)
	err = n.kv.ask(ctx, func(ctx context.Context) error {
		list, err := call(ctx)
		if err == nil {
			got <- list
		}
		return err
	})
	if err != nil {
		return nil, memberProblem(what, err)
	}
	var out []Member
	for _, m := range <-got {
		out = append(out, fromPeers(m.ID, m.Name, m.PeerURLs, m.IsLearner))
	}
	return out, nil
}

// memberProblem is problem for what only concerns members.
func memberProblem(what string, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
		return fault.Wrap(fault.Unavailable, err, "%s: it has not caught up yet", what)
	case errors.Is(err, rpctypes.ErrTooManyLearners), errors.Is(err, etcderrors.ErrUnhealthy), errors.Is(err, etcderrors.ErrTimeoutLeaderTransfer):
		return fault.Wrap(fault.Unavailable, err, "%s", what)
	case errors.Is(err, rpctypes.ErrMemberNotFound):
		return fault.Wrap(fault.NotFound, err, "%s", what)
	case errors.Is(err, rpctypes.ErrPeerURLExist), errors.Is(err, rpctypes.ErrMemberExist):
		return fault.Wrap(fault.Exists, err, "%s", what)
	}
	return problem(what, err)
}

func describe(m Member) string {
	if m.Name == "" {
		return fmt.Sprintf("member %x, which has not started,", m.ID)
	}
	return fmt.Sprintf("%s's member %x", m.Name, m.ID)
}

func fromPeers(id uint64, name string, urls []string, learner bool) Member {
	m := Member{ID: id, Name: name, Learner: learner, Started: name != ""}
	if len(urls) > 0 {
		if u, err := url.Parse(urls[0]); err == nil {
			m.Peer = u.Host
		}
	}
	return m
}

// PeersOf gives Options.Peers for the member id, which will run under name, from the answer of AddLearner. Each member gets a name of its
// own there, whatever the names they run under: those of members that have not started are empty, and a dead member may have this machine's.
func PeersOf(all []Member, id uint64, name string) map[string]string {
	out := make(map[string]string, len(all))
	for _, m := range all {
		if m.ID == id {
			out[name] = m.Peer
		}
	}
	for _, m := range all {
		if m.ID == id {
			continue
		}
		key := m.Name
		if _, taken := out[key]; taken || key == "" {
			key = fmt.Sprintf("%s-%x", name, m.ID)
		}
		out[key] = m.Peer
	}
	return out
}
