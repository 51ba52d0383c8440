package netbed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// works wants a change of the cluster to be taken and done.
func (b *bed) works(t *testing.T, at int, unit string) {
	t.Helper()
	within(t, patience, "a change is taken", func() error {
		if r := b.run(at, "start", unit); r.code != 0 {
			return errors.New(r.String())
		}
		return nil
	})
}

// TestDeadVoterIsReplaced kills one of three voters for good: within two minutes (a quarter of that here, for a shorter wait) the fourth machine is a
// voter and the dead one is no member, and the loss of one more is borne.
func TestDeadVoterIsReplaced(t *testing.T) {
	flags, limit := []string{"--replace-after", "10s"}, 70*time.Second
	if *long {
		flags, limit = nil, 2*time.Minute
	}
	b := newCluster(t, 4, 4, flags...)
	b.launchUnits(t, 1, 1, 4)
	voters := b.voting(t, 1, 3)
	dead := b.number(t, voters[rand.IntN(3)])
	b.Kill(t, dead)
	rest := b.others(dead)
	var now []string
	took := within(t, limit, "the fourth machine votes", func() (err error) {
		if now, err = b.voters(rest[0]); err != nil {
			return err
		}
		if len(now) != 3 || slices.Contains(now, b.at(dead).name) {
			return fmt.Errorf("%v vote", now)
		}
		return nil
	})
	t.Logf("%s was replaced after %s", b.at(dead).name, took.Round(100*time.Millisecond))
	second := rest[rand.IntN(3)]
	b.Kill(t, second)
	left := b.others(dead)
	left = slices.DeleteFunc(left, func(i int) bool { return i == second })
	b.works(t, left[0], "plain@9")
	within(t, patience, "every unit runs", func() error { return b.agree(left[1]) })
	b.start(t, dead) // it comes back with old data: never as a second voter of the old cluster
	b.ready(t, left[0], dead)
	within(t, promised(healed), "every unit where the store says", func() error { return b.agree(dead) })
}

// TestGrowAndShrink grows a cluster from one machine to seven and shrinks it to one, while 50 units run and an application writes 20 keys per second:
// nothing acknowledged is lost, no unit is restarted except where its machine left, the keys are never unwritable for 10 s.
func TestGrowAndShrink(t *testing.T) {
	b := newCluster(t, 7, 1)
	_, plain := b.launchUnits(t, 1, 0, 50)
	h := b.history(t)
	w := b.write(t, 1, "load", 50*time.Millisecond)
	b.join(t, 1, []int{2, 3, 4, 5, 6, 7})
	b.ready(t, 1, 1, 2, 3, 4, 5, 6, 7)
	b.voting(t, 1, 5)
	if err := b.onlyMoved(t, plain, nil, 0); err != nil {
		t.Error("growing stops what runs:", err)
	}
	b.must(t, 1, "rebalance", "--apply") // which does restart what it moves
	within(t, patience, "every unit where the store says", func() error { return b.agree(1) })
	settled := sinceBoot()
	order := rand.Perm(7)
	last := order[6] + 1
	w.moveTo(t, last)
	left := map[string]time.Duration{}
	for n, k := range order[:6] {
		i := k + 1
		left[b.at(i).name] = sinceBoot()
		if n%2 == 0 {
			b.must(t, last, "machine", "remove", b.at(i).name)
		} else {
			b.must(t, i, "leave", "--yes")
		}
		within(t, patience, "it is gone", func() error {
			s, err := b.status(last)
			if err == nil && slices.ContainsFunc(s.Machines, func(m seen) bool { return m.Name == b.at(i).name }) {
				err = fmt.Errorf("%s is there", b.at(i).name)
			}
			return err
		})
		b.voting(t, last, wantVoters(6-n))
		within(t, patience, "nothing runs on a machine that left", func() error {
			if on := b.runningNames(i); len(on) > 0 {
				return fmt.Errorf("%v", on)
			}
			return nil
		})
		b.Kill(t, i)
	}
	within(t, patience, "every unit where the store says", func() error { return b.agree(last) })
	if n := len(b.running()); n != len(plain) {
		t.Errorf("%d of %d units run", n, len(plain))
	}
	if err := b.onlyMoved(t, plain, left, settled); err != nil {
		t.Error(err)
	}
	acked, worst := w.end()
	t.Logf("%d keys, the longest wait for one %s", acked, worst.Round(10*time.Millisecond))
	if worst > promised(10*time.Second) {
		t.Errorf("for %s no key could be written", worst)
	}
	w.judge(t, last)
	if err := h.verdict(); err != nil {
		t.Error(err)
	}
}

// onlyMoved says which units ended since a time without their machine having left.
func (b *bed) onlyMoved(t *testing.T, units []string, left map[string]time.Duration, since time.Duration) error {
	t.Helper()
	var late []life
	for _, l := range only(b.lives(t), units...) {
		if l.last >= since {
			late = append(late, l)
		}
	}
	return judgeRestarts(late, left, sinceBoot(), plainTick)
}

// TestWitness has two machines and a witness, which votes, runs nothing and is small. The power of either machine is cut: the other has its units
// within ten seconds. The power of the witness is cut: nothing happens.
func TestWitness(t *testing.T) {
	b := newBed(t, 3)
	needFlota(t)
	b.found(t, 1)
	b.join(t, 1, []int{2})
	b.join(t, 1, []int{3}, "--witness")
	b.ready(t, 1, 1, 2, 3)
	b.voting(t, 1, 3)
	sole, plain := b.launchUnits(t, 1, 2, 6)
	all := len(sole) + len(plain)
	h := b.history(t, "sole@1.service", "sole@2.service")
	for _, i := range []int{1, 2} {
		other := 3 - i
		within(t, patience, "units on both machines", func() error { return b.spread(t, other) })
		b.Kill(t, i)
		took := within(t, promised(10*time.Second), "all units on the other machine", func() error {
			for u, on := range b.running() {
				if len(on) != 1 || on[0] != other {
					return fmt.Errorf("%s on %v", u, on)
				}
			}
			if n := len(b.running()); n != all {
				return fmt.Errorf("%d of %d run", n, all)
			}
			return nil
		})
		t.Logf("m%d was killed; m%d has all units after %s", i, other, took.Round(10*time.Millisecond))
		b.start(t, i)
		b.ready(t, other, i)
	}
	small := 0
	for _, p := range b.of(3) {
		small += resident(t, p.pid)
	}
	if small == 0 || small > 40<<10 {
		t.Errorf("the witness takes %d KiB", small)
	}
	t.Logf("the witness takes %.1f MiB", float64(small)/1024)
	before := sinceBoot()
	b.Kill(t, 3)
	spend(t, 12*time.Second, func() error {
		return judgeUndisturbed(only(b.lives(t), slices.Concat(sole, plain)...), span{before, sinceBoot()}, plainTick)
	})
	b.works(t, 2, "plain@9")
	b.exclusiveEver(t, sole)
	if err := h.verdict(); err != nil {
		t.Error(err)
	}
}

// spread sees to it that a machine that came back has units again.
func (b *bed) spread(t *testing.T, at int) error {
	t.Helper()
	on := map[int]int{}
	for _, is := range b.running() {
		for _, i := range is {
			on[i]++
		}
	}
	if on[3] > 0 {
		t.Fatalf("the witness runs units: %v", b.running())
	}
	if on[1] > 0 && on[2] > 0 {
		return b.agree(at)
	}
	if r := b.run(at, "rebalance", "--apply"); r.code != 0 {
		return errors.New(r.String())
	}
	return fmt.Errorf("units by machine: %v", on)
}

// resident is how much memory a process has, in KiB, with what it shares.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib := 0
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatalf("memory of %d: %v", pid, err)
	}
	return kib
}
