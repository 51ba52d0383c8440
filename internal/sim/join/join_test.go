package join_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/sim/join"
)

var (
	oneSeed = flag.Uint64("seed", 0, "tell only the story of this seed")
	seeds   = flag.Uint64("seeds", 4, "tell the stories of so many seeds")
	crowd   = flag.Int("crowd", 200, "how many machines join; from the third seed on half of them. About 10 s of a processor for 200 with -race")
	soak    = flag.Bool("soak", false, "tell stories of new seeds until stopped")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disks is a directory in memory if the host has one: a story syncs some thousand files.
func disks(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "flota-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// tell tells the story of a seed.
func tell(t *testing.T, seed uint64) {
	t.Helper()
	ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		dir := disks(t)
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			w := join.New(t, dir, seed)
			n := *crowd
			if seed > 2 && *oneSeed == 0 && !*soak {
				n /= 2
			}
			members, refused := join.Tell(w, seed, n)
			t.Logf("%d members, %d refused, %s of simulated time", members, refused, time.Since(began).Round(time.Second))
			w.End()
		})
	})
	if !ok {
		t.Errorf("seed %d broke a promise: go test ./internal/sim/join -run Crowd -seed %d -count 20", seed, seed)
	}
}

// TestCrowd: many machines join one cluster while everything goes wrong; all end as members or with a clear refusal.
func TestCrowd(t *testing.T) {
	if *oneSeed != 0 {
		tell(t, *oneSeed)
		return
	}
	n := *seeds
	if testing.Short() {
		n = min(n, 1)
	}
	each(t, 1, n)
}

// TestSoak tells stories of new seeds until it is stopped: go test ./internal/sim/join -run Soak -soak -timeout 0 -v.
func TestSoak(t *testing.T) {
	if !*soak {
		t.Skip("only with -soak")
	}
	each(t, uint64(time.Now().UnixNano()), 1<<62)
}

// each tells n stories, as many at once as there are cores; a failure ends them.
func each(t *testing.T, first, n uint64) {
	workers := uint64(runtime.GOMAXPROCS(0))
	t.Run("stories", func(t *testing.T) {
		for core := range workers {
			t.Run(fmt.Sprint("core", core), func(t *testing.T) {
				t.Parallel()
				for seed := first + core; seed < first+n && !t.Failed(); seed += workers {
					tell(t, seed)
				}
			})
		}
	})
}
