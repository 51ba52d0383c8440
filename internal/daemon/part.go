package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"flota/internal/keys"
	"flota/internal/leader"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/view"
	"flota/internal/voter"
)

// part is what runs on this machine because of its part in the store: nothing but the way to other machines' stores on a client, a copy for
// stale reads beside it on a learner, and the view, the leader and the keys' own front on a voter. A machine that changes its part gets a new one,
// while API, agent, supervisor and units go on.
type part struct {
	role   voter.Role
	kv     store.KV
	client *etcd.Client // nil on voters
	view   *view.View   // nil where it is not this machine's task to lead
	leads  *leader.Desk // nil like view
	front  *keys.Front  // the applications' keys; nil: not served here

	leader, rest context.CancelFunc // end what was started; nil before start
	leading, all sync.WaitGroup
}

// newPart makes what the role needs; nothing runs yet, and nobody uses it.
func (m *machineNow) newPart(r voter.Role) (p *part, err error) {
	p = &part{role: r}
	node := r.Node()
	switch {
	case m.External != nil:
		p.kv = m.external
	case node != nil && r.Votes:
		p.kv = node.KV()
	default:
		if p.client, err = m.dialVoters(); err != nil {
			return nil, err
		}
		p.kv = p.client
		if node != nil {
			p.kv = node.LearnerKV(p.client)
		}
	}
	if m.Witness { // it only votes: leading, and serving applications, is for machines with more room
		return p, nil
	}
	if r.Votes || m.External != nil {
		p.view = view.New(view.Options{Store: m.store, Log: m.Log.With("room", "view")})
		p.leads = leader.NewDesk()
	}
	if p.front, err = m.newFront(r); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// start runs the part until ctx ends; what leads ends with hands already, which is sooner.
func (p *part) start(ctx, hands context.Context, m *machineNow) {
	ctx, p.rest = context.WithCancel(ctx)
	hands, p.leader = context.WithCancel(hands)
	if p.front != nil {
		p.all.Go(func() {
			if err := p.front.Run(ctx); err != nil && ctx.Err() == nil {
				m.log().Error("the applications' keys are not served any more", "err", err)
			}
		})
	}
	if p.view == nil {
		return
	}
	p.all.Go(func() { _ = p.view.Run(ctx) }) // ends with ctx only
	p.leading.Go(func() {
		_ = leader.Run(hands, leader.Options{ // ends with hands only
			ID: m.home.id, Store: m.store, View: p.view, TTL: m.Lease, Lease: m.Lease, Desk: p.leads, Log: m.Log.With("room", "leader"),
		})
	})
}

// end stops what start began: the leader first, while its store still answers, so that another machine need not wait for its lease.
func (p *part) end() {
	if p.rest == nil {
		return
	}
	p.leader()
	p.leading.Wait()
	p.rest()
	p.all.Wait()
}

// close lets go of the store; end comes first.
func (p *part) close() error {
	if p.client != nil {
		return p.client.Close()
	}
	return nil
}

// change moves this machine over to another part in the store: room voter calls it before a member is closed and after one can be used.
func (m *machineNow) change(_ context.Context, r voter.Role) error {
	old := m.part.Load()
	if m.ending.Load() && r.Member == nil { // the machine stops: nothing more is to be used
		if old != nil {
			old.end()
			m.relay.Use(nil)
			return old.close()
		}
		return nil
	}
	next, err := m.newPart(r)
	if err != nil {
		return fmt.Errorf("change this machine's part in the store: %w", err)
	}
	if old != nil {
		old.end()
	}
	m.relay.Use(next.kv)
	m.part.Store(next)
	next.start(m.below, m.hands, m)
	if old != nil {
		return old.close()
	}
	return nil
}

// view is this machine's picture of the cluster; nil while it is none that leads.
func (m *machineNow) view() *view.View {
	if p := m.part.Load(); p != nil {
		return p.view
	}
	return nil
}

// storeConn connects to the store of this machine, if it votes now.
func (m *machineNow) storeConn(ctx context.Context) (net.Conn, error) {
	if p := m.part.Load(); p == nil || !p.role.Votes {
		return nil, m.noVoter()
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", m.home.path("store.sock"))
}

// keysConn connects to the applications' keys of this machine, if it votes now.
func (m *machineNow) keysConn(ctx context.Context) (net.Conn, error) {
	if m.External != nil {
		return nil, m.noKeys()
	}
	p := m.part.Load()
	if p == nil || !p.role.Votes || p.front == nil {
		return nil, m.noVoter()
	}
	return p.front.Conn(ctx)
}
