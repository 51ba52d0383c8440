package voter

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/machine"
	"flota/internal/quorum"
)

func TestGrowReplaceShrink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join("a")
		b.until("[m1]", 20*time.Second)
		b.join("a")
		b.until("[m1] m2", 20*time.Second)
		b.join("b")
		b.until("[m1 m2 m3]", 20*time.Second)
		b.join("b")
		b.join("c")
		b.until("[m1 m3 m5]", 20*time.Second) // spread
		if st := b.stewards(); len(st) != 1 || len(st[0].Members) != 3 || st[0].Voters != 3 || len(st[0].Doing)+len(st[0].Waiting) > 0 || st[0].Trouble != "" {
			t.Errorf("%+v", st)
		}

		b.machines[0].kill() // the leader; for good
		if took := b.until("[m2 m3 m5]", 2*time.Minute); took > 90*time.Second {
			t.Errorf("replaced after %v", took)
		}
		b.machines[0].start() // its member was removed meanwhile
		b.until("[m2 m3 m5]", 20*time.Second)
		time.Sleep(time.Second)
		if old, _ := b.machines[0].local.disk.old(); len(old) != 1 || b.machines[0].local.disk.holds() {
			t.Errorf("old copies: %v", old)
		}

		for _, c := range []struct {
			gone int
			want string
		}{{3, "[m1 m2 m5]"}, {5, "[m1 m2 m4]"}, {2, "[m1] m4"}, {1, "[m4]"}} {
			h := b.machines[c.gone-1]
			h.update(func(m *machine.Machine) { m.Leaving = true })
			for i := 0; h.local.Role().Member != nil || b.isMember(h); i++ {
				if i > 300 {
					t.Fatalf("%s does not go: %+v", h.name, b.stewards())
				}
				time.Sleep(100 * time.Millisecond)
			}
			if _, err := b.store.Machines.Delete(t.Context(), string(h.id)); err != nil {
				t.Fatal(err)
			}
			b.settled(c.want)
			h.kill()
		}
	})
}

func (b *bed) isMember(h *host) bool {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	for _, m := range b.engine.members {
		if m.Peer == h.peer {
			return true
		}
	}
	return false
}

// settled waits until as many voters and learners are there as want has.
func (b *bed) settled(want string) {
	b.t.Helper()
	shape := func(s string) [2]int {
		voters, learners, _ := strings.Cut(s, "]")
		return [2]int{len(strings.Fields(voters)), len(strings.Fields(learners))}
	}
	for range 600 {
		if shape(b.names()) == shape(want) && b.agree() == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.t.Fatalf("%s, want as many as %s: %v %+v", b.names(), want, b.agree(), b.stewards())
}

// TestStewardDies kills the leading machine after each change of the engine, before it can write it down.
func TestStewardDies(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"add", "promote", "remove"} {
		for skip := range 3 {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				for range 5 {
					b.join("a")
				}
				b.settled("[1 2 3]")
				armed, killed := skip, make(chan struct{})
				b.engine.mu.Lock()
				b.engine.after = func(got string) {
					if got != op || armed < 0 {
						return
					}
					if armed--; armed >= 0 {
						return
					}
					for _, h := range b.all() {
						if h.up() && h.steward.Status().Leads {
							h.mu.Lock()
							h.cancel() // its ctx ends here; kill below does the rest
							h.mu.Unlock()
							go func() { defer close(killed); h.kill() }()
						}
					}
				}
				b.engine.mu.Unlock()
				for _, h := range b.machines[1:] {
					if h.local.Role().Votes {
						h.update(func(m *machine.Machine) { m.Drained = true })
					}
				}
				select {
				case <-killed:
				case <-time.After(time.Minute): // there are not so many changes
					b.settled("[1 2 3]")
					return
				}
				time.Sleep(3 * time.Minute)
				b.settled("[1 2 3]")
			})
		}
	}
}

// TestChaos kills and starts machines at random, and wants all well at the end.
func TestChaos(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			b, r := newBed(t), rand.New(rand.NewPCG(seed, 1))
			for range 7 {
				b.join(string(rune('a' + r.IntN(3))))
			}
			b.settled("[1 2 3 4 5]")
			for range 60 {
				h := b.machines[r.IntN(len(b.machines))]
				switch {
				case !h.up():
					h.start()
				case r.IntN(3) == 0:
					h.kill()
				case r.IntN(3) == 0:
					h.update(func(m *machine.Machine) { m.Drained = !m.Drained })
				}
				time.Sleep(time.Duration(r.IntN(40)) * time.Second)
				if n := strings.Count(strings.Split(b.names(), "]")[0], "m"); n < 3 {
					t.Fatalf("seed %d: %s", seed, b.names())
				}
			}
			for _, h := range b.machines {
				if !h.up() {
					h.start()
				}
				h.update(func(m *machine.Machine) { m.Drained = false })
			}
			time.Sleep(10 * time.Minute)
			b.settled("[1 2 3 4 5]")
		})
	}
}

// TestNotLeading: a steward whose machine has lost the election does nothing more.
func TestNotLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		h := b.join("a")
		b.until("[m1]", 20*time.Second)
		n, err := h.steward.read(t.Context(), h.local.Engine())
		if err != nil {
			t.Fatal(err)
		}
		if err := h.steward.lead(t.Context(), n.guard); err != nil {
			t.Error(err)
		}
		n.guard.Created--
		if err := h.steward.lead(t.Context(), n.guard); err != errLost {
			t.Error(err)
		}
		step := quorumRecord(h)
		if err := h.steward.do(context.Background(), h.local.Engine(), n, step); err == nil {
			t.Error("wrote without leading")
		}
	})
}

func quorumRecord(h *host) quorum.Step {
	return quorum.Step{Kind: quorum.Record, Machine: h.id, Name: h.name, Member: "1", Role: machine.Learner, Reason: "test"}
}
