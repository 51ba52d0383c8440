package sim_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/sim"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

// story runs a story by hand on n machines.
func story(t *testing.T, n int, f func(t *testing.T, c *sim.Cluster)) {
	t.Helper()
	t.Parallel()
	tellStory(t, n, f)
}

// tellStory runs it before it returns.
func tellStory(t *testing.T, n int, f func(t *testing.T, c *sim.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, n)
		f(t, c)
		c.End()
	})
}

// P1: any one machine of three may die at any moment: its units run elsewhere within 10 s.
func TestP1MachineDies(t *testing.T) {
	for dead := 1; dead <= 3; dead++ { // whoever leads
		t.Run(fmt.Sprint("m", dead), func(t *testing.T) {
			story(t, 3, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 6)
				c.Settle()
				c.Kill(dead)
				c.Pass(10 * time.Second)
				c.Want("web", 6)
				c.Settle()
				c.Boot(dead)
				c.Settle()
				c.Want("web", 6)
			})
		})
	}
}

// P2: losing the store stops nothing, however long and however it is lost.
func TestP2StoreIsAway(t *testing.T) {
	for _, how := range []mem.Outage{mem.Refused, mem.Hanging, mem.NoQuorum} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			story(t, 3, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 6)
				c.Settle()
				where := homes(c, 6)
				c.Blackout(how, 10*time.Minute)
				c.Want("web", 6)
				c.Settle()
				if got := homes(c, 6); !slices.Equal(got, where) {
					t.Errorf("were on %v, are on %v", where, got)
				}
			})
		})
	}
}

// homes gives where the instances of web run.
func homes(c *sim.Cluster, n int) (on []int) {
	for i := 1; i <= n; i++ {
		on = append(on, c.Where(unit.Name(fmt.Sprintf("web@%d.service", i)))...)
	}
	return on
}

// P4: an exclusive unit never runs twice, though its machine is cut off, paused, or drained.
func TestP4ExclusiveMoves(t *testing.T) {
	for name, trouble := range map[string]func(c *sim.Cluster, i int){
		"cut off": func(c *sim.Cluster, i int) {
			c.Cut(i, mem.Hanging)
			c.Pass(30 * time.Second)
			c.Cut(i, mem.None)
		},
		"paused":  func(c *sim.Cluster, i int) { c.Pause(i, true); c.Pass(30 * time.Second); c.Pause(i, false) },
		"killed":  func(c *sim.Cluster, i int) { c.KillAgent(i); c.Pass(30 * time.Second); c.Boot(i) },
		"drained": func(c *sim.Cluster, i int) { c.Drain(i, true); c.Pass(30 * time.Second); c.Drain(i, false) },
		"halted":  func(c *sim.Cluster, i int) { c.Halt(i); c.Pass(30 * time.Second); c.Boot(i) },
		"upgraded for too long": func(c *sim.Cluster, i int) {
			c.StopAgent(i)
			c.Pass(80 * time.Second)
			c.Boot(i)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, 3, func(t *testing.T, c *sim.Cluster) {
				c.Start("x-1", 0, "X-Flota Exclusive=true")
				c.Settle()
				before := c.Where("x-1.service")
				trouble(c, before[0])
				c.Settle()
				c.Want("x-1", 0)
				if after := c.Where("x-1.service"); slices.Equal(before, after) {
					t.Errorf("it is still on %v", after)
				}
			})
		})
	}
}

// P5: the process is killed or upgraded again and again; no unit notices.
func TestP5AgentRestarts(t *testing.T) {
	story(t, 3, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 6)
		c.Start("x-1", 0, "X-Flota Exclusive=true")
		c.Settle()
		where := append(homes(c, 6), c.Where("x-1.service")...)
		for round := range 10 {
			for i := 1; i <= 3; i++ {
				if round%2 == 0 {
					c.KillAgent(i)
				} else {
					c.StopAgent(i)
				}
				c.Boot(i)
				c.Pass(time.Second)
			}
		}
		c.Settle()
		if got := append(homes(c, 6), c.Where("x-1.service")...); !slices.Equal(got, where) {
			t.Errorf("were on %v, are on %v", where, got)
		}
	})
}

// P6: all lose power, and come back in any order: everything runs within 30 s of the last boot.
func TestP6PowerCutOfAll(t *testing.T) {
	for _, order := range [][]int{{1, 2, 3}, {3, 2, 1}, {2, 3, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			story(t, 3, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 6)
				c.Start("x-1", 0, "X-Flota Exclusive=true")
				c.Settle()
				for i := range 3 {
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

// A drained machine's units start elsewhere before they stop there: at no time does one not run.
func TestDrainHasNoGap(t *testing.T) {
	story(t, 3, func(t *testing.T, c *sim.Cluster) {
		c.Start("web", 6)
		c.Settle()
		c.Drain(2, true)
		for range 200 {
			c.Pass(10 * time.Millisecond)
			for i := 1; i <= 6; i++ {
				if len(c.Where(unit.Name(fmt.Sprintf("web@%d.service", i)))) == 0 {
					t.Fatalf("web@%d does not run", i)
				}
			}
		}
		c.Settle()
		if slices.Contains(homes(c, 6), 2) {
			t.Errorf("%v", homes(c, 6))
		}
	})
}

// A crash between any two writes of any process is harmless.
func TestCrashAtEachWrite(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		for n := 1; n <= 16; n++ {
			tellStory(t, 3, func(t *testing.T, c *sim.Cluster) {
				c.Start("web", 3)
				for i := 1; i <= 3; i++ {
					c.CrashAgent(i, n, before)
				}
				c.Start("x-1", 0, "X-Flota Exclusive=true")
				c.Start("web", 6)
				c.Pass(500 * time.Millisecond)
				c.Drain(2, true)
				c.Pass(5 * time.Second)
				c.Heal()
				c.Settle()
				c.Want("web", 6)
				c.Want("x-1", 0)
			})
		}
	}
}

// TestSoak tells stories of new seeds, with voters and without, until it is stopped: go test ./internal/sim -run Soak -soak -timeout 0.
func TestSoak(t *testing.T) {
	if !*soak {
		t.Skip("only with -soak")
	}
	first := uint64(time.Now().UnixNano())
	began, done := time.Now(), make(chan time.Duration)
	go func() {
		var told int
		var lived time.Duration
		for d := range done {
			told++
			if lived += d; told%100 == 0 {
				t.Logf("%d stories, %s of simulated time in %s", told, lived.Round(time.Minute), time.Since(began).Round(time.Second))
				fmt.Printf("%d stories, %s of simulated time in %s\n", told, lived.Round(time.Minute), time.Since(began).Round(time.Second))
			}
		}
	}()
	each(t, first, 1<<62, func(t *testing.T, seed uint64) bool {
		if seed%2 == 0 {
			done <- tell(t, seed)
		} else {
			done <- upheaval(t, seed)
		}
		return !t.Failed()
	})
	close(done)
}
