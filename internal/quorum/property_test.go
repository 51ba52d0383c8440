package quorum

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"flota/internal/machine"
)

// TestAnyHistory: whatever happened, no step takes a majority away (world.do), the order of the input means nothing, and when nothing happens any
// more the store becomes what it should be and stays so.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t.Fatalf)
		drawHistory(t, w)
		one, two := Make(w.input(), w.now), Make(shuffled(t, w.input()), w.now)
		if d := cmp.Diff(one, two); d != "" {
			t.Fatalf("the order of the input matters: %s", d)
		}
		before := len(w.done)
		last := w.settle()
		if n := len(w.done) - before; n > 12*len(w.machines)+40 {
			t.Fatalf("%d steps to settle %d machines: %v", n, len(w.machines), w.done[len(w.done)-20:])
		}
		w.pass(time.Hour)
		if p := Make(w.input(), w.now); len(p.Steps) > 0 {
			t.Fatalf("steps after all was settled: %v", p.Steps)
		}
		if w.works() {
			checkSettled(t, w, last)
		}
	})
}

// checkSettled checks what should be true of a store whose majority is there, after enough time.
func checkSettled(t *rapid.T, w *world, p Plan) {
	voters, live := w.count()
	free, counted, leaving := 0, 0, 0 // machines that could take a place; that count; that are about to go
	for _, m := range w.machines {
		at := memberOf(w, m)
		if !m.Removing {
			counted++
		}
		if m.Leaving {
			leaving++
		}
		if m.Alive && !m.Removing && !m.Leaving && (at == nil || at.Learner) {
			free++
		}
	}
	if voters != p.Voters && !(counted == 0 && voters == 1) {
		t.Fatalf("%d voters, wanted %d: %v", voters, p.Voters, p.Waiting)
	}
	if voters%2 == 0 || voters > MaxVoters {
		t.Fatalf("%d voters", voters)
	}
	if live < voters && free > 0 && counted > 0 {
		t.Fatalf("a dead voter was not replaced though %d machines could: %s, %v", free, w.names(), p.Waiting)
	}
	learners := 0
	for _, m := range w.members {
		x := w.at(m)
		if m.Learner {
			learners++
		}
		if x == nil || x.Removing && voters > 1 {
			t.Fatalf("%s is still a member: %v", m.Name, p.Waiting)
		}
		role := w.votes[x.ID].Role
		if w.votes[x.ID].Member != m.ID || (role == machine.Voter) == m.Learner {
			t.Fatalf("the vote of %s is %+v", x.Name, w.votes[x.ID])
		}
	}
	if len(w.votes) != len(w.members) {
		t.Fatalf("%d votes of %d members", len(w.votes), len(w.members))
	}
	if want := btoi(voters == 1 && free > 0 && counted > 1); learners < want || learners > 1 || learners == 1 && voters > 1 {
		t.Fatalf("%d learners beside %d voters", learners, voters)
	}
	if voters < p.Voters && len(p.Waiting) == 0 {
		t.Fatal("nobody says why")
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func memberOf(w *world, m *Machine) *Member {
	for _, x := range w.members {
		if x.Peer == m.Peer {
			return x
		}
	}
	return nil
}

// TestAwayIsNotGone: machines that die and return, in any number, never make the store smaller; only removals do.
func TestAwayIsNotGone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t.Fatalf)
		for range rapid.IntRange(0, 8).Draw(t, "machines") {
			w.join(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"))
		}
		w.settle()
		held, _ := w.count()
		for range rapid.IntRange(1, 5).Draw(t, "rounds") {
			for _, m := range w.machines {
				if rapid.IntRange(0, 2).Draw(t, "fate") == 0 {
					w.kill(m)
				} else {
					w.revive(m)
				}
			}
			w.settle()
			if n, _ := w.count(); n < held {
				t.Fatalf("%d voters of %d: %s", n, held, w.names())
			}
		}
		for _, m := range w.machines {
			w.revive(m)
		}
		w.settle()
		if n, live := w.count(); n < held || live != n {
			t.Fatalf("all are back, and %d of %d voters are: %s", live, held, w.names())
		}
	})
}
