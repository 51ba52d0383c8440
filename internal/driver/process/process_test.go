package process_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/driver"
	"flota/internal/driver/drivertest"
	"flota/internal/driver/journal"
	"flota/internal/driver/proc"
	"flota/internal/driver/process"
	"flota/internal/fault"
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
	if len(os.Args) > 2 && os.Args[1] == "act" {
		act(os.Args[2:])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// texts are the behaviours as unit files.
var texts = map[drivertest.Behaviour]string{
	drivertest.Forever:     "ExecStart=/bin/sleep 1000000",
	drivertest.ExitsZero:   "ExecStart=/bin/true",
	drivertest.ExitsThree:  "ExecStart=/bin/sh -c 'exit 3'",
	drivertest.Restarting:  "ExecStart=/bin/sh -c 'exit 3'\nRestart=on-failure\nRestartSec=100ms",
	drivertest.IgnoresTerm: "ExecStart=/bin/sleep 1000000\nKillSignal=SIGURG\nTimeoutStopSec=500ms",
	drivertest.Prints:      "ExecStart=/bin/sh -c 'i=1; while [ $$i -le 50 ]; do echo line $$i; i=$$((i+1)); done; exec sleep 1000000'",
	drivertest.SlowStart:   "ExecStartPre=/bin/sleep 0.5\nExecStart=/bin/sleep 1000000",
	drivertest.Reloads:     "ExecStart=/bin/sleep 1000000\nExecReload=/bin/true",
	drivertest.ReloadFails: "ExecStart=/bin/sleep 1000000\nExecReload=/bin/false",
	drivertest.Exclusive:   "ExecStart=/bin/sleep 1000000\n[X-Flota]\nExclusive=true",
	drivertest.Broken:      "ExecStart=bin/sleep 1",
}

// parse makes a unit of the lines of its [Service] section.
func parse(t *testing.T, name unit.Name, text string) unit.Unit {
	t.Helper()
	f, _, err := unit.Parse(name, []byte("[Service]\n"+text+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return unit.Unit{Name: name, Options: f.Options, Target: unit.Launched}
}

// bench is a data directory with a driver on it; all of it is gone after the test.
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
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/logs/supervisor.log")
			t.Logf("supervisor's log:\n%s", tail(string(text), 60))
			text, _ = os.ReadFile(dir + "/logs/supervisor.err")
			t.Logf("supervisor's errors:\n%s", tail(string(text), 60))
		}
		if err := process.PowerCut(dir); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b.open()
	return b
}

func tail(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// open makes a new driver value, as a new agent does.
func (b *bench) open() *process.Driver {
	b.Helper()
	d, err := process.Open(b.ctx, process.Options{DataDir: b.dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.d = d
	return d
}

// kill ends the supervisor without warning.
func (b *bench) kill() {
	b.Helper()
	pid := b.d.PID()
	st, ok := proc.Look(pid)
	if !ok || !proc.Signal(pid, st.Ticks, syscall.SIGKILL) {
		b.Fatalf("supervisor %d cannot be killed", pid)
	}
	if err := proc.Wait(b.ctx, pid, st.Ticks); err != nil {
		b.Fatal(err)
	}
}

func bed(t *testing.T) drivertest.Bed {
	b := newBench(t)
	return drivertest.Bed{
		Open:           func() driver.Driver { return b.open() },
		Unit:           func(name unit.Name, does drivertest.Behaviour) unit.Unit { return parse(t, name, texts[does]) },
		RestartBackend: func() { b.must(b.d.ReExec(b.ctx)) },
		KillBackend:    b.kill,
		PowerCut:       func() { b.must(process.PowerCut(b.dir)) },
	}
}

func TestConformance(t *testing.T) { drivertest.Run(t, bed) }

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// start loads and starts a unit under run 1.
func (b *bench) start(name unit.Name, text string) unit.Name {
	b.Helper()
	b.must(b.d.Load(b.ctx, parse(b.T, name, text)))
	b.must(b.d.Start(b.ctx, name, 1))
	return name
}

// wait watches until the unit is as wanted.
func (b *bench) wait(name unit.Name, what string, ok func(unit.State) bool) (last unit.State) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	found := false
	err := b.d.Watch(ctx, func(states []unit.State, _ bool) {
		for _, st := range states {
			if st.Unit == name && !found {
				if last = st; ok(st) {
					found = true
					cancel()
				}
			}
		}
	})
	if !found {
		b.Fatalf("%s never became %s (%v); last: %+v\n%s", name, what, err, last, b.printed(name))
	}
	return last
}

// sub waits for a SubState.
func (b *bench) sub(name unit.Name, sub string) unit.State {
	b.Helper()
	return b.wait(name, sub, func(st unit.State) bool { return st.Sub == sub })
}

// printed gives all that is in a unit's journal.
func (b *bench) printed(name unit.Name) string {
	var out strings.Builder
	err := b.d.Logs(b.ctx, name, driver.LogOptions{Lines: -1}, func(l driver.LogLine) error {
		fmt.Fprintf(&out, "%s| %s\n", l.Stream, l.Text)
		return nil
	})
	if err != nil {
		fmt.Fprintf(&out, "(%v)\n", err)
	}
	return out.String()
}

// says fails the test if the unit's journal lacks a text.
func (b *bench) says(name unit.Name, want string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	var all []string
	found := false
	_ = b.d.Logs(ctx, name, driver.LogOptions{Lines: -1, Follow: true}, func(l driver.LogLine) error {
		all = append(all, l.Text)
		if strings.Contains(l.Text, want) {
			found = true
			cancel()
		}
		return nil
	})
	if !found {
		b.Errorf("%s never said %q:\n%s", name, want, strings.Join(all, "\n"))
	}
}

func TestPathTooLong(t *testing.T) {
	_, err := process.Open(t.Context(), process.Options{DataDir: "/tmp/" + strings.Repeat("x", 100)})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Hint(err), "--data-dir") {
		t.Errorf("error %v, hint %q", err, fault.Hint(err))
	}
}
