package track

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/unit"
)

var (
	start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	hash  = strings.Repeat("a", 40)
)

// u is a launched unit under run 2, with what edits make of it.
func u(edits ...func(*api.Unit)) api.Unit {
	x := api.Unit{Unit: unit.Unit{Name: "u.service", Target: unit.Launched, Run: 2, Options: []unit.Option{
		{Section: "Service", Name: "Type", Value: "notify"}, {Section: "Service", Name: "ExecStart", Value: "/x"}}}, Hash: hash}
	for _, e := range edits {
		e(&x)
	}
	return x
}

func id(name string) machine.ID { return machine.ID(strings.Repeat(name, 16)) }

// on places the unit.
func on(name string) func(*api.Unit) {
	return func(x *api.Unit) {
		x.Places = append(x.Places, api.Place{Machine: id(name), Name: name, Addr: "10.0.0.1", Reason: "fits"})
	}
}

// away is a place on a machine that is gone.
func away(name string) func(*api.Unit) {
	return func(x *api.Unit) { x.Places = append(x.Places, api.Place{Machine: id(name), Name: name}) }
}

// is reports a state "active/sub" under a run.
func is(name, state string, run uint64, edits ...func(*unit.State)) func(*api.Unit) {
	return func(x *api.Unit) {
		active, sub, _ := strings.Cut(state, "/")
		s := unit.State{Unit: x.Name, Machine: id(name), Hash: hash, Load: "loaded", Active: active, Sub: sub, Run: run, Result: "success"}
		for _, e := range edits {
			e(&s)
		}
		x.States = append(x.States, api.State{State: s, Name: name, Addr: "10.0.0.1"})
	}
}

func exited(code int) func(*unit.State) {
	return func(s *unit.State) { s.Result, s.ExitCode = "exit-code", code }
}

func says(text string) func(*unit.State) { return func(s *unit.State) { s.Message = text } }

func kind(text string) func(*api.Unit) { return func(x *api.Unit) { x.Options[0].Value = text } }

func waits(text string) func(*api.Unit) { return func(x *api.Unit) { x.Waiting = text } }

func global(x *api.Unit) { x.Global = true }

func TestEveryStoryEndsWithItsOutcome(t *testing.T) {
	type at struct {
		ms int // after the request
		u  api.Unit
	}
	for _, x := range []struct {
		name    string
		goal    Goal
		before  *api.Unit
		story   []at
		timeout time.Duration
		until   int // milliseconds that Tick goes on for
		want    []string
		kind    fault.Kind // of the failure; "ok" for none
	}{
		{name: "placed, starting, active", story: []at{{0, u()}, {10, u(on("m2"))}, {20, u(on("m2"), is("m2", "activating/start", 2))}, {300, u(on("m2"), is("m2", "active/running", 2))}},
			want: []string{"placed on m2 (fits)", "starting", "active (running) on m2 after 0.3 s"}, kind: "ok"},
		{name: "a state of the run before counts for nothing", story: []at{{0, u(on("m2"), is("m2", "failed/failed", 1))}, {50, u(on("m2"), is("m2", "active/running", 1))}, {200, u(on("m2"), is("m2", "active/running", 2))}},
			want: []string{"placed on m2 (fits)", "active (running) on m2 after 0.2 s"}, kind: "ok"},
		{name: "simple units must stay up for a moment", story: []at{{0, u(kind("simple"), on("m1"), is("m1", "active/running", 2))}, {100, u(kind("simple"), on("m1"), is("m1", "failed/failed", 2, exited(7), says("main process exited with status 7")))}},
			want: []string{"placed on m1 (fits)", "failed on m1: exit-code 7 (main process exited with status 7)"}, kind: fault.Failed},
		{name: "a simple unit that stays up", story: []at{{0, u(kind("simple"), on("m1"))}, {100, u(kind("simple"), on("m1"), is("m1", "active/running", 2))}}, until: 1000,
			want: []string{"placed on m1 (fits)", "active (running) on m1 after 0.1 s"}, kind: "ok"},
		{name: "a crash loop is a failure", story: []at{{0, u(on("m1"))}, {100, u(on("m1"), is("m1", "activating/auto-restart", 2, exited(1), func(s *unit.State) { s.Restarts = 1 }))},
			{3500, u(on("m1"), is("m1", "activating/auto-restart", 2, exited(1), func(s *unit.State) { s.Restarts = 3 }))}},
			want: []string{"placed on m1 (fits)", "crashed on m1: exit-code 1; it is restarted", "keeps crashing on m1 (3 restarts so far): exit-code 1"}, kind: fault.Failed},
		{name: "oneshot finishes", story: []at{{0, u(kind("oneshot"), on("m1"))}, {400, u(kind("oneshot"), on("m1"), is("m1", "inactive/dead", 2))}},
			want: []string{"placed on m1 (fits)", "finished (exit 0) on m1 after 0.4 s"}, kind: "ok"},
		{name: "no machine fits", story: []at{{0, u()}, {250, u(waits("3 of 3 machines lack label disk=ssd"))}}, until: 5000,
			want: []string{"cannot be placed: 3 of 3 machines lack label disk=ssd"}, kind: fault.Failed},
		{name: "a reason that goes away in time is none", story: []at{{0, u(waits("no machine is there"))}, {1500, u(on("m1"))}, {4000, u(on("m1"), is("m1", "active/running", 2))}}, until: 4000,
			want: []string{"placed on m1 (fits)", "active (running) on m1 after 4.0 s"}, kind: "ok"},
		{name: "the brake is told and waited for", before: ptr(u(away("m1"))), story: []at{{0, u(away("m1"), waits("not moved before 12:00"))}, {9000, u(on("m2"))}, {9100, u(on("m2"), is("m2", "active/running", 2))}}, until: 9000,
			want: []string{"waiting: not moved before 12:00", "placed on m2 (fits)", "active (running) on m2 after 9.1 s"}, kind: "ok"},
		{name: "nobody plans", story: []at{{0, u()}}, timeout: 5 * time.Second, until: 6000,
			want: []string{"waiting for a machine: the cluster has not planned yet", "is not active after 5.1 s: it has no machine"}, kind: fault.TimedOut},
		{name: "bad setting", story: []at{{0, u(on("m1"))}, {20, u(on("m1"), is("m1", "inactive/dead", 0, func(s *unit.State) { s.Load, s.Message = "bad-setting", "ExecStart= is missing" }))}},
			want: []string{"placed on m1 (fits)", "cannot be loaded on m1: ExecStart= is missing"}, kind: fault.Failed},
		{name: "bad setting of the content before counts for nothing", story: []at{{0, u(on("m1"), is("m1", "inactive/dead", 0, func(s *unit.State) { s.Load, s.Hash = "bad-setting", "old" }))}, {20, u(on("m1"), is("m1", "active/running", 2))}},
			want: []string{"placed on m1 (fits)", "active (running) on m1 after 0.02 s"}, kind: "ok"},
		{name: "already active", before: ptr(u(on("m1"), is("m1", "active/running", 2))), story: []at{{0, u(on("m1"), is("m1", "active/running", 2))}},
			want: []string{"is active (running) on m1 already"}, kind: "ok"},
		{name: "global", story: []at{{0, u(global)}, {50, u(global, on("m1"), on("m2"))}, {90, u(global, on("m1"), on("m2"), is("m1", "active/running", 2), is("m2", "active/running", 2))}}, until: 2000,
			want: []string{"placed on m1 (fits)", "placed on m2 (fits)", "active (running) on m1 after 0.09 s", "active (running) on m2 after 0.09 s", "up on 2 machines"}, kind: "ok"},
		{name: "stop", goal: Down, before: ptr(u(on("m1"), is("m1", "active/running", 2))), story: []at{{0, target(unit.Loaded, u(on("m1"), is("m1", "active/running", 2)))}, {10, u(on("m1"), is("m1", "deactivating/stop-sigterm", 2))}, {700, u(on("m1"), is("m1", "inactive/dead", 2))}},
			want: []string{"stopping on m1", "stopped after 0.7 s"}, kind: "ok"},
		{name: "stop of one that has to be killed", goal: Down, before: ptr(u(on("m1"))), story: []at{{0, target(unit.Loaded, u(on("m1"), is("m1", "failed/failed", 2, says("killed: it did not stop in time"))))}},
			want: []string{"stopped, and failed at that: killed: it did not stop in time"}, kind: "ok"},
		{name: "unload", goal: Off, before: ptr(u(on("m1"))), story: []at{{0, target(unit.Inactive, u(on("m1"), is("m1", "active/running", 2)))}, {100, u(on("m1"))}, {200, u()}},
			want: []string{"stopping on m1", "unloaded after 0.2 s"}, kind: "ok"},
		{name: "load", goal: Loaded, story: []at{{0, target(unit.Loaded, u())}, {30, u(on("m1"))}, {60, u(on("m1"), is("m1", "inactive/dead", 0))}},
			want: []string{"placed on m1 (fits)", "loaded on m1"}, kind: "ok"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var got []string
			var failure error
			ends := 0
			tr := New(x.goal, []unit.Name{"u.service"}, x.timeout, func(s Step) {
				got = append(got, s.Text)
				if s.Kind == Failed {
					failure = s.Err
				}
				if s.Kind == Failed || s.Kind == Done {
					ends++
				}
			})
			next := 0
			for ms := 0; ms <= max(x.until, x.story[len(x.story)-1].ms); ms += 10 {
				now := start.Add(time.Duration(ms) * time.Millisecond)
				for ; next < len(x.story) && x.story[next].ms <= ms; next++ {
					if next == 0 {
						tr.Asked(x.before, x.story[0].u, start, now)
					} else {
						tr.See(x.story[next].u, false, now)
					}
				}
				if ms%100 == 0 {
					tr.Tick(now)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(x.want) {
				t.Errorf("got  %q\nwant %q", got, x.want)
			}
			if ends != 1 || tr.Open() != 0 {
				t.Errorf("%d outcomes, %d open", ends, tr.Open())
			}
			if x.kind == "ok" && failure != nil || x.kind != "ok" && !fault.Is(failure, x.kind) {
				t.Errorf("failure %v, want kind %q", failure, x.kind)
			}
		})
	}
}

func ptr(x api.Unit) *api.Unit { return &x }

func target(to unit.Target, x api.Unit) api.Unit {
	x.Target = to
	return x
}

func TestPatienceIsTheUnitsOwn(t *testing.T) {
	set := func(key, value string) func(*api.Unit) {
		return func(x *api.Unit) {
			x.Options = append(x.Options, unit.Option{Section: "Service", Name: key, Value: value})
		}
	}
	for _, x := range []struct {
		goal Goal
		u    api.Unit
		want string
	}{
		{Up, u(), "3m30s"},
		{Down, u(), "2m0s"},
		{Up, u(set("TimeoutStartSec", "10s"), set("TimeoutStopSec", "5")), "45s"},
		{Off, u(set("TimeoutSec", "1min")), "1m30s"},
		{Up, u(kind("oneshot")), "2562047h47m16.854775807s"},
		{Up, u(set("TimeoutStartSec", "infinity")), "2562047h47m16.854775807s"},
	} {
		if got := New(x.goal, nil, 0, nil).patience(x.u).String(); got != x.want {
			t.Errorf("got %s, want %s", got, x.want)
		}
	}
}
