package netbed

import (
	"errors"
	"testing"
	"time"
)

// TestPausedMachine stops all that a machine does for longer than its lease, its leader's machine first, and lets it go on: its units run elsewhere
// meanwhile, and once more where the store says and nowhere else soon after.
func TestPausedMachine(t *testing.T) {
	if !*long {
		t.Skip("with -long only")
	}
	b := newCluster(t, 3, 3)
	sole, _ := b.launchUnits(t, 1, 3, 3)
	h := b.history(t, "sole@1.service", "sole@2.service", "sole@3.service")
	type pause struct {
		machine string
		span
	}
	var pauses []pause
	for range 4 {
		i := b.leader(t, 1)
		other := b.others(i)[0]
		p := pause{machine: b.at(i).name, span: span{from: sinceBoot()}}
		b.Pause(t, i)
		spend(t, 15*time.Second, func() error { return nil })
		within(t, patience, "every exclusive unit runs elsewhere", func() error {
			for _, u := range sole {
				if !elsewhere(b.running()[u], i) {
					return errors.New(u + " does not")
				}
			}
			return nil
		})
		p.to = sinceBoot()
		b.Resume(t, i)
		pauses = append(pauses, p)
		b.ready(t, other, i)
		b.whole(t)
	}
	lives := only(b.lives(t), sole...)
	for _, p := range pauses {
		lives = pardonWaking(lives, p.machine, p.span, time.Second)
	}
	if err := judgeExclusive(lives); err != nil {
		t.Error(err)
	}
	if err := h.verdict(); err != nil {
		t.Error(err)
	}
}

// elsewhere reports whether a unit runs on another machine than one.
func elsewhere(on []int, not int) bool {
	for _, i := range on {
		if i != not {
			return true
		}
	}
	return false
}

// TestSickDisks lets the disk of the store's leader hang, makes it slow, and fills it: keys can be written again soon, no unit is restarted but on a
// machine that was taken for lost, and all is well when the disk is.
func TestSickDisks(t *testing.T) {
	if !*long {
		t.Skip("with -long only")
	}
	b := newBed(t, 3)
	for i := 1; i <= 3; i++ {
		b.smallDisk(t, i, 600)
	}
	b.cluster(t, 3)
	sole, _ := b.launchUnits(t, 1, 2, 4)
	for _, c := range []struct {
		name string
		make func(i int) (mend func())
		last time.Duration
	}{
		{"hangs", func(i int) func() { return b.hangDisk(t, i) }, 15 * time.Second},
		{"slow", func(i int) func() { return b.slowDisk(t, i, 300*time.Millisecond, 400*time.Millisecond) }, 30 * time.Second},
		{"full", func(i int) func() { return b.fillDisk(t, i, 64) }, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := b.status(1)
			if err != nil {
				t.Fatal(err)
			}
			i := b.number(t, s.Store.Leader)
			w := b.write(t, b.others(i)[0], c.name, 50*time.Millisecond)
			mend := c.make(i)
			spend(t, c.last, func() error { return b.exclusiveNow(sole) })
			mend()
			n, worst := w.end()
			t.Logf("%d keys, the longest wait for one %s", n, worst)
			if worst > promised(10*time.Second) {
				t.Errorf("for %s no key could be written", worst)
			}
			b.ready(t, 1, 1, 2, 3)
			b.whole(t)
			w.judge(t, b.others(i)[1])
			b.exclusiveEver(t, sole)
		})
	}
}
