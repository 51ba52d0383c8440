package netbed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestPowerCutOfAllFive cuts the power of five machines in the middle of writes and starts them in any order, again and again: all that was
// launched runs within 30 s of the last start, and nothing that was acknowledged is lost. (What had not been synced survives here: see the
// package's comment.)
func TestPowerCutOfAllFive(t *testing.T) {
	rounds := 2
	if *long {
		rounds = 20
	}
	b := newCluster(t, 5, 5)
	sole, plain := b.launchUnits(t, 1, 3, 12)
	h := b.history(t, "sole@1.service", "sole@2.service", "sole@3.service")
	writers := []*writer{b.write(t, 1, "one", 20*time.Millisecond), b.write(t, 4, "other", 20*time.Millisecond)}
	for round := range rounds {
		n := writers[0].count()
		within(t, patience, "writes", func() error {
			if writers[0].count() < n+20 {
				return errors.New("few so far")
			}
			return nil
		})
		b.PowerCut(t)
		if on := b.running(); len(on) > 0 {
			t.Fatalf("units have outlived their machines: %v", on)
		}
		for _, i := range rand.Perm(5) {
			b.start(t, i+1)
		}
		took := within(t, promised(30*time.Second), "all that was launched", func() error {
			on := b.running()
			if len(on) != len(sole)+len(plain) {
				return fmt.Errorf("%d units run: %v", len(on), on)
			}
			return b.agree(rand.IntN(5) + 1)
		})
		t.Logf("round %d: %s", round+1, took.Round(10*time.Millisecond))
	}
	b.exclusiveEver(t, sole)
	for _, w := range writers {
		w.end()
		w.judge(t, 2)
	}
	if err := h.verdict(); err != nil {
		t.Error(err)
	}
}
