package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"flota/internal/fault"
	"flota/internal/store"
)

// Model does the same random operations on two stores and fails at the first answer that differs. open gives a pair of stores that nobody else uses
// meanwhile; they may hold other keys, and their revisions may differ. The first is usually store/mem.
func Model(t *testing.T, open func() (a, b Bed)) {
	var runs int
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		one, two := open()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		m := &model{ctx: ctx, sides: [2]*side{newSide(t, ctx, one, runs), newSide(t, ctx, two, runs)}}
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"commit": m.commit, "get": m.get, "list": m.list, "grant": m.grant, "renew": m.renew,
			"revoke": m.revoke, "watch": m.watch, "compact": m.compact,
		})
		m.settle(rt)
	})
}

// model drives both sides alike.
type model struct {
	ctx    context.Context
	sides  [2]*side
	leases int // how many were granted
	marks  int // how many marks watches have used

	reading [][2]chan answer // watches that may still run
}

// side is one of the stores. Revisions are told relative to start, leases by the order they were granted in.
type side struct {
	bed    Bed
	kv     store.KV
	prefix string
	start  int64
	leases []store.LeaseID
}

func newSide(t *testing.T, ctx context.Context, b Bed, run int) *side {
	s := &side{bed: b, kv: b.Open(t), prefix: fmt.Sprintf("model/%d/", run)}
	_, rev, err := s.kv.List(ctx, s.prefix, store.Read{})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	s.start = rev
	return s
}

func (m *model) close() {
	for _, s := range m.sides {
		for _, id := range s.leases {
			_ = s.kv.Revoke(m.ctx, id)
		}
		_ = s.kv.Close()
	}
}

// both does op on each side and compares what comes back.
func (m *model) both(rt *rapid.T, op func(s *side) any) any {
	rt.Helper()
	one, two := op(m.sides[0]), op(m.sides[1])
	if d := cmp.Diff(one, two); d != "" {
		rt.Fatalf("the stores differ (- first, + second):\n%s", d)
	}
	return one
}

// answer is any answer with revisions and leases in common terms.
type answer struct {
	Items   []store.Item
	Updates []store.Update
	Rev     int64
	OK      bool
	Err     string
}

// rev makes a revision relative; 0 stays 0.
func (s *side) rev(r int64) int64 {
	if r == 0 {
		return 0
	}
	return r - s.start
}

// abs is the reverse of rev: 0 stays 0, and what lies before the start is taken for a revision that never was.
func (s *side) abs(r int64) int64 {
	if r == 0 {
		return 0
	}
	return r + s.start
}

func (s *side) item(it store.Item) store.Item {
	it.Key = it.Key[len(s.prefix):]
	it.Rev, it.Created = s.rev(it.Rev), s.rev(it.Created)
	for i, id := range s.leases {
		if id == it.Lease {
			it.Lease = store.LeaseID(i + 1)
		}
	}
	return it
}

// why gives an error as its kind, in which two stores must agree.
func why(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, store.ErrCompacted):
		return "compacted"
	}
	return "kind " + string(fault.KindOf(err))
}

// keys that collide, nest and sort in surprising ways.
var key = rapid.SampledFrom([]string{"a", "a/", "a/b", "a/b/c", "a0", "b", "\x00", "\xff", "\xff\xff"})

func (s *side) lease(i int) store.LeaseID {
	if i == 0 {
		return 0
	}
	return s.leases[i-1]
}

// plan is a transaction in common terms.
type plan struct {
	If   []store.Cond
	Then []planned
}

type planned struct {
	Key, Value string
	Delete     bool
	Lease      int
}

func (m *model) plan(rt *rapid.T) plan {
	_, now, err := m.sides[0].kv.List(m.ctx, m.sides[0].prefix, store.Read{})
	if err != nil {
		rt.Fatalf("list: %v", err)
	}
	rel := rapid.Int64Range(0, m.sides[0].rev(now)+1)
	var p plan
	for range rapid.IntRange(0, 2).Draw(rt, "conditions") {
		c := store.Cond{Key: key.Draw(rt, "key")}
		if it, ok, _ := m.sides[0].kv.Get(m.ctx, m.sides[0].prefix+c.Key, store.Read{}); ok && rapid.Bool().Draw(rt, "true") {
			c.Rev = m.sides[0].rev(it.Rev)
			if rapid.Bool().Draw(rt, "by creation") {
				c.Rev, c.Created = 0, m.sides[0].rev(it.Created)
			}
		} else if rapid.Bool().Draw(rt, "by creation") {
			c.Created = rel.Draw(rt, "created")
		} else if rapid.Bool().Draw(rt, "there") {
			c.Rev = rel.Draw(rt, "rev")
		}
		p.If = append(p.If, c)
	}
	for range rapid.IntRange(0, 4).Draw(rt, "ops") {
		p.Then = append(p.Then, planned{
			Key:    key.Draw(rt, "key"),
			Value:  rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "value"),
			Delete: rapid.IntRange(0, 3).Draw(rt, "delete") == 0,
			Lease:  max(0, rapid.IntRange(-2, m.leases).Draw(rt, "lease")),
		})
	}
	return p
}

func (s *side) txn(p plan) (t store.Txn) {
	for _, c := range p.If {
		t.If = append(t.If, store.Cond{Key: s.prefix + c.Key, Rev: s.abs(c.Rev), Created: s.abs(c.Created)})
	}
	for _, o := range p.Then {
		op := store.Op{Key: s.prefix + o.Key}
		if !o.Delete {
			op.Value, op.Lease = []byte(o.Value), s.lease(o.Lease)
		}
		t.Then = append(t.Then, op)
	}
	return t
}

func (m *model) commit(rt *rapid.T) {
	p := m.plan(rt)
	m.both(rt, func(s *side) any {
		rev, ok, err := s.kv.Commit(m.ctx, s.txn(p))
		return answer{Rev: s.rev(rev), OK: ok, Err: why(err)}
	})
}

func (m *model) get(rt *rapid.T) {
	k := key.Draw(rt, "key")
	m.both(rt, func(s *side) any {
		it, ok, err := s.kv.Get(m.ctx, s.prefix+k, store.Read{})
		a := answer{OK: ok, Err: why(err)}
		if ok {
			a.Items = []store.Item{s.item(it)}
		}
		return a
	})
}

func (m *model) list(rt *rapid.T) {
	prefix := rapid.OneOf(rapid.Just(""), key).Draw(rt, "prefix")
	m.both(rt, func(s *side) any {
		items, rev, err := s.kv.List(m.ctx, s.prefix+prefix, store.Read{})
		a := answer{Rev: s.rev(rev), Err: why(err)}
		for _, it := range items {
			a.Items = append(a.Items, s.item(it))
		}
		return a
	})
}

func (m *model) grant(rt *rapid.T) {
	m.leases++
	m.both(rt, func(s *side) any {
		id, err := s.kv.Grant(m.ctx, time.Hour)
		s.leases = append(s.leases, id)
		return answer{OK: id != 0, Err: why(err)}
	})
}

func (m *model) renew(rt *rapid.T) {
	if m.leases == 0 {
		rt.Skip("no lease yet")
	}
	i := rapid.IntRange(1, m.leases).Draw(rt, "lease")
	m.both(rt, func(s *side) any { return why(s.kv.Renew(m.ctx, s.lease(i))) })
}

func (m *model) revoke(rt *rapid.T) {
	if m.leases == 0 {
		rt.Skip("no lease yet")
	}
	i := rapid.IntRange(1, m.leases).Draw(rt, "lease")
	m.both(rt, func(s *side) any {
		err := s.kv.Revoke(m.ctx, s.lease(i))
		_, rev, _ := s.kv.List(m.ctx, s.prefix, store.Read{})
		return answer{Rev: s.rev(rev), Err: why(err)}
	})
}

// watch reads everything since a random revision, up to a mark that it makes. Both sides read at the same time as other operations
// go on, as etcd takes up to 100 ms to send what is past; but not while the past is compacted.
func (m *model) watch(rt *rapid.T) {
	m.marks++
	prefix := rapid.OneOf(rapid.Just(""), key).Draw(rt, "prefix")
	mark := prefix + "mark" // under the prefix
	value := []byte(fmt.Sprint(m.marks))
	now := m.both(rt, func(s *side) any {
		rev, _, err := s.kv.Commit(m.ctx, store.Txn{Then: []store.Op{{Key: s.prefix + mark, Value: value}}})
		return answer{Rev: s.rev(rev), Err: why(err)}
	}).(answer).Rev
	after := rapid.Int64Range(0, now-1).Draw(rt, "after")
	var got [2]chan answer
	for i, s := range m.sides {
		got[i] = make(chan answer, 1)
		then := *s // the leases of this moment
		go func() { got[i] <- m.watched(&then, s.prefix+prefix, s.start+after, s.start+now) }()
	}
	m.reading = append(m.reading, got)
}

// settle waits for all watches and compares what they gave.
func (m *model) settle(rt *rapid.T) {
	for _, got := range m.reading {
		if d := cmp.Diff(<-got[0], <-got[1]); d != "" {
			rt.Errorf("the watches differ (- first, + second):\n%s", d)
		}
	}
	m.reading = nil
	if rt.Failed() {
		rt.FailNow()
	}
}

// watched collects the updates in (after, until].
func (m *model) watched(s *side, prefix string, after, until int64) (a answer) {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	for u := range s.kv.Watch(ctx, prefix, after) {
		if u.Err != nil {
			a.Err = why(u.Err)
			return a
		}
		if len(u.Events) == 0 {
			continue
		}
		common := store.Update{Rev: s.rev(u.Rev)}
		for _, e := range u.Events {
			common.Events = append(common.Events, store.Event{Item: s.item(e.Item), Deleted: e.Deleted})
		}
		if a.Updates = append(a.Updates, common); u.Rev >= until {
			return a
		}
	}
	a.Err = "closed"
	return a
}

func (m *model) compact(rt *rapid.T) {
	m.settle(rt)
	_, now, err := m.sides[0].kv.List(m.ctx, m.sides[0].prefix, store.Read{})
	if err != nil {
		rt.Fatalf("list: %v", err)
	}
	at := rapid.Int64Range(1, max(1, m.sides[0].rev(now)+1)).Draw(rt, "rev")
	m.both(rt, func(s *side) any {
		err := s.bed.Compact(m.ctx, s.start+at)
		return answer{OK: err == nil}
	})
}
