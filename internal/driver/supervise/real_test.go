package supervise_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"flota/internal/driver/journal"
	"flota/internal/driver/proc"
	"flota/internal/driver/process"
	"flota/internal/unit"
)

// TestMain lets the test binary be its own supervisor.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "supervise" {
		if err := process.Supervise(context.Background(), os.Args[3], nil, journal.Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bench is a supervisor on a data directory of its own; both are gone after the test.
type bench struct {
	*testing.T
	dir string
	d   *process.Driver
	ctx context.Context
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, dir: dir, ctx: t.Context()}
	t.Cleanup(func() {
		b.must(process.PowerCut(dir))
		b.must(os.RemoveAll(dir))
	})
	b.d, err = process.Open(b.ctx, process.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	b.must(err)
	return b
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// forever is a [Service] section of a daemon.
const forever = "\n[Service]\nExecStart=/bin/sleep 1000000\n"

// load loads a unit of its whole text.
func (b *bench) load(name unit.Name, text string) {
	b.Helper()
	f, _, err := unit.Parse(name, []byte(text))
	b.must(err)
	b.must(b.d.Load(b.ctx, unit.Unit{Name: name, Options: f.Options, Target: unit.Loaded}))
}

// become waits until the units' states are as wanted: each "active" or the like.
func (b *bench) become(want map[unit.Name]string) map[unit.Name]unit.State {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	all := map[unit.Name]unit.State{}
	fits := false
	err := b.d.Watch(ctx, func(states []unit.State, _ bool) {
		if fits {
			return
		}
		for _, st := range states {
			all[st.Unit] = st
		}
		fits = true
		for n, active := range want {
			fits = fits && all[n].Active == active
		}
		if fits {
			cancel()
		}
	})
	if !fits {
		b.Fatalf("never became %v (%v): %+v", want, err, all)
	}
	return all
}

// sidekick is bound to x.service, and wanted by it.
const sidekick = "[Unit]\nBindsTo=x.service\n" + forever + "[Install]\nWantedBy=x.service\n"

func TestASidekickRunsWhileTheOtherDoes(t *testing.T) {
	for name, text := range map[string]string{"at once": sidekick, "after": "[Unit]\nAfter=x.service\n" + sidekick} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.load("x.service", forever)
			b.load("y.service", text)
			b.become(map[unit.Name]string{"x.service": "inactive", "y.service": "inactive"})
			b.must(b.d.Start(b.ctx, "x.service", 1))
			all := b.become(map[unit.Name]string{"x.service": "active", "y.service": "active"})
			if y := all["y.service"]; y.Run != 0 {
				t.Errorf("nobody asked for a run: %+v", y)
			}
			b.must(b.d.Start(b.ctx, "y.service", 7)) // the run is adopted
			now := b.become(map[unit.Name]string{"y.service": "active"})["y.service"]
			if now.Run != 7 || now.MainPID != all["y.service"].MainPID {
				t.Errorf("before %+v, now %+v", all["y.service"], now)
			}
			b.must(b.d.ReExec(b.ctx))
			b.must(b.d.Stop(b.ctx, "x.service"))
			b.become(map[unit.Name]string{"x.service": "inactive", "y.service": "inactive"})
			b.must(b.d.Start(b.ctx, "x.service", 2))
			all = b.become(map[unit.Name]string{"x.service": "active", "y.service": "active"})
			x := all["x.service"]
			st, _ := proc.Look(x.MainPID)
			proc.Signal(x.MainPID, st.Ticks, syscall.SIGKILL)
			b.become(map[unit.Name]string{"x.service": "failed", "y.service": "inactive"})
			b.must(b.d.Start(b.ctx, "x.service", 3))
			b.become(map[unit.Name]string{"x.service": "active", "y.service": "active"})
			b.must(b.d.Unload(b.ctx, "x.service"))
			b.become(map[unit.Name]string{"y.service": "inactive"})
		})
	}
}

// TestASidekickDoesNotOutliveAFailedStart has the other unit fail at once.
func TestASidekickDoesNotOutliveAFailedStart(t *testing.T) {
	b := newBench(t)
	b.load("x.service", "\n[Service]\nExecStart=/bin/true\nUser=no-such-user-here\n")
	b.load("y.service", sidekick)
	b.must(b.d.Start(b.ctx, "x.service", 1))
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	var last unit.State
	done := false
	_ = b.d.Watch(ctx, func(states []unit.State, _ bool) {
		for _, st := range states {
			if st.Unit == "y.service" && !done {
				last = st
				if done = st.Active == "inactive" && st.Message == "stopped"; done {
					cancel()
				}
			}
		}
	})
	if !done {
		t.Errorf("it is %+v", last)
	}
}

// TestRestartTakesAlong restarts a unit: what is part of it, requires it or is bound to it restarts, under the run it had.
func TestRestartTakesAlong(t *testing.T) {
	b := newBench(t)
	b.load("x.service", forever)
	b.load("part.service", "[Unit]\nPartOf=x.service\n"+forever)
	b.load("needs.service", "[Unit]\nRequires=x.service\n"+forever)
	b.load("side.service", sidekick)
	b.load("idle.service", "[Unit]\nPartOf=x.service\n"+forever)
	b.load("else.service", "[Unit]\nWants=x.service\n"+forever)
	for i, n := range []unit.Name{"x.service", "part.service", "needs.service", "else.service"} {
		b.must(b.d.Start(b.ctx, n, uint64(i+1)))
	}
	up := map[unit.Name]string{"x.service": "active", "part.service": "active", "needs.service": "active", "side.service": "active",
		"else.service": "active", "idle.service": "inactive"}
	before := b.become(up)
	b.must(b.d.Start(b.ctx, "x.service", 9))
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	anew := map[unit.Name]bool{}
	_ = b.d.Watch(ctx, func(states []unit.State, _ bool) {
		for _, st := range states {
			if st.Active == "active" && st.MainPID != 0 && st.MainPID != before[st.Unit].MainPID {
				anew[st.Unit] = true
			}
		}
		if len(anew) == 4 {
			cancel()
		}
	})
	now := b.become(up)
	for n, st := range now {
		if (st.MainPID != before[n].MainPID) != (n != "else.service" && n != "idle.service") || n != "x.service" && st.Run != before[n].Run {
			t.Errorf("before %+v, now %+v", before[n], st)
		}
	}
	b.must(b.d.Stop(b.ctx, "x.service"))
	b.become(map[unit.Name]string{"x.service": "inactive", "part.service": "inactive", "needs.service": "inactive", "side.service": "inactive",
		"else.service": "active"})
}

// TestCirclesEnd has two commands that want each other: each runs once for each request.
func TestCirclesEnd(t *testing.T) {
	b := newBench(t)
	command := "\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %n >>" + b.dir + "/ran'\n[Install]\n"
	b.load("x.service", "[Unit]\nAfter=y.service\n"+command+"WantedBy=y.service\n")
	b.load("y.service", "[Unit]\nAfter=x.service\n"+command+"WantedBy=x.service\n")
	b.load("end.service", "[Unit]\nAfter=y.service\n"+forever+"[Install]\nWantedBy=y.service\n")
	b.must(b.d.Start(b.ctx, "x.service", 1))
	b.become(map[unit.Name]string{"end.service": "active", "x.service": "inactive", "y.service": "inactive"})
	if text, err := os.ReadFile(b.dir + "/ran"); err != nil || string(text) != "x.service\ny.service\n" {
		t.Errorf("%q (%v)", text, err)
	}
}

// TestStartedAfterANewSupervisorCame replaces the supervisor while a unit is starting that another one waits for.
func TestStartedAfterANewSupervisorCame(t *testing.T) {
	b := newBench(t)
	b.load("x.service", "\n[Service]\nExecStartPre=/bin/sh -c 'until [ -e "+b.dir+"/go ]; do sleep 0.05; done'\nExecStart=/bin/sleep 1000000\n")
	b.load("y.service", "[Unit]\nAfter=x.service\n"+sidekick)
	b.must(b.d.Start(b.ctx, "x.service", 1))
	b.become(map[unit.Name]string{"x.service": "activating", "y.service": "inactive"})
	b.must(b.d.ReExec(b.ctx))
	b.must(os.WriteFile(b.dir+"/go", nil, 0o600))
	b.become(map[unit.Name]string{"x.service": "active", "y.service": "active"})
}

// TestExclusiveUnitsAreNotTakenAlong: only a request has made sure that the unit runs nowhere else.
func TestExclusiveUnitsAreNotTakenAlong(t *testing.T) {
	b := newBench(t)
	b.load("x.service", forever)
	b.load("only.service", sidekick+"[X-Flota]\nExclusive=true\n")
	b.load("side.service", sidekick)
	b.must(b.d.Fence(b.ctx, time.Minute))
	b.must(b.d.Start(b.ctx, "x.service", 1))
	b.become(map[unit.Name]string{"side.service": "active", "only.service": "inactive"})
}
