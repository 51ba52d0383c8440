package daemon

import (
	"context"
	"errors"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// goAway takes this machine out of the cluster, as root on it asked: when it returns its units run elsewhere and nothing needs it. The machine ends
// a moment later, so that whoever asked is answered.
func (m *machineNow) goAway(ctx context.Context, o admit.RemoveOptions) error {
	if err := m.desk.Leave(ctx, o); err != nil {
		return err
	}
	reason := o.Reason
	if reason == "" {
		reason = "it left"
	}
	m.evict(machine.Gone{ID: m.home.id, Name: m.Name, Time: time.Now().UTC(), Reason: reason})
	return nil
}

// evict has this machine end for good.
func (m *machineNow) evict(g machine.Gone) {
	select {
	case m.evicted <- g:
	default: // it ends already
	}
}

// watchRemoval waits for the cluster to remove this machine, until ctx ends. A machine whose connections are cut before it hears of it goes on with what
// it runs: see flota machine remove.
func (m *machineNow) watchRemoval(ctx context.Context) error {
	return store.Follow(ctx, m.store.KV, m.store.Removed.Prefix()+string(m.home.id), removal{m}, nil)
}

// removal is the follower of this machine's own record in removed/.
type removal struct{ m *machineNow }

// Reset implements store.Follower.
func (r removal) Reset(items []store.Item, _ int64) {
	for _, it := range items {
		r.found(it)
	}
}

// Apply implements store.Follower.
func (r removal) Apply(u store.Update) {
	for _, e := range u.Events {
		if !e.Deleted {
			r.found(e.Item)
		}
	}
}

func (r removal) found(it store.Item) {
	e, err := r.m.store.Removed.Decode(it)
	if err != nil {
		r.m.log().Error("a removal cannot be read", "err", err)
		return
	}
	r.m.evict(e.Value)
}

// answerFor is how long an answer under way gets before a machine that leaves ends.
const answerFor = 500 * time.Millisecond

// leave ends this machine's life in its cluster: it was removed, so its units run elsewhere by now and end here. fault.Denied says so.
func (m *machineNow) leave(ctx context.Context, g machine.Gone) error {
	m.log().Warn("this machine is no longer in the cluster; its units end here", "name", g.Name, "reason", g.Reason)
	m.self.Removed = "it was removed as " + g.Name + " on " + g.Time.UTC().Format(time.DateTime) + " UTC: " + g.Reason
	err := m.rememberSelf()
	m.relay.Use(nil)       // nothing is written any more: a farewell would keep the presence for a minute
	if m.External != nil { // a voter has dropped it by now
		err = errors.Join(err, m.identity.DropAuthority())
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltGrace)
	defer cancel()
	err = errors.Join(err, m.shutdown(end))
	select {
	case <-time.After(answerFor):
	case <-ctx.Done():
	}
	if err != nil {
		return err
	}
	return errGone
}

// errGone ends the hands of a machine that left; it is no failure.
var errGone = fault.New(fault.Denied, "this machine left its cluster")
