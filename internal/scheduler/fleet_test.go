package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flota/internal/unit"
)

// The tests in this file show the behaviour that fleet's functional tests of the same names assert.

// activeOf counts places that are not leaving, and the machines they are on.
func activeOf(c Cluster) (places, machines int) {
	seen := map[string]bool{}
	for _, p := range c.Places {
		if !p.Leaving {
			places++
			seen[string(p.Machine)] = true
		}
	}
	return places, len(seen)
}

func wantActive(t *testing.T, c Cluster, places, machines int) {
	t.Helper()
	if p, m := activeOf(c); p != places || m != machines {
		t.Fatalf("%d places on %d machines, want %d on %d: %v", p, m, places, machines, where(c))
	}
	if bad := broken(c); len(bad) > 0 {
		t.Fatal(bad)
	}
}

func TestScheduleMachineOf(t *testing.T) {
	var units []Unit
	for i := range 3 {
		units = append(units, launched(fmt.Sprintf("ping.%d.service", i)),
			launched(fmt.Sprintf("pong.%d.service", i), fmt.Sprintf("MachineOf=ping.%d.service", i)))
	}
	c := settled(t, cluster(threeMachines(), units...))
	wantActive(t, c, 6, 3)
	old := on(c, "ping.1.service")
	var n int
	fmt.Sscanf(old, "m%d", &n)
	c = settled(t, kill(c, noon.Add(-7*time.Second), n))
	wantActive(t, c, 6, 2)
	if now := on(c, "ping.1.service"); now == old || now != on(c, "pong.1.service") {
		t.Fatalf("ping.1 went from %s to %s, pong.1 to %s", old, now, on(c, "pong.1.service"))
	}
}

func TestScheduleConflicts(t *testing.T) {
	var units []Unit
	for i := range 5 {
		units = append(units, launched(fmt.Sprintf("conflict.%d.service", i), "Conflicts=conflict.*.service"))
	}
	c := cluster(threeMachines(), units...)
	p := Make(c, noon)
	wantActive(t, Apply(c, p), 3, 3)
	if len(p.Waiting) != 2 || !strings.HasPrefix(p.Waiting[0].Reason, "3 of 3 machines have units such as conflict.") {
		t.Fatalf("%+v", p.Waiting)
	}
}

func TestScheduleOneWayConflict(t *testing.T) {
	c := settled(t, cluster([]Machine{live(1, 0)}, launched("conflicts-with-hello.service", "Conflicts=hello.service")))
	c = Add(c, launched("hello.service"))
	p := Make(c, noon)
	if len(p.Moves) > 0 || waits(p, "hello.service") != "1 of 1 machine has conflicts-with-hello.service, which it conflicts with (m1)" {
		t.Fatalf("%s %+v", text(p), p.Waiting)
	}
	p = Make(without(c, "conflicts-with-hello.service"), noon)
	if want := "remove conflicts-with-hello.service m1>\nplace hello.service >m1"; text(p) != want {
		t.Fatalf("got %s\nwant %s", text(p), want)
	}
}

func TestScheduleMultipleConflicts(t *testing.T) {
	for name, c0 := range map[string]Unit{
		"one line":   launched("c.0.service", "Conflicts=c.1.service c.2.service"),
		"many lines": launched("c.0.service", "Conflicts=c.1.service", "Conflicts=c.2.service"),
	} {
		t.Run(name, func(t *testing.T) {
			c := settled(t, cluster(threeMachines(), launched("c.1.service", "Conflicts=c.2.service"), launched("c.2.service"), c0))
			wantActive(t, c, 3, 3)
		})
	}
}

func TestScheduleReplace(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:2], launched("replace.0.service")))
	old := on(c, "replace.0.service")
	p := Make(Add(c, launched("replace.1.service", "Replaces=replace.0.service")), noon)
	c = Apply(Add(c, launched("replace.1.service", "Replaces=replace.0.service")), p)
	wantActive(t, c, 2, 2)
	if on(c, "replace.1.service") != old || on(c, "replace.0.service") == old {
		t.Fatal(where(c))
	}
	if want := "replace.1.service replaces it on m1; m2 is the least loaded machine that can run it"; p.Moves[0].Reason != want {
		t.Fatalf("got %q\nwant %q", p.Moves[0].Reason, want)
	}
	if want := "it takes m1 from replace.0.service"; p.Moves[1].Reason != want {
		t.Fatalf("got %q\nwant %q", p.Moves[1].Reason, want)
	}
}

// Unlike fleet, a unit is displaced only to a machine that may run it.
func TestScheduleReplaceChecksTheDisplaced(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:2], launched("old.service", "MachineID=m1")))
	c = settled(t, Add(c, launched("new.service", "Replaces=old.service")))
	if on(c, "old.service") != "m1" || on(c, "new.service") != "m2" {
		t.Fatal(where(c))
	}
	c = cluster(threeMachines()[:1], launched("old.service"))
	c = Add(settled(t, c), launched("new.service", "Replaces=old.service"))
	if p := Make(c, noon); len(p.Moves) > 0 ||
		waits(p, "new.service") != "1 of 1 machine has old.service, which it replaces and which can go nowhere else (m1)" {
		t.Fatalf("%s %+v", text(p), p.Waiting)
	}
}

func TestScheduleCircularReplace(t *testing.T) {
	c := cluster(threeMachines()[:2], launched("replace.0.service", "Replaces=replace.1.service"),
		launched("replace.1.service", "Replaces=replace.0.service"))
	p := Make(c, noon)
	wantActive(t, Apply(c, p), 1, 1)
	if want := "it and replace.0.service replace each other, and replace.0.service was first"; waits(p, "replace.1.service") != want {
		t.Fatalf("%+v", p.Waiting)
	}
	settled(t, c)
}

func TestScheduleConditionMachineID(t *testing.T) {
	for name, id := range map[string]func(int) string{
		"whole": func(n int) string { return string(mid(n)) },
		"short": func(n int) string { return mid(n).Short() },
		"name":  func(n int) string { return fmt.Sprintf("m%d", n) },
	} {
		t.Run(name, func(t *testing.T) {
			var units []Unit
			for n := 3; n >= 1; n-- {
				units = append(units, launched(fmt.Sprintf("u%d.service", n), "MachineID="+id(n)))
			}
			c := settled(t, cluster(threeMachines(), units...))
			for n := 1; n <= 3; n++ {
				if got := on(c, fmt.Sprintf("u%d.service", n)); got != fmt.Sprintf("m%d", n) {
					t.Errorf("u%d is on %q", n, got)
				}
			}
		})
	}
	p := Make(cluster(threeMachines(), launched("a.service", "X-ConditionMachineID=ffffffff")), noon)
	if waits(p, "a.service") != "no machine has the ID ffffffff" {
		t.Fatalf("%+v", p.Waiting)
	}
}

func TestScheduleGlobalUnits(t *testing.T) {
	c := settled(t, cluster(threeMachines(), launched("hello.service"), launched("goodbye.service")))
	wantActive(t, c, 2, 2)
	c = settled(t, Add(c, launched("global.service", "Global=true")))
	wantActive(t, c, 5, 3)
	if on(c, "global.service") != "m1 m2 m3" {
		t.Fatal(where(c))
	}
	// a machine that joins gets it, one that is gone keeps its place for its return
	c.Machines = append(slices.Clone(c.Machines), live(4, 0))
	if c = settled(t, kill(c, noon.Add(-9*time.Second), 1)); on(c, "global.service") != "m1 m2 m3 m4" {
		t.Fatal(where(c))
	}
}

func TestScheduleGlobalConflicts(t *testing.T) {
	c := settled(t, cluster(threeMachines(), launched("global.service", "Global=true")))
	c = Add(c, launched("other.service", "Global=true", "Conflicts=global.service"))
	p := Make(c, noon)
	wantActive(t, Apply(c, p), 3, 3)
	if w := waits(p, "other.service"); !strings.Contains(w, "3 of 3 machines have units such as global.service") {
		t.Fatalf("%q", w)
	}
}

func TestTemplatesWithSpecifiersInMetadata(t *testing.T) {
	var machines []Machine
	for n := 1; n <= 3; n++ {
		machines = append(machines, live(n, 0, fmt.Sprintf("hostname=host%d", n)))
	}
	var units []Unit
	for n := 1; n <= 4; n++ {
		units = append(units, launched(fmt.Sprintf("metadata@host%d.service", n), "MachineMetadata=hostname=%i"))
	}
	c := cluster(machines, units...)
	p := Make(c, noon)
	c = Apply(c, p)
	for n := 1; n <= 3; n++ {
		if got := on(c, fmt.Sprintf("metadata@host%d.service", n)); got != fmt.Sprintf("m%d", n) {
			t.Errorf("host%d is on %q", n, got)
		}
	}
	if waits(p, "metadata@host4.service") != "3 of 3 machines lack label hostname=host4" {
		t.Fatalf("%+v", p.Waiting)
	}
}

// conflicting makes three units that are each alone on a machine, placed on m1 to m3, and a fourth machine.
func conflicting(t *testing.T, machines []Machine) Cluster {
	var units []Unit
	for i := range 3 {
		units = append(units, launched(fmt.Sprintf("conflict.%d.service", i), "Conflicts=conflict.*.service"))
	}
	return settled(t, cluster(machines, units...))
}

func TestDynamicClusterNewMemberUnitMigration(t *testing.T) {
	c := conflicting(t, append(threeMachines(), live(4, 0)))
	wantActive(t, c, 3, 3)
	gone := kill(c, noon.Add(-7*time.Second), 1)
	p := Make(gone, noon)
	if len(p.Moves) != 1 || p.Moves[0].From != mid(1) || p.Moves[0].To != mid(4) {
		t.Fatal(text(p))
	}
	want := "m1 is gone (no sign of life since 11:59:53); m4 is the least loaded machine that can run it"
	if p.Moves[0].Reason != want || p.Moves[0].Put.Reason != want || !p.Moves[0].IfGone {
		t.Fatalf("%+v", p.Moves[0])
	}
}

func TestDynamicClusterMemberReboot(t *testing.T) {
	c := conflicting(t, threeMachines())
	was := where(c)
	away := kill(c, noon.Add(-7*time.Second), 2)
	p := Make(away, noon) // nobody can take its unit: it keeps its place
	if len(p.Moves) != 0 || !strings.HasPrefix(waits(p, "conflict.1.service"), "m2 is gone (no sign of life since 11:59:53); ") {
		t.Fatalf("%s %+v", text(p), p.Waiting)
	}
	away.Machines[1] = live(5, 0) // another machine comes in its stead
	away.Machines = append(away.Machines, kill(c, noon, 2).Machines[1])
	c = settled(t, away)
	wantActive(t, c, 3, 3)
	moved := 0
	for n, m := range where(c) {
		if was[n] != m {
			moved++
		}
	}
	if moved != 1 {
		t.Fatalf("%d units moved: %v, %v", moved, was, where(c))
	}
}

func TestUnitRunnable(t *testing.T) {
	for target, want := range map[unit.Target]int{unit.Inactive: 0, unit.Loaded: 1, unit.Launched: 1, "": 0} {
		c := settled(t, cluster([]Machine{live(1, 0)}, prepared("hello.service", target)))
		if n, _ := activeOf(c); n != want {
			t.Errorf("target %q: %d places, want %d", target, n, want)
		}
	}
}
