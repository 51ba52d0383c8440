package sim_test

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/sim"
)

var (
	oneSeed    = flag.Uint64("seed", 0, "tell only the story of this seed")
	seeds      = flag.Uint64("seeds", 80, "tell the stories of so many seeds; about 0.3 s of a processor each with -race")
	voterSeeds = flag.Uint64("voterseeds", 12, "tell so many stories with voters; about 1 s of a processor each with -race")
	from       = flag.Uint64("from", 1, "the first of them")
	steps      = flag.Int("steps", 40, "how long a story is")
	soak       = flag.Bool("soak", false, "tell stories of new seeds until stopped")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tell tells the story of a seed and gives the simulated time.
func tell(t *testing.T, seed uint64) (took time.Duration) {
	t.Helper()
	ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := sim.New(t, 3+int(seed%3))
			sim.Tell(c, seed, *steps)
			took = c.Elapsed()
			c.End()
		})
	})
	if !ok {
		t.Errorf("seed %d broke a promise: go test ./internal/sim -run Seeds -seed %d -count 20", seed, seed)
	}
	return took
}

func TestSeeds(t *testing.T) {
	if *oneSeed != 0 {
		tell(t, *oneSeed)
		return
	}
	n := *seeds
	if testing.Short() {
		n = min(n, 20)
	}
	t.Parallel()
	each(t, *from, n, func(t *testing.T, seed uint64) bool { tell(t, seed); return true }, 284)
}

// each calls f for n seeds and for more, those that have shown what the first ones do not; as many at once as there are cores. It stops early when f
// gives false.
func each(t *testing.T, first, n uint64, f func(t *testing.T, seed uint64) bool, more ...uint64) {
	workers := uint64(runtime.GOMAXPROCS(0))
	t.Run("stories", func(t *testing.T) {
		for w := range workers {
			t.Run(fmt.Sprint("core", w), func(t *testing.T) {
				t.Parallel()
				for i := w; i < n+uint64(len(more)); i += workers {
					seed := first + i
					if i >= n {
						seed = more[i-n]
					}
					if !f(t, seed) {
						return
					}
				}
			})
		}
	})
}
