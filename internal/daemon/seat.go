package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// How a seat is held.
const (
	seatLease  = 10 * time.Second // what is left of a machine that died is gone after it
	seatEvery  = 3 * time.Second  // so that three attempts fit into a lease
	seatWithin = 5 * time.Second  // for one attempt
	// keyless is how long a machine may be without the authority's key before its status says so: others hand it over within a second.
	keyless = 15 * time.Second
)

// seat gets this machine the keys of the cluster's authorities while the cluster is kept in an etcd of the user's own. Nobody votes there, so every machine
// holds them: whoever has the store's credentials can already have any machine run anything, and while one machine is left it lets others in. As long as
// a key is missed here, and while the authority is being changed, voters/ has this machine's record with the role of a learner, to whom room admit hands keys;
// writing it proves the credentials. It hangs on a lease, so that nobody waits for a machine that died.
type seat struct {
	m     *machineNow
	wake  chan struct{} // capacity 1
	lease store.LeaseID // 0: none
	since time.Time     // since when the issuing authority's key is missed; zero: it is not
}

// holdSeat sees to the keys until ctx ends.
func (m *machineNow) holdSeat(ctx context.Context) error {
	s := &seat{m: m, wake: make(chan struct{}, 1)}
	var done sync.WaitGroup
	defer done.Wait()
	follow, end := context.WithCancel(ctx)
	defer end()
	for _, p := range []string{m.store.Machines.Prefix() + string(m.home.id), m.store.Cluster.Prefix()} {
		done.Go(func() { _ = store.Follow(follow, m.store.KV, p, s, nil) }) // ends with follow
	}
	tick := time.NewTicker(seatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
		try, cancel := context.WithTimeout(ctx, seatWithin)
		if err := s.keep(try); err != nil && ctx.Err() == nil {
			m.log().Debug("the authority's key is to be asked for again", "err", err, "retry", seatEvery)
		}
		cancel()
		s.judge(time.Now())
	}
}

// keep sees that the record is there while it is needed, and not otherwise, nor while this machine leaves.
func (s *seat) keep(ctx context.Context) error {
	st, id := s.m.store, string(s.m.home.id)
	c, _, err := st.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil {
		return err
	}
	if c.Value.Rotation == string(trust.Steady) && holdsAll(s.m.identity.Standing()) {
		return s.give(ctx)
	}
	me, member, err := st.Machines.Get(ctx, id, store.Read{})
	if err != nil {
		return err
	}
	if !member || me.Value.Leaving {
		return s.give(ctx)
	}
	if s.lease != 0 {
		if err = st.KV.Renew(ctx, s.lease); fault.Is(err, fault.NotFound) {
			s.lease, err = 0, nil
		}
	}
	if err == nil && s.lease == 0 {
		s.lease, err = st.KV.Grant(ctx, seatLease)
	}
	if err != nil {
		return err
	}
	v, there, err := st.Voters.Get(ctx, id, store.Read{})
	if err != nil || there && v.Lease == s.lease {
		return err
	}
	return st.Voters.Put(ctx, id, machine.Vote{
		Machine: s.m.home.id, Role: machine.Learner, Reason: "it is given the key of the cluster's authority; the store is an etcd of your own",
	}, s.lease)
}

// holdsAll says whether no key of a trusted authority is missed.
func holdsAll(s trust.Standing) bool {
	return !slices.ContainsFunc(s.Trusts, func(h string) bool { return !slices.Contains(s.Holds, h) })
}

// give takes the record away.
func (s *seat) give(ctx context.Context) error {
	if s.lease == 0 {
		return nil
	}
	err := s.m.store.KV.Revoke(ctx, s.lease)
	if err == nil || fault.Is(err, fault.NotFound) {
		s.lease = 0
		return nil
	}
	return err
}

// judge notices that this machine is without the key for long.
func (s *seat) judge(now time.Time) {
	if s.m.desk.Holds() {
		s.since = time.Time{}
	} else if s.since.IsZero() {
		s.since = now
	}
	s.m.keyless.Store(!s.since.IsZero() && now.Sub(s.since) > keyless)
}

// Reset implements store.Follower.
func (s *seat) Reset([]store.Item, int64) { s.ring() }

// Apply implements store.Follower.
func (s *seat) Apply(store.Update) { s.ring() }

func (s *seat) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
