package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

func wantMoves(t *testing.T, p Plan, want ...string) {
	t.Helper()
	if got := text(p); got != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s\nwaiting %+v", got, strings.Join(want, "\n"), p.Waiting)
	}
}

func wantWaits(t *testing.T, p Plan, name, want string) {
	t.Helper()
	if got := waits(p, name); got != want {
		t.Fatalf("%s waits: got\n%q\nwant\n%q", name, got, want)
	}
}

// reports makes a States of "m1/a.service": active.
func reports(states map[string]string) func(machine.ID, unit.Name) (unit.State, bool) {
	return func(m machine.ID, n unit.Name) (unit.State, bool) {
		for k, active := range states {
			var no int
			var name string
			fmt.Sscanf(k, "m%d/%s", &no, &name)
			if m == mid(no) && n == unit.Name(name) {
				return unit.State{Active: active}, true
			}
		}
		return unit.State{}, false
	}
}

func TestInstancesAreSpread(t *testing.T) {
	hello := func(n int) Unit { return launched(fmt.Sprintf("hello@%d.service", n)) }
	t.Run("at once", func(t *testing.T) {
		wantActive(t, settled(t, cluster(threeMachines(), hello(1), hello(2), hello(3))), 3, 3)
	})
	t.Run("one after another beside others", func(t *testing.T) {
		c := settled(t, cluster(threeMachines()[:1], launched("a.service"), launched("b.service"), launched("c.service")))
		c.Machines = threeMachines() // m1 has three units already
		for n := 1; n <= 3; n++ {
			c = settled(t, Add(c, hello(n)))
		}
		seen := map[string]bool{on(c, "hello@1.service"): true, on(c, "hello@2.service"): true, on(c, "hello@3.service"): true}
		if len(seen) != 3 {
			t.Fatal(where(c))
		}
	})
	t.Run("over zones first", func(t *testing.T) {
		c := settled(t, cluster([]Machine{live(1, 0, "zone=a"), live(2, 0, "zone=a"), live(3, 0, "zone=b")}, hello(1), hello(2), hello(3), hello(4)))
		if w := where(c); w["hello@1.service"] == w["hello@2.service"] || strings.Count(fmt.Sprint(w), "m3") != 2 {
			t.Fatal(w)
		}
	})
}

func TestReasonsOfWaiting(t *testing.T) {
	machines := []Machine{live(1, 0), live(2, 0), live(3, 612, "disk=ssd")}
	c := cluster(machines, launched("fill.service", "MachineID=m3", "[X-Flota]Memory=512M"),
		launched("db.service", "MachineMetadata=disk=ssd", "[X-Flota]Memory=512M"),
		launched("side.service", "MachineOf=db.service"), launched("lost.service", "MachineOf=nobody.service"))
	p := Make(c, noon)
	wantWaits(t, p, "db.service", "2 of 3 machines lack label disk=ssd, 1 is out of memory (needs 512 MiB, 100 MiB free)")
	wantWaits(t, p, "side.service", "it must be on the machine of db.service, which is on no machine")
	wantWaits(t, p, "lost.service", "it must be on the machine of nobody.service, which does not exist")
	wantWaits(t, Make(cluster(nil, launched("a.service")), noon), "a.service", "there are no machines")
	wantWaits(t, Make(cluster(machines, launched("t@.service")), noon), "t@.service",
		"its options cannot be used: it is a template: only its instances run")
	gone := kill(Drain(cluster(machines, launched("a.service")), mid(3)), noon, 1, 2)
	wantWaits(t, Make(gone, noon), "a.service", "2 of 3 machines are gone (m1, m2), 1 is drained (m3)")
}

func TestDrainStartsElsewhereFirst(t *testing.T) {
	states := map[string]string{}
	c := settled(t, cluster(threeMachines()[:2], launched("a.service"), prepared("b.service", unit.Loaded, "MachineOf=a.service")))
	c.States = reports(states)
	c = Drain(c, mid(1))
	p := Make(c, noon)
	wantMoves(t, p, "leave a.service m1>m2", "move b.service m1>m2")
	if want := "m1 is drained; m2 is the least loaded machine that can run it"; p.Moves[0].Reason != want {
		t.Fatalf("%q", p.Moves[0].Reason)
	}
	c = Apply(c, p)
	if p = Make(c, noon); len(p.Moves) > 0 || !p.Next.Equal(noon.Add(LeaveFor)) {
		t.Fatalf("%s next %s", text(p), p.Next)
	}
	wantMoves(t, Make(c, noon.Add(LeaveFor)), "finish a.service m1>")
	for _, active := range []string{"active", "failed"} {
		states["m2/a.service"] = active
		wantMoves(t, Make(c, noon), "finish a.service m1>")
	}
	states["m2/a.service"] = "activating"
	wantMoves(t, Make(c, noon))
	// the new machine dies before the unit is active there: it goes on where it was, and on to a third
	c.Machines = append(slices.Clone(c.Machines), live(3, 0))
	wantMoves(t, Make(kill(c, noon.Add(-8*time.Second), 2), noon), "move a.service m2>m3", "move b.service m2>m3")
}

// What does not run where it is has nothing to go on with while it starts elsewhere.
func TestDrainMovesWhatDoesNotRunAtOnce(t *testing.T) {
	for active, want := range map[string]string{"active": "leave", "activating": "leave", "inactive": "move", "failed": "move"} {
		c := settled(t, cluster(threeMachines()[:2], launched("a.service")))
		c.States = reports(map[string]string{"m1/a.service": active})
		wantMoves(t, Make(Drain(c, mid(1)), noon), want+" a.service m1>m2")
	}
}

// A new machine that cannot load the unit is waited for no longer: what hinders is told, and the drain ends.
func TestDrainEndsWhenTheUnitCannotBeLoaded(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:2], launched("a.service")))
	c = Drain(c, mid(1))
	c = Apply(c, Make(c, noon))
	c.States = func(m machine.ID, n unit.Name) (unit.State, bool) {
		return unit.State{Load: "bad-setting", Active: "inactive"}, m == mid(2)
	}
	wantMoves(t, Make(c, noon), "finish a.service m1>")
}

func TestDrainShowsWhatHinders(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:2], launched("a.service", "MachineID=m1"), launched("b.service", "MachineOf=a.service")))
	p := Make(Drain(c, mid(1)), noon)
	wantMoves(t, p)
	wantWaits(t, p, "a.service", "m1 is drained; it asks for machine m1; m1 is drained")
	wantWaits(t, p, "b.service", "m1 is drained; 1 of 2 machines is drained (m1), 1 is not the machine of a.service, which is on m1 (m2)")
}

func TestDrainRemovesGlobalUnitsLast(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:2], launched("log.service", "Global=yes"), launched("a.service")))
	c = Drain(c, mid(1))
	p := Make(c, noon)
	wantMoves(t, p, "leave a.service m1>m2")
	c = Apply(c, p)
	c = Apply(c, Make(c, noon.Add(LeaveFor)))
	if c = settled(t, c); on(c, "log.service") != "m2" {
		t.Fatal(where(c))
	}
}

func TestExclusiveStopsBeforeItStarts(t *testing.T) {
	states := map[string]string{"m1/x.service": "active"}
	c := settled(t, cluster(threeMachines()[:2], launched("x.service", "[X-Flota]Exclusive=yes")))
	c.States = reports(states)
	leaving := c
	leaving.Machines = slices.Clone(c.Machines)
	presence := *c.Machines[0].Presence
	presence.Leaving = true
	leaving.Machines[0].Presence = &presence
	p := Make(leaving, noon)
	wantMoves(t, p)
	wantWaits(t, p, "x.service", "m1 is shutting down; x.service is exclusive, so it is started on m2 only when m1 has stopped it")

	c = Drain(c, mid(1))
	p = Make(c, noon)
	wantMoves(t, p, "remove x.service m1>")
	wantWaits(t, p, "x.service", "m1 is drained; x.service is exclusive, so it is stopped on m1 before it starts on m2")
	c = Apply(c, p)
	p = Make(c, noon)
	wantMoves(t, p)
	wantWaits(t, p, "x.service", "x.service is exclusive, and m1 has not yet stopped it")
	resumed := c
	resumed.Machines = threeMachines()[:2]
	wantMoves(t, Make(resumed, noon), "place x.service >m1") // where it still runs, it may stay
	delete(states, "m1/x.service")
	wantMoves(t, Make(c, noon), "place x.service >m2")
	alone := settled(t, cluster(threeMachines()[:1], launched("x.service", "[X-Flota]Exclusive=yes")))
	p = Make(Drain(alone, mid(1)), noon)
	wantMoves(t, p)
	wantWaits(t, p, "x.service", "m1 is drained; 1 of 1 machine is drained (m1)")
}

func TestUpdates(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:1], launched("a.service")))
	for name, tt := range map[string]struct {
		now  Unit
		want string
	}{
		"content": {launched("a.service", "[Service]ExecStart=/bin/true"), "the unit's content changed"},
		"target":  {prepared("a.service", unit.Loaded), "the unit's target is now loaded"},
		"run":     {func() Unit { u := launched("a.service"); u.Run = 3; return Prepare(u.Unit) }(), "a start was asked for (run 3)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Make(Add(c, tt.now), noon.Add(time.Hour))
			wantMoves(t, p, "update a.service >m1")
			if m := p.Moves[0]; m.Reason != tt.want || !m.Put.Since.Equal(noon) || m.Put.Unit.Run != tt.now.Run {
				t.Fatalf("%+v", m)
			}
		})
	}
}

func TestConstraintsThatNoLongerHold(t *testing.T) {
	c := settled(t, cluster([]Machine{live(1, 0, "disk=ssd"), live(2, 0), live(3, 0, "disk=ssd")}, launched("a.service", "MachineMetadata=disk=ssd")))
	c.Machines[0].Labels = map[string]string{"disk": "hdd"}
	p := Make(c, noon)
	wantMoves(t, p, "move a.service m1>m3")
	if want := "m1 lacks label disk=ssd; m3 is the least loaded machine that can run it"; p.Moves[0].Reason != want {
		t.Fatalf("%q", p.Moves[0].Reason)
	}
	p = Make(kill(c, noon.Add(-time.Minute), 3), noon)
	wantMoves(t, p, "remove a.service m1>")
	if waits(p, "a.service") == "" {
		t.Fatal("it does not say why it waits")
	}
}

func TestPlacesThatShouldNotBe(t *testing.T) {
	a := launched("a.service")
	place := func(n int, since time.Time) unit.Place {
		return unit.Place{Machine: mid(n), Unit: a.Unit, Since: since}
	}
	c := cluster(threeMachines(), a)
	c.Places = []unit.Place{place(1, noon), place(2, noon.Add(-time.Hour)), place(9, noon.Add(-2*time.Hour))}
	p := Make(c, noon)
	wantMoves(t, p, "remove a.service m1>", "remove a.service m9>")
	if want := "the unit is also on m2, and may be on one machine only"; p.Moves[0].Reason != want {
		t.Fatalf("%q", p.Moves[0].Reason)
	}
	wantMoves(t, Make(kill(c, noon.Add(-8*time.Second), 2), noon), "remove a.service m2>", "remove a.service m9>")
}

func TestBrakeSaysUntilWhenAndWhy(t *testing.T) {
	var machines []Machine
	var units []Unit
	for n := 1; n <= 5; n++ {
		machines = append(machines, live(n, 0))
		units = append(units, launched(fmt.Sprintf("w@%d.service", n)))
	}
	c := kill(settled(t, cluster(machines, units...)), noon.Add(-8*time.Second), 1, 2, 3)
	c = Add(c, launched("new.service"))
	p := Make(c, noon)
	wantMoves(t, p, "place new.service >m4")
	if p.Brake == nil || p.Brake.Reason != "3 of 5 machines were lost within 6s of each other, which is more likely the network than "+
		"the machines: nothing is moved off the 3 that are still away before 12:00:52" {
		t.Fatalf("%+v", p.Brake)
	}
	wantWaits(t, p, "w@1.service", "m1 is gone (no sign of life since 11:59:52); it is not moved before 12:00:52, because "+
		"3 of 5 machines were lost within 6s of each other")
	// Two are back: they were lost all the same, and the third is not given up any sooner.
	back := kill(c, noon.Add(-8*time.Second))
	for n := range 2 {
		back.Machines[n].Presence, back.Machines[n].Blinked = machines[n].Presence, noon.Add(-8*time.Second)
		back.Machines[n].Lost = time.Time{}
	}
	p = Make(back, noon)
	wantMoves(t, p, "place new.service >m1")
	if p.Brake == nil || !strings.Contains(p.Brake.Reason, "3 of 5 machines were lost") || !strings.Contains(p.Brake.Reason, "off the 1 that") {
		t.Fatalf("%+v", p.Brake)
	}
	if p = Make(c, noon.Add(52*time.Second)); len(p.Moves) != 4 {
		t.Fatal(text(p))
	}
}

func TestRebalance(t *testing.T) {
	c := settled(t, cluster(threeMachines()[:1], launched("w@1.service"), launched("w@2.service"), launched("w@3.service"),
		launched("a.service"), launched("a-side.service", "MachineOf=a.service"), launched("x.service", "[X-Flota]Exclusive=yes")))
	c.Machines = threeMachines()
	if p := Make(c, noon); len(p.Moves) > 0 {
		t.Fatalf("machines that join move nothing: %s", text(p))
	}
	p := Rebalance(c, noon)
	c = Apply(c, p)
	c = Apply(c, Make(c, noon.Add(LeaveFor)))
	wantActive(t, c, 6, 3)
	w := where(c)
	if w["x.service"] != "m1" || w["a.service"] != w["a-side.service"] ||
		w["w@1.service"] == w["w@2.service"] || w["w@2.service"] == w["w@3.service"] || w["w@1.service"] == w["w@3.service"] {
		t.Fatal(w)
	}
	if p := Rebalance(c, noon); len(p.Moves) > 0 {
		t.Fatalf("%s\n%+v", text(p), p.Moves)
	}
}

func TestWhatIf(t *testing.T) {
	c := settled(t, cluster(threeMachines(), launched("a.service"), launched("b.service"), launched("c.service")))
	wantMoves(t, Make(Kill(c, mid(1)), noon), "move a.service m1>m2")
	wantMoves(t, Make(Kill(c, mid(1), mid(2)), noon), "move a.service m1>m3", "move b.service m2>m3")
	wantMoves(t, Make(Drain(c, mid(2)), noon), "leave b.service m2>m1")
	wantMoves(t, Make(Add(c, launched("d.service")), noon), "place d.service >m1")
	if c.Machines[0].Presence == nil || c.Machines[1].Drained || len(c.Units) != 3 {
		t.Fatal("what-if changed the cluster")
	}
}

func TestWitnessGetsNoUnits(t *testing.T) {
	machines := threeMachines()
	machines[2].Witness = true
	c := settled(t, cluster(machines, launched("a@1.service"), launched("a@2.service"), launched("a@3.service"), launched("log.service", "Global=yes")))
	for n, m := range where(c) {
		if strings.Contains(m, "m3") {
			t.Errorf("%s is on the witness: %s", n, m)
		}
	}
	if got := on(c, "log.service"); got != "m1 m2" {
		t.Errorf("the global unit is on %q", got)
	}
	c = cluster(machines, launched("b.service", "MachineID=m3"))
	wantWaits(t, Make(c, noon), "b.service", "it asks for machine m3; m3 is a witness, which runs no units")
}
