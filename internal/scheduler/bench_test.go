package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// large makes a cluster of n machines in zones, with labels and 64 GiB each, and of units: instances of templates of 20, single
// units, units with labels, pairs by MachineOf, conflicts, exclusive ones, and a few pinned and global ones.
func large(n, units int) Cluster {
	var c Cluster
	for m := range n {
		x := live(m, 64<<10, fmt.Sprintf("zone=z%d", m%5), fmt.Sprintf("disk=%s", []string{"ssd", "hdd"}[m%2]), fmt.Sprintf("rack=r%d", m/50))
		x.Presence.Size.CPUMillis = 32000
		c.Machines = append(c.Machines, x)
	}
	for len(c.Units) < units {
		k := len(c.Units)
		add := func(name string, options ...string) {
			options = append(options, "[Service]ExecStart=/bin/sleep 1d", "[Unit]Description=a unit", "[Service]Restart=always")
			c.Units = append(c.Units, launched(name, options...))
		}
		mem := fmt.Sprintf("[X-Flota]Memory=%dM", 64<<(k/20%5))
		switch k / 20 % 8 {
		case 0, 1:
			add(fmt.Sprintf("app%d@%d.service", k/20, k%20), mem)
		case 2:
			add(fmt.Sprintf("apart%d@%d.service", k/20, k%20), mem, fmt.Sprintf("Conflicts=apart%d@*.service", k/20))
		case 3:
			add(fmt.Sprintf("disk%d.service", k), mem, "MachineMetadata=disk=ssd")
		case 4:
			add(fmt.Sprintf("rack%d.service", k), mem, fmt.Sprintf("MachineMetadata=rack=r%d", k%(n/50)))
		case 5:
			add(fmt.Sprintf("pair%d.service", k), mem)
			add(fmt.Sprintf("pair%d-side.service", k), fmt.Sprintf("MachineOf=pair%d.service", k))
		case 6:
			if k%20 == 0 {
				add(fmt.Sprintf("pin%d.service", k), fmt.Sprintf("MachineID=%s", mid(k%n)))
			}
			add(fmt.Sprintf("single%d.service", k), mem, "[X-Flota]CPU=0.1")
		case 7:
			if k%20 == 0 {
				add(fmt.Sprintf("lone%d.service", k), "[X-Flota]Exclusive=true")
			}
			add(fmt.Sprintf("plain%d.service", k))
		}
	}
	slices.SortFunc(c.Units, func(a, b Unit) int { return cmp.Compare(a.Name, b.Name) })
	c.States = func(machine.ID, unit.Name) (unit.State, bool) { return unit.State{}, false }
	return c
}

// processTime is the processor time that this process has used, which on a busy machine says more than the clock.
func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func needMoves(b *testing.B, p Plan, least int) {
	b.Helper()
	if len(p.Moves) < least {
		b.Fatalf("%d moves, %d waiting: %+v", len(p.Moves), len(p.Waiting), p.Waiting[:min(3, len(p.Waiting))])
	}
}

// BenchmarkPlanFromNothing plans 100,000 units on 5,000 empty machines. The budget is 3 s.
func BenchmarkPlanFromNothing(b *testing.B) {
	c := large(5000, 100_000)
	start := processTime()
	for b.Loop() {
		needMoves(b, Make(c, noon), 100_000)
	}
	b.ReportMetric(float64(processTime()-start)/1e6/float64(b.N), "cpu-ms/op")
}

// BenchmarkPlanMachineLost plans the same cluster, placed, with one machine lost. The budget is 100 ms.
func BenchmarkPlanMachineLost(b *testing.B) {
	c := large(5000, 100_000)
	c = Apply(c, Make(c, noon))
	c = kill(c, noon.Add(-7*time.Second), 2500)
	start := processTime()
	for b.Loop() {
		needMoves(b, Make(c, noon), 10)
	}
	b.ReportMetric(float64(processTime()-start)/1e6/float64(b.N), "cpu-ms/op")
}

// BenchmarkPlanNothing plans the same cluster with nothing to do.
func BenchmarkPlanNothing(b *testing.B) {
	c := large(5000, 100_000)
	c = Apply(c, Make(c, noon))
	for b.Loop() {
		if p := Make(c, noon); len(p.Moves) > 0 {
			b.Fatal(text(p))
		}
	}
}

// BenchmarkPlanQuick and BenchmarkPlanNaive plan 10,000 units on 1,000 machines, to compare.
func BenchmarkPlanQuick(b *testing.B) { benchmarkTenth(b, false) }

func BenchmarkPlanNaive(b *testing.B) { benchmarkTenth(b, true) }

func benchmarkTenth(b *testing.B, naive bool) {
	c := large(1000, 10_000)
	for b.Loop() {
		p := newPlanner(c, noon)
		p.naive = naive
		needMoves(b, p.run(), 10_000)
	}
}
