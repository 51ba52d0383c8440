package admit

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// steps keeps what a removal tells.
type steps struct {
	mu  sync.Mutex // guards the field below
	all []string
}

func (s *steps) tell(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, text)
}

func (s *steps) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(x string) bool { return strings.Contains(x, text) })
}

// members lets machines 2 to n in, alive.
func (b *bed) members(n int) []*trust.Identity {
	b.t.Helper()
	tok := b.token(NewToken{Uses: n})
	ids := []*trust.Identity{b.desk.o.Identity}
	for i := 2; i <= n; i++ {
		ids = append(ids, b.in(b.desk, b.joiner(i, tok.Text)))
		b.alive(i)
	}
	return ids
}

// record gives the record of machine n.
func (b *bed) record(n int) (machine.Machine, bool) {
	b.t.Helper()
	e, ok, err := b.st.Machines.Get(context.Background(), string(idOf(n)), store.Read{})
	if err != nil {
		b.t.Fatal(err)
	}
	return e.Value, ok
}

func TestRemove(t *testing.T) {
	b := newBed(t)
	b.members(3)
	b.vote(2, machine.Voter)
	b.place(2, "a.service")
	var said steps
	done := make(chan error, 1)
	go func() { done <- b.desk.Remove(context.Background(), "m2", RemoveOptions{Tell: said.tell}) }()
	until(t, "it waits for the unit", func() bool { return said.has("waits for 1 unit to move: a.service") })
	if m, _ := b.record(2); !m.Drained || !m.Leaving {
		t.Errorf("%+v", m)
	}
	if _, err := b.st.Places.Delete(t.Context(), store.PlaceKey(idOf(2), "a.service")); err != nil {
		t.Fatal(err)
	}
	until(t, "it waits for the vote", func() bool { return said.has("waits for its vote to move") })
	if _, err := b.st.Voters.Delete(t.Context(), string(idOf(2))); err != nil {
		t.Fatal(err)
	}
	until(t, "its certificate is worth nothing", func() bool { return said.has("opens nothing") })
	if _, ok := b.record(2); !ok {
		t.Error("it is forgotten while it is still there: units could be placed on it")
	}
	b.place(2, "late.service")
	b.dead(2)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, ok := b.record(2); ok {
		t.Error("its record is there")
	}
	for _, prefix := range []string{"names/m2", "places/" + string(idOf(2)), "alive/" + string(idOf(2))} {
		if items, _, _ := b.mem.List(t.Context(), store.Prefix+prefix, store.Read{}); len(items) > 0 {
			t.Errorf("%s is there", items[0].Key)
		}
	}
	g, ok, _ := b.st.Removed.Get(t.Context(), string(idOf(2)), store.Read{})
	if !ok || g.Value.Name != "m2" || g.Value.Reason == "" {
		t.Errorf("%+v", g.Value)
	}
	refused(t, b.desk.Remove(t.Context(), "m2", RemoveOptions{}), fault.NotFound, "m2")
	refused(t, b.desk.Remove(t.Context(), "m1", RemoveOptions{}), fault.Conflict, "itself")
}

// A machine that is gone is not waited for; one whose removal is broken off can be taken back, or removed again.
func TestRemoveGoneAndBrokenOff(t *testing.T) {
	b := newBed(t)
	b.members(3)
	b.dead(2)
	b.place(2, "a.service")
	if err := b.desk.Remove(t.Context(), string(idOf(2)), RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	b.place(3, "b.service")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	refused(t, b.desk.Remove(ctx, "m3", RemoveOptions{}), fault.TimedOut, "waits for 1 unit")
	var said steps
	done := make(chan error, 1)
	go func() { done <- b.desk.Remove(context.Background(), "m3", RemoveOptions{Force: true, Tell: said.tell}) }()
	until(t, "it is shut out", func() bool { return said.has("opens nothing") })
	b.dead(3)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRemovalOutlastsAnOutage(t *testing.T) {
	b := newBed(t)
	b.members(2)
	b.place(2, "a.service")
	var said steps
	done := make(chan error, 1)
	go func() { done <- b.desk.Remove(context.Background(), "m2", RemoveOptions{Tell: said.tell}) }()
	until(t, "it waits", func() bool { return said.has("a.service") })
	b.kv.Down(true)
	until(t, "it tells of the outage", func() bool { return said.has("waits for the store") })
	if _, err := b.st.Places.Delete(t.Context(), store.PlaceKey(idOf(2), "a.service")); err != nil {
		t.Fatal(err)
	}
	b.dead(2)
	b.kv.Down(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLeave(t *testing.T) {
	b := newBed(t)
	ids := b.members(3)
	two := b.newDesk(ids[1], b.mem, 2)
	var said steps
	if err := two.Leave(t.Context(), RemoveOptions{Tell: said.tell}); err != nil || !said.has("left the cluster") {
		t.Fatalf("%v, %q", err, said.all)
	}
	if m, ok := b.record(2); !ok || !m.Left {
		t.Errorf("%+v", m)
	}
	background(t, b.desk.Run)
	until(t, "it is shut out", func() bool {
		_, ok, _ := b.st.Removed.Get(t.Context(), string(idOf(2)), store.Read{})
		return ok
	})
	b.dead(2)
	until(t, "it is forgotten", func() bool { _, ok := b.record(2); return !ok })
	_, err := two.Register(t.Context())
	refused(t, err, fault.Denied, "removed from the cluster")
}

func TestWithout(t *testing.T) {
	for name, c := range map[string]struct {
		all, there, voters []int
		remove             int
		want               string
		fatal              bool
	}{
		"a client":                    {all: []int{1, 2}, there: []int{1, 2}, voters: []int{1}, remove: 2},
		"the only machine":            {all: []int{1}, there: []int{1}, voters: []int{1}, remove: 1, want: "only machine", fatal: true},
		"the voter of two":            {all: []int{1, 2}, there: []int{1, 2}, voters: []int{1}, remove: 1},
		"the voter, the other gone":   {all: []int{1, 2}, there: []int{1}, voters: []int{1}, remove: 1, want: "no other machine is there"},
		"one of three":                {all: []int{1, 2, 3}, there: []int{1, 2, 3}, voters: []int{1, 2, 3}, remove: 2},
		"the dead one of three":       {all: []int{1, 2, 3}, there: []int{1, 2}, voters: []int{1, 2, 3}, remove: 3},
		"a live one while one is out": {all: []int{1, 2, 3}, there: []int{1, 2}, voters: []int{1, 2, 3}, remove: 2, want: "m1 and m3 would vote, m3 is gone; 2 of 2 are needed"},
		"one of five, one out":        {all: []int{1, 2, 3, 4, 5}, there: []int{1, 2, 3, 4}, voters: []int{1, 2, 3, 4, 5}, remove: 2},
	} {
		cc := council{names: map[machine.ID]string{}, there: map[machine.ID]bool{}}
		for _, n := range c.all {
			cc.names[idOf(n)] = "m" + string(rune('0'+n))
		}
		for _, n := range c.there {
			cc.there[idOf(n)] = true
		}
		for _, n := range c.voters {
			cc.voters = append(cc.voters, idOf(n))
		}
		got := cc.without(idOf(c.remove))
		if !strings.Contains(got.what, c.want) || (got.what == "") != (c.want == "") || got.fatal != c.fatal {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

func TestRemoveRefusesToBreakTheQuorum(t *testing.T) {
	b := newBed(t)
	b.members(3)
	b.vote(2, machine.Voter)
	b.vote(3, machine.Voter)
	b.dead(3)
	refused(t, b.desk.Remove(t.Context(), "m2", RemoveOptions{}), fault.Conflict, "m3 is gone")
	if m, _ := b.record(2); m.Drained || m.Leaving {
		t.Error("a refused removal changed something")
	}
	b.dead(2)
	var said steps
	if err := b.desk.Remove(t.Context(), "m2", RemoveOptions{Force: true, Tell: said.tell}); err != nil || !said.has("the quorum is lost") {
		t.Errorf("%v, %q", err, said.all)
	}
}

func TestPrune(t *testing.T) {
	b := newBed(t)
	b.members(2)
	b.dead(2)
	if err := b.desk.Remove(t.Context(), "m2", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	count := func() (tokens, gone int) {
		all, _ := b.desk.Tokens(t.Context())
		g, _, _ := b.st.Removed.List(t.Context(), "", store.Read{})
		return len(all), len(g)
	}
	for _, c := range []struct {
		pass         time.Duration
		tokens, gone int
	}{{2 * time.Hour, 1, 1}, {25 * time.Hour, 0, 1}, {30 * 24 * time.Hour, 0, 0}} {
		b.pass(c.pass)
		if err := b.desk.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, g := count(); n != c.tokens || g != c.gone {
			t.Errorf("after %s more: %d tokens, %d removed", c.pass, n, g)
		}
	}
}
