package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
)

// force makes the machine's copy a cluster of its own.
func (b *box) force() {
	b.t.Helper()
	b.o.Force = true
	b.start()
	b.o.Force = false
	b.ready()
}

// alone checks that the member is a working cluster of one, with n keys under k/ and a revision far beyond old.
func alone(t *testing.T, b *box, n int, old int64) {
	t.Helper()
	ctx := patient(t)
	all, err := b.node.Members(ctx)
	if err != nil || len(all) != 1 || all[0].Learner || all[0].ID != b.node.MemberID() || !b.node.Votes() {
		t.Fatalf("members are %+v, %v; votes %v", all, err, b.node.Votes())
	}
	items, rev, err := b.node.KV().List(ctx, "k/", store.Read{})
	if err != nil || len(items) != n {
		t.Errorf("%d keys of %d are there, %v", len(items), n, err)
	}
	if rev < old+revisionLeap {
		t.Errorf("the revision is %d after %d", rev, old)
	}
	for _, after := range []int64{1, old, old + 5} {
		for u := range b.node.KV().Watch(ctx, "", after) {
			if u.Err == nil {
				continue // it stands, before the compaction is known to the watch
			}
			if !errors.Is(u.Err, store.ErrCompacted) {
				t.Errorf("a watch of the lost cluster after %d ends with %v", after, u.Err)
			}
		}
	}
	if next := write(t, b.node.KV(), "new", "1"); next <= rev {
		t.Errorf("a write gives revision %d after %d", next, rev)
	}
}

// TestForceLearner loses the only voter for good: the learner goes on with all that it was sent.
func TestForceLearner(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]uint64{"log": 0, "snapshots": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newAuthority(t)
			m1, m2 := newBox(t, ca, "m1"), newBox(t, ca, "m2")
			m1.o.SnapshotCount, m2.o.SnapshotCount = count, count
			m1.found()
			for i := range 60 {
				write(t, m1.node.KV(), fmt.Sprint("k/", i), "v")
			}
			m2.join(m1)
			lease, err := m1.node.KV().Grant(patient(t), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 60 {
				write(t, m1.node.KV(), fmt.Sprint("k/", 60+i), "v")
			}
			leased := store.Txn{Then: []store.Op{{Key: "leased", Value: []byte("x"), Lease: lease}}}
			last, _, err := m1.node.KV().Commit(patient(t), leased)
			if err != nil {
				t.Fatal(err)
			}
			kv := m2.node.LearnerKV(client(t, m1))
			wait(t, "the learner has it all", func() bool {
				_, ok, err := kv.Get(patient(t), "leased", store.Read{Stale: true})
				return ok && err == nil
			})
			m1.halt()
			m2.halt()
			m2.force()
			alone(t, m2, 120, last)
			if err := m2.node.KV().Renew(patient(t), lease); err != nil {
				t.Errorf("the lease is gone: %v", err)
			}
			_ = m2.node.Close()
			m2.force() // who asked died, and asks again
			alone(t, m2, 120, last+revisionLeap)

			m1.start() // the dead one rises
			within(t, m1.node.Stopped(), "who was lost learns that it is out")
			if !m1.node.Removed() {
				t.Error("it does not know that it was removed")
			}
			_ = m1.node.Close()
			m1.o.Dir += "-again"
			m1.join(m2)
			m1.promote(m2)
			write(t, m1.node.KV(), "k/again", "1")
		})
	}
}

// TestForceVoter loses two of three voters. What the survivor had written to its log and nobody had agreed to is kept: it may be what somebody was told is safe.
func TestForceVoter(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	boxes := []*box{newBox(t, ca, "m1"), newBox(t, ca, "m2"), newBox(t, ca, "m3")}
	m1, m2, m3 := boxes[0], boxes[1], boxes[2]
	for _, b := range boxes {
		b.o.Election = 5 * time.Second // a leader that is alone gives up only then
	}
	m1.found()
	m2.join(m1)
	m2.promote(m1)
	m3.join(m1)
	m3.promote(m1)
	again(t, func(ctx context.Context) error {
		if m1.node.Leads() {
			return nil
		}
		for _, b := range boxes[1:] {
			if err := b.node.HandOver(ctx); err != nil {
				return err
			}
		}
		return fault.New(fault.Unavailable, "m1 does not lead yet")
	})
	last := write(t, m1.node.KV(), "k/1", "v")
	var both sync.WaitGroup
	both.Go(m2.halt)
	both.Go(m3.halt)
	both.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, _, err := m1.node.KV().Commit(ctx, put("k/2", "v")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a write without a quorum gives %v", err)
	}
	want := 2
	if !m1.node.Leads() {
		want = 1 // on a machine this slow it may have given up before it wrote
	}
	m1.halt()
	m1.force()
	alone(t, m1, want, last)
	for _, b := range boxes[1:] { // together they would be a majority
		b.start()
	}
	for _, b := range boxes[1:] {
		within(t, b.node.Stopped(), "who was lost learns that it is out")
		if !b.node.Removed() {
			t.Error("it does not know that it was removed")
		}
	}
	write(t, m1.node.KV(), "k/3", "v")
}

func TestForceRefuses(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m1, m2 := newBox(t, ca, "m1"), newBox(t, ca, "m2")
	m1.o.Force = true
	if err := m1.try(); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a copy: %v", err)
	}
	m1.o.Force = false
	m1.found()
	m2.join(m1)
	again(t, func(ctx context.Context) error { return m1.node.Remove(ctx, m2.node.MemberID()) })
	within(t, m2.node.Stopped(), "it stops")
	_ = m2.node.Close()
	m1.halt()
	m2.o.Force = true
	switch err := m2.try(); {
	case err == nil: // it was told so by a peer before it had the removal in its log
		m2.ready()
		alone(t, m2, 0, 1)
	case !fault.Is(err, fault.Conflict):
		t.Errorf("a copy that was removed: %v", err)
	}
}
