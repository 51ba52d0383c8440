package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"flota/internal/agent"
	"flota/internal/unit"
)

// content is a unit file with one line that makes it differ.
func content(mark string) []unit.Option {
	return []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/" + mark}}
}

func TestTasks(t *testing.T) {
	u := func(target unit.Target, run uint64) unit.Unit {
		return unit.Unit{Name: "a.service", Options: content("one"), Target: target, Run: run}
	}
	place := func(u unit.Unit) *unit.Place { return &unit.Place{Unit: u, Reason: "spread over machines"} }
	leaving := func(u unit.Unit) *unit.Place { return &unit.Place{Unit: u, Leaving: true} }
	state := func(load, active string, run uint64, mark string) *unit.State {
		return &unit.State{Unit: "a.service", Load: load, Active: active, Run: run, Hash: unit.File{Options: content(mark)}.Hash()}
	}
	for _, c := range []struct {
		name  string
		place *unit.Place
		state *unit.State
		want  string
	}{
		{"nothing", nil, nil, ""},
		{"forgotten by the driver", nil, state("not-found", "inactive", 0, "one"), ""},
		{"new, loaded", place(u(unit.Loaded, 0)), nil, "load: placed on this machine: spread over machines"},
		{"new, launched", place(u(unit.Launched, 1)), nil, "load: placed on this machine: spread over machines; start: it is wanted launched"},
		{"loaded, to launch", place(u(unit.Launched, 1)), state("loaded", "inactive", 0, "one"), "start: it is wanted launched"},
		{"runs as wanted", place(u(unit.Launched, 3)), state("loaded", "active", 3, "one"), ""},
		{"failed under this run", place(u(unit.Launched, 3)), state("loaded", "failed", 3, "one"), ""},
		{"restart", place(u(unit.Launched, 4)), state("loaded", "active", 3, "one"), "start: it was asked to start anew (run 4 after 3)"},
		{"fenced or booted", place(u(unit.Launched, 4)), state("loaded", "inactive", 0, "one"), "start: it is wanted launched"},
		{"to stop", place(u(unit.Loaded, 4)), state("loaded", "active", 4, "one"), "stop: it is wanted loaded, not launched"},
		{"to stop while starting", place(u(unit.Loaded, 4)), state("loaded", "activating", 4, "one"), "stop: it is wanted loaded, not launched"},
		{"wanted by another unit", place(u(unit.Loaded, 4)), state("loaded", "active", 0, "one"), ""},
		{"wanted by another unit, to launch", place(u(unit.Launched, 4)), state("loaded", "active", 0, "one"), "start: it is wanted launched"},
		{"stopping already", place(u(unit.Loaded, 4)), state("loaded", "deactivating", 4, "one"), ""},
		{"stopped", place(u(unit.Loaded, 4)), state("loaded", "inactive", 4, "one"), ""},
		{"gone", nil, state("loaded", "active", 4, "one"), "unload: its place on this machine is gone"},
		{"new content, goes on", place(u(unit.Launched, 4)), state("loaded", "active", 4, "two"), "load: its content was changed"},
		{"new content, restart", place(u(unit.Launched, 5)), state("loaded", "active", 4, "two"), "load: its content was changed; start: it was asked to start anew (run 5 after 4)"},
		{"new content, loaded", place(u(unit.Loaded, 5)), state("loaded", "inactive", 4, "two"), "load: its content was changed"},
		{"cannot start", place(u(unit.Launched, 5)), state("bad-setting", "inactive", 0, "one"), ""},
		{"could not start", place(u(unit.Launched, 5)), state("bad-setting", "inactive", 0, "two"), "load: its content was changed; start: it is wanted launched"},
		{"leaving, runs", leaving(u(unit.Launched, 5)), state("loaded", "active", 5, "one"), ""},
		{"leaving, restart asked", leaving(u(unit.Launched, 6)), state("loaded", "active", 5, "one"), ""},
		{"leaving, never came", leaving(u(unit.Launched, 6)), nil, ""},
		{"leaving, stopped by the user", leaving(u(unit.Loaded, 6)), state("loaded", "active", 5, "one"), "stop: it is wanted loaded, not launched"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var desired []unit.Place
			var current []unit.State
			if c.place != nil {
				desired = append(desired, *c.place)
			}
			if c.state != nil {
				current = append(current, *c.state)
			}
			var got []string
			for _, task := range agent.Tasks(desired, current) {
				got = append(got, fmt.Sprintf("%s: %s", task.Kind, task.Reason))
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestTasksAreSortedByUnit(t *testing.T) {
	var desired []unit.Place
	for _, n := range []unit.Name{"c.service", "a.service", "b.service"} {
		desired = append(desired, unit.Place{Unit: unit.Unit{Name: n, Target: unit.Launched, Run: 1}})
	}
	var names []unit.Name
	for _, task := range agent.Tasks(desired, []unit.State{{Unit: "aa.service", Load: "loaded"}}) {
		names = append(names, task.Name)
	}
	if !slices.IsSorted(names) || len(names) != 7 {
		t.Errorf("%v", names)
	}
}
