package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// startAll starts units one by one without waiting, as fleet's tests do.
func (b *bed) startAll(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		b.fleetctl(t, "start", "--no-block", fixture(n))
	}
}

// machineOf gives a machine's id by its name.
func (b *bed) machineOf(t *testing.T, name string) string {
	t.Helper()
	ms, err := b.machines()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Name == name {
			return string(m.ID)
		}
	}
	t.Fatalf("no machine %s among %+v", name, ms)
	return ""
}

// nameOf gives a machine's name by its id.
func (b *bed) nameOf(t *testing.T, id string) string {
	t.Helper()
	ms, err := b.machines()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if string(m.ID) == id {
			return m.Name
		}
	}
	t.Fatalf("no machine %s among %+v", id, ms)
	return ""
}

// waitMachines waits until fleetctl lists n machines.
func (b *bed) waitMachines(t *testing.T, n int) {
	t.Helper()
	wait(t, fmt.Sprintf("%d machines", n), func() error {
		if rows := b.rows(t, "list-machines"); len(rows) != n {
			return fmt.Errorf("listed are %v", rows)
		}
		return nil
	})
}

// one gives the single machine of a unit.
func one(t *testing.T, on map[string][]string, unit string) string {
	t.Helper()
	if len(on[unit]) != 1 {
		t.Fatalf("%s is active on %v", unit, on[unit])
	}
	return on[unit][0]
}

// distinct fails unless the units are active on a machine each, no two on the same.
func distinct(t *testing.T, on map[string][]string) {
	t.Helper()
	by := map[string]string{}
	for _, u := range slices.Sorted(maps.Keys(on)) {
		id := one(t, on, u)
		if other := by[id]; other != "" {
			t.Errorf("%s and %s are on the same machine", u, other)
		}
		by[id] = u
	}
}

// stays fails if for a while something becomes true that must not.
func stays(t *testing.T, what string, broken func() error) {
	t.Helper()
	var err error
	if until(2*time.Second, func() bool { err = broken(); return err != nil }) {
		t.Errorf("%s: %v", what, err)
	}
}

// TestScheduleMachineOf starts three pairs; each is together, and moves together when its machine is shut down.
func TestScheduleMachineOf(t *testing.T) {
	b := borrow(t)
	for i := range 3 {
		b.fleetctl(t, "start", "--no-block", fixture(fmt.Sprintf("ping.%d.service", i)), fixture(fmt.Sprintf("pong.%d.service", i)))
	}
	if rows := b.rows(t, "list-unit-files"); len(rows) != 6 {
		t.Fatalf("%d units are listed, want 6", len(rows))
	}
	together := func(on map[string][]string) {
		t.Helper()
		for i := range 3 {
			ping, pong := fmt.Sprintf("ping.%d.service", i), fmt.Sprintf("pong.%d.service", i)
			if one(t, on, ping) != one(t, on, pong) {
				t.Errorf("%s and %s are on different machines", ping, pong)
			}
		}
	}
	on := b.waitActive(t, 6)
	together(on)
	old := one(t, on, "ping.1.service")
	b.flota(t, "dev", "stop", b.nameOf(t, old))
	b.waitMachines(t, 2)
	on = b.waitActive(t, 6)
	together(on)
	if one(t, on, "ping.1.service") == old {
		t.Error("ping.1.service did not move")
	}
}

// TestScheduleConflicts wants five units that exclude each other on three machines: three run.
func TestScheduleConflicts(t *testing.T) {
	b := borrow(t)
	for i := range 5 {
		b.startAll(t, fmt.Sprintf("rival.%d.service", i))
	}
	if rows := b.rows(t, "list-unit-files"); len(rows) != 5 {
		t.Fatalf("%d units are listed, want 5", len(rows))
	}
	distinct(t, b.waitActive(t, 3))
	stays(t, "three of five run", func() error {
		if on := b.active(t); len(on) != 3 {
			return fmt.Errorf("active are %v", on)
		}
		return nil
	})
}

// TestScheduleOneWayConflict has a unit that says nothing of conflicts wait for one that names it.
func TestScheduleOneWayConflict(t *testing.T) {
	b := newCluster(t, 1)
	b.startAll(t, "against-hello.service")
	b.waitActive(t, 1)
	b.startAll(t, "hello.service")
	if rows := b.rows(t, "list-unit-files"); len(rows) != 2 {
		t.Fatalf("%d units are listed, want 2", len(rows))
	}
	stays(t, "hello.service waits", func() error {
		if on := b.active(t); len(on) != 1 || len(on["against-hello.service"]) != 1 {
			return fmt.Errorf("active are %v", on)
		}
		return nil
	})
	b.fleetctl(t, "destroy", "against-hello.service")
	wait(t, "hello.service in its place", func() error {
		if on := b.active(t); len(on) != 1 || len(on["hello.service"]) != 1 {
			return fmt.Errorf("active are %v", on)
		}
		return nil
	})
}

// TestScheduleMultipleConflicts names several conflicts, on one line and on a line each.
func TestScheduleMultipleConflicts(t *testing.T) {
	b := borrow(t)
	b.startAll(t, "apart.0.service", "apart.1.service", "apart.2.service")
	distinct(t, b.waitActive(t, 3))
}

// TestScheduleReplace has a unit take the machine of another, which moves and runs on.
func TestScheduleReplace(t *testing.T) {
	b := newCluster(t, 2)
	b.startAll(t, "seat.0.service", "seat.1.service", "seat.2.service")
	on := b.waitActive(t, 3)
	old := one(t, on, "seat.0.service")
	b.startAll(t, "usurper.service")
	wait(t, "usurper.service on the machine of seat.0.service", func() error {
		on := b.active(t)
		if len(on) != 4 || len(on["usurper.service"]) != 1 || len(on["seat.0.service"]) != 1 {
			return fmt.Errorf("active are %v", on)
		}
		if on["usurper.service"][0] != old || on["seat.0.service"][0] == old {
			return fmt.Errorf("%s was the machine of seat.0.service, active are %v", old, on)
		}
		return nil
	})
}

// TestScheduleCircularReplace has two units that would replace each other: one runs, and they do not take turns.
func TestScheduleCircularReplace(t *testing.T) {
	b := newCluster(t, 2)
	b.startAll(t, "proud.0.service")
	on := b.waitActive(t, 1)
	b.startAll(t, "proud.1.service")
	if rows := b.rows(t, "list-unit-files"); len(rows) != 2 {
		t.Fatalf("%d units are listed, want 2", len(rows))
	}
	launched := func() (n int) {
		for _, r := range b.rows(t, "list-unit-files", "--fields", "unit,state") {
			if r[1] == "launched" {
				n++
			}
		}
		return n
	}
	stays(t, "one of two runs", func() error {
		if n := launched(); n > 1 {
			return fmt.Errorf("%d units are launched; active are %v, before %v", n, b.active(t), on)
		}
		return nil
	})
	b.waitActive(t, 1)
}

// TestScheduleConditionMachineID pins a unit to each machine by its id.
func TestScheduleConditionMachineID(t *testing.T) {
	b := borrow(t)
	ids := map[string]string{}
	for _, r := range b.rows(t, "list-machines", "--fields", "machine") {
		name := "pin@" + r[0] + ".service"
		ids[name] = r[0]
		b.startAll(t, name)
	}
	on := b.waitActive(t, 3)
	for name, id := range ids {
		if got := one(t, on, name); got != id {
			t.Errorf("%s is on %s", name, got)
		}
	}
}

// TestScheduleGlobalUnits runs two units once and one on all three machines.
func TestScheduleGlobalUnits(t *testing.T) {
	b := borrow(t)
	b.startAll(t, "hello@1.service", "hello@2.service", "everywhere.service")
	on := b.waitActive(t, 5)
	if len(on["everywhere.service"]) != 3 || len(on["hello@1.service"]) != 1 || len(on["hello@2.service"]) != 1 {
		t.Errorf("active are %v", on)
	}
	if out := b.fleetctl(t, "status", "everywhere.service"); strings.Count(out, "Active: active") != 3 {
		t.Errorf("status of a global unit: %s", out)
	}
	before := map[string]int{}
	for _, s := range b.unit(t, "everywhere.service").States {
		before[s.Name] = s.MainPID
	}
	b.fleetctl(t, "restart", "everywhere.service")
	wait(t, "a new process on each machine", func() error {
		states := b.unit(t, "everywhere.service").States
		for _, s := range states {
			if s.Active != "active" || s.MainPID == 0 || s.MainPID == before[s.Name] {
				return fmt.Errorf("on %s it is %s as process %d, before %d", s.Name, s.Active, s.MainPID, before[s.Name])
			}
		}
		if len(states) != 3 {
			return fmt.Errorf("%d machines report it", len(states))
		}
		return nil
	})
	b.waitActive(t, 5)
}

// TestScheduleGlobalConflicts has two global units that exclude each other: the second runs nowhere.
func TestScheduleGlobalConflicts(t *testing.T) {
	b := borrow(t)
	b.startAll(t, "everywhere.0.service")
	b.waitActive(t, 3)
	b.startAll(t, "everywhere.1.service")
	stays(t, "the first global unit holds all machines", func() error {
		if on := b.active(t); len(on["everywhere.0.service"]) != 3 || len(on["everywhere.1.service"]) != 0 {
			return fmt.Errorf("active are %v", on)
		}
		return nil
	})
}

// TestTemplatesWithSpecifiersInMetadata places instances by a label that is their name; one that no machine has is refused in time.
func TestTemplatesWithSpecifiersInMetadata(t *testing.T) {
	b := borrow(t)
	ids := map[string]string{}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("m%d", i)
		b.flota(t, "machine", "label", name, "host="+name)
		ids["host@"+name+".service"] = b.machineOf(t, name)
	}
	b.fleetctl(t, "submit", fixture("host@.service"))
	for i := 3; i > 0; i-- {
		b.fleetctl(t, "start", fmt.Sprintf("host@m%d.service", i))
	}
	on := b.waitActive(t, 3)
	for name, id := range ids {
		if got := one(t, on, name); got != id {
			t.Errorf("%s is on %s", name, got)
		}
	}
	if r := b.run("fleetctl", "start", "--block-attempts=20", "host@nowhere.service"); r.code != 1 || !strings.Contains(r.err, "host") {
		t.Error(r)
	}
}
