package sim_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
	"flota/internal/quorum"
	"flota/internal/sim"
)

// disks is a directory in memory if the host has one.
func disks(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "flota-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// council runs a story by hand on a cluster with voters.
func council(t *testing.T, v sim.Voters, f func(t *testing.T, c *sim.Cluster)) {
	t.Helper()
	t.Parallel()
	tellCouncil(t, v, f)
}

// tellCouncil runs a story on a cluster with voters, before it returns.
func tellCouncil(t *testing.T, v sim.Voters, f func(t *testing.T, c *sim.Cluster)) {
	t.Helper()
	v.Dir = disks(t)
	synctest.Test(t, func(t *testing.T) {
		c := sim.NewVoters(t, v)
		f(t, c)
		c.End()
	})
}

// P1 with voters: the leading voter of four dies for good. Its units run elsewhere within 10 s, another machine votes within 2 min, and then one more may die.
func TestVoterIsReplaced(t *testing.T) {
	council(t, sim.Voters{Machines: 4}, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 6)
		c.Settle()
		c.WantVoters(1, 2, 3)
		c.Kill(1)
		c.Pass(10 * time.Second)
		c.Want("web", 6)
		c.Pass(110 * time.Second)
		c.WantVoters(2, 3, 4)
		c.Kill(2)
		c.Pass(10 * time.Second)
		c.Want("web", 6)
		c.Settle()
	})
}

// P1: two machines and a witness. The power of either machine goes: the other takes its units within 10 s. The witness goes: nothing happens.
func TestTwoMachinesAndAWitness(t *testing.T) {
	council(t, sim.Voters{Machines: 3, Witness: 3}, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 4)
		c.Start("x-1", 0, "X-Flota Exclusive=true")
		c.Start("global-1", 0, "X-Fleet Global=true")
		c.Settle()
		c.WantVoters(1, 2, 3)
		for _, dead := range []int{1, 2} {
			c.Kill(dead)
			c.Pass(10 * time.Second)
			c.Want("web", 4)
			c.Want("x-1", 0)
			c.Boot(dead)
			c.Settle()
		}
		where := append(homes(c, 4), c.Where("x-1.service")...)
		c.Kill(3)
		c.Pass(2 * time.Minute)
		c.Boot(3)
		c.Settle()
		if got := append(homes(c, 4), c.Where("x-1.service")...); !slices.Equal(got, where) {
			t.Errorf("were on %v, are on %v", where, got)
		}
	})
}

// P2: half and more of the machines vanish, with the majority of the voters: what runs on the others goes on, and when they are back all is where it was.
func TestMajorityVanishes(t *testing.T) {
	council(t, sim.Voters{Machines: 5}, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 10)
		c.Settle()
		votes, where := c.VotersNow(), homes(c, 10)
		for _, i := range votes[:2] {
			c.Isolate(i, true)
		}
		c.Pass(5 * time.Minute)
		if got := homes(c, 10); !slices.Equal(got, where) {
			t.Errorf("were on %v, are on %v", where, got)
		}
		for _, i := range votes[:2] {
			c.Isolate(i, false)
		}
		c.Pass(15 * time.Second)
		c.Settle()
		if got := homes(c, 10); !slices.Equal(got, where) {
			t.Errorf("were on %v, are on %v", where, got)
		}
	})
}

// P4: a machine that is cut off, a voter or not, leads or not, gives its exclusive unit up before another one runs it.
func TestP4IsolatedVoter(t *testing.T) {
	council(t, sim.Voters{Machines: 4}, func(t *testing.T, c *sim.Cluster) {
		c.Start("x-1", 0, "X-Flota Exclusive=true")
		c.Settle()
		for range 4 {
			at := c.Where("x-1.service")[0]
			c.Isolate(at, true)
			c.Pass(30 * time.Second)
			if now := c.Where("x-1.service"); len(now) != 1 || now[0] == at {
				t.Errorf("was on %d, is on %v", at, now)
			}
			c.Isolate(at, false)
			c.Settle()
		}
	})
}

// P6: all lose power and come back in any order: everything runs within 30 s of the last boot.
func TestP6PowerCutOfAllVoters(t *testing.T) {
	for _, order := range [][]int{{1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}, {2, 5, 1, 4, 3}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			council(t, sim.Voters{Machines: 5}, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 6)
				c.Start("x-1", 0, "X-Flota Exclusive=true")
				c.Settle()
				for i := range 5 {
					c.Kill(i + 1)
				}
				c.Pass(time.Hour)
				for _, i := range order {
					c.Boot(i)
					c.Pass(2 * time.Second)
				}
				c.Pass(28 * time.Second)
				c.Want("web", 6)
				c.Want("x-1", 0)
				c.Settle()
			})
		})
	}
}

// Grow from one machine to seven and shrink to one again: no unit ends that need not move, and each machine that goes leaves no vote behind.
func TestGrowAndShrink(t *testing.T) {
	council(t, sim.Voters{Machines: 1}, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 5)
		c.Start("x-1", 0, "X-Flota Exclusive=true")
		c.Settle()
		for i := 2; i <= 7; i++ {
			c.Join(fmt.Sprint("zone", i%3), false)
			c.Council(time.Minute)
		}
		for _, gone := range []int{1, 5, 2, 7, 3, 6} { // the founder first
			removed := make(chan error, 1)
			c.Remove(gone, false, func(err error) { removed <- err })
			if err := <-removed; err != nil {
				t.Errorf("remove %d: %v", gone, err)
			}
			c.Council(time.Minute)
			c.Want("web", 5)
		}
		c.WantVoters(4)
		c.Settle()
		c.Want("web", 5)
		c.Want("x-1", 0)
	})
}

// The majority is lost for good: one survivor is told to recover, keeps all, and the others come back as what the plan says.
func TestRecover(t *testing.T) {
	council(t, sim.Voters{Machines: 3}, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 6)
		c.Settle()
		if err := c.Recover(2); !fault.Is(err, fault.Conflict) {
			t.Errorf("with a majority: %v", err)
		}
		c.Kill(1)
		c.Kill(3)
		c.Pass(3 * time.Minute)
		before := c.Where("web@1.service")
		if err := c.Recover(2); err != nil {
			t.Fatal(err)
		}
		c.Pass(90 * time.Second) // the brake
		c.Want("web", 6)
		c.WantVoters(2)
		c.Boot(1)
		c.Boot(3)
		c.Council(time.Minute)
		c.Settle()
		c.WantVoters(1, 2, 3)
		if len(before) == 1 && before[0] == 2 && !slices.Equal(c.Where("web@1.service"), before) {
			t.Errorf("web@1 moved from %v to %v", before, c.Where("web@1.service"))
		}
	})
}

// A crash between any two writes of any process while the voters change is harmless: the steward's, to the engine and to the store, among them.
func TestStewardCrashesAtEachWrite(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		for n := 1; n <= 12; n++ {
			tellCouncil(t, sim.Voters{Machines: 2}, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 3)
				c.Settle()
				c.Join("zone1", false)
				c.Join("zone2", false)
				for i := 1; i <= 4; i++ {
					c.CrashAgent(i, n, before)
				}
				c.Pass(20 * time.Second)
				c.Heal()
				c.Settle()
				c.Want("web", 3)
			})
		}
	}
}

// TestVoterSeeds tells random stories in which machines join, are removed, vanish by halves and return while everything else goes wrong too.
func TestVoterSeeds(t *testing.T) {
	if *oneSeed != 0 {
		upheaval(t, *oneSeed)
		return
	}
	n := *voterSeeds
	if testing.Short() {
		n = min(n, 4)
	}
	t.Parallel()
	each(t, *from, n, func(t *testing.T, seed uint64) bool { upheaval(t, seed); return true }, 108, 328, 1122)
}

// upheaval tells the story of a seed.
func upheaval(t *testing.T, seed uint64) (took time.Duration) {
	t.Helper()
	ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		v := sim.Voters{Machines: 3 + int(seed%5)}
		if seed%3 == 0 {
			v.Witness = 3
		}
		if seed%2 == 0 { // so that more happens
			v.Settings = quorum.Settings{Replace: 8 * time.Second, Settle: 15 * time.Second, Stall: 20 * time.Second}
		}
		tellCouncil(t, v, func(t *testing.T, c *sim.Cluster) {
			sim.Tell(c, seed, *steps)
			took = c.Elapsed()
		})
	})
	if !ok {
		t.Errorf("seed %d broke a promise: go test ./internal/sim -run VoterSeeds -seed %d -count 20", seed, seed)
	}
	return took
}

// The voter of two machines is removed: the other one votes before it goes, and the store answers all the while.
func TestRemoveTheOnlyVoter(t *testing.T) {
	for _, machines := range []int{2, 3, 4} {
		t.Run(fmt.Sprint(machines), func(t *testing.T) {
			council(t, sim.Voters{Machines: machines}, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 4)
				c.Settle()
				removed := make(chan error, 1)
				c.Remove(1, false, func(err error) { removed <- err })
				if err := <-removed; err != nil {
					t.Error(err)
				}
				c.Council(time.Minute)
				c.Want("web", 4)
				c.Settle()
			})
		})
	}
}

// P4: a machine is removed while its agent is away for an upgrade, so that its exclusive unit goes on behind a fence of a minute.
func TestP4RemovedWhileItRestarts(t *testing.T) {
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprint(force), func(t *testing.T) {
			council(t, sim.Voters{Machines: 4}, func(t *testing.T, c *sim.Cluster) {
				c.Start("x-1", 0, "X-Flota Exclusive=true")
				c.Settle()
				at := c.Where("x-1.service")[0]
				c.StopAgent(at)
				removed := make(chan error, 1)
				c.Remove(at, force, func(err error) { removed <- err })
				if err := <-removed; err != nil {
					t.Error(err)
				}
				c.Pass(90 * time.Second)
				c.Want("x-1", 0)
				c.Settle()
			})
		})
	}
}
