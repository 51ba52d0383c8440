package show

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"flota/internal/api"
	"flota/internal/cli/track"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/unit"
)

var now = time.Date(2030, 5, 4, 12, 0, 0, 0, time.UTC)

// sample is a unit that runs on one machine and failed on another that it is to leave.
func sample() api.Unit {
	id1, id2 := machine.ID(strings.Repeat("a", 32)), machine.ID(strings.Repeat("b", 32))
	return api.Unit{
		Unit: unit.Unit{Name: "web@80.service", Target: unit.Launched, Options: []unit.Option{{Section: "Unit", Name: "Description", Value: "Port %i of %p, 100%%"}}},
		Hash: strings.Repeat("0123456789", 4), Current: unit.Launched,
		Places: []api.Place{{Machine: id1, Name: "m1", Addr: "10.0.0.1", Since: now.Add(-3 * time.Minute), Reason: "it fits"}},
		States: []api.State{
			{State: unit.State{Machine: id1, Load: "loaded", Active: "active", Sub: "running", MainPID: 42, Restarts: 3, Status: "Serving", Notes: []string{"User= cannot be honoured"}, Since: now.Add(-65 * time.Second)}, Name: "m1", Addr: "10.0.0.1"},
			{State: unit.State{Machine: id2, Load: "loaded", Active: "failed", Sub: "failed", Result: "exit-code", ExitCode: 3, Run: 1}, Name: "m2", Addr: "10.0.0.2"},
		},
	}
}

func want(t *testing.T, got, text string) {
	t.Helper()
	if got != text {
		t.Errorf("got\n%s\nwant\n%s", got, text)
	}
}

func TestTablesInBothStyles(t *testing.T) {
	var b bytes.Buffer
	rows := Rows([]api.Unit{sample(), {Unit: unit.Unit{Name: "late.service", Target: unit.Launched}}, {Unit: unit.Unit{Name: "off.service", Target: unit.Inactive}}}, true)
	if err := Units(Flota).List(&b, Options{}, rows); err != nil {
		t.Fatal(err)
	}
	want(t, b.String(), "UNIT            MACHINE      ACTIVE   SUB\nweb@80.service  m1/10.0.0.1  active   running\nweb@80.service  m2/10.0.0.2  failed   failed\nlate.service    -            waiting  -\n")
	b.Reset()
	if err := Units(Fleet).List(&b, Options{Style: Fleet, Fields: "unit,hash,machine"}, rows[:1]); err != nil {
		t.Fatal(err)
	}
	want(t, b.String(), "UNIT\t\tHASH\tMACHINE\nweb@80.service\t0123456\taaaaaaaa.../10.0.0.1\n")
	b.Reset()
	if err := UnitFiles(Fleet).List(&b, Options{Style: Fleet, Full: true, Bare: true}, []api.Unit{sample()}); err != nil {
		t.Fatal(err)
	}
	want(t, b.String(), "web@80.service\t"+strings.Repeat("0123456789", 4)+"\tlaunched\tlaunched\t"+strings.Repeat("a", 32)+"/10.0.0.1\n")
	if err := Machines(Fleet).Check("machine,status"); !fault.Is(err, fault.Invalid) || err.Error() != `Invalid key in output format: "status"` {
		t.Error(err)
	}
}

func TestBlockIsLikeSystemctls(t *testing.T) {
	var b bytes.Buffer
	Block(&b, sample(), now, false)
	for _, line := range []string{
		"× web@80.service - Port 80 of web, 100%", "Loaded: loaded (hash 0123456; target launched)", "Machine: m1/10.0.0.1, 3min ago: it fits",
		"Active: active (running) since ", "; 1min 5s ago", "Main PID: 42", "Restarts: 3", "Status: Serving", "Notes: User= cannot be honoured",
		"Machine: m2/10.0.0.2 (to be taken off)", "Active: failed (Result: exit-code)", "Last exit: status 3",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("%q is missing in\n%s", line, b.String())
		}
	}
}

func TestPlan(t *testing.T) {
	a, z := machine.ID(strings.Repeat("a", 32)), machine.ID(strings.Repeat("f", 32))
	p := api.Plan{Names: map[machine.ID]string{a: "m1"}}
	var b bytes.Buffer
	_ = Plan(&b, p, "nothing")
	p.Moves = []scheduler.Move{{Kind: scheduler.KindMove, Unit: "u.service", From: a, To: z, Reason: "m1 is gone"}, {Kind: scheduler.KindRemove, Unit: "v.service", From: a, Reason: "stopped"}}
	p.Waiting = []scheduler.Waiting{{Unit: "w.service", Reason: "no machine fits"}}
	_ = Plan(&b, p, "nothing")
	want(t, b.String(), "nothing\nUNIT       WHAT            WHY\nu.service  m1 -> ffffffff  m1 is gone\nv.service  off m1          stopped\nw.service  waits           no machine fits\n")
}

func TestSpans(t *testing.T) {
	for d, text := range map[time.Duration]string{0: "0s", 5 * time.Second: "5s", 65 * time.Second: "1min 5s", time.Hour: "1h", 3*time.Hour + 5*time.Second: "3h",
		24*time.Hour + time.Hour: "1 day 1h", 100 * 24 * time.Hour: "100 days"} {
		want(t, Span(d), text)
	}
	want(t, Ago(now, now), "just now")
	want(t, Ago(time.Time{}, now), "never")
	for n, text := range map[int64]string{0: "0B", 512 << 20: "512M", 7 << 29: "3.5G"} {
		want(t, Bytes(n), text)
	}
}

func TestManyUnitsDoNotFloodATerminal(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, 1000, true)
	for i := range 1000 {
		n := unit.Name(fmt.Sprintf("u@%d.service", i))
		for _, k := range []track.Kind{track.Placed, track.Working} {
			p.Step(track.Step{Unit: n, Kind: k, Text: "x"})
		}
		end := track.Done
		if i%100 == 7 {
			end = track.Failed
		}
		p.Step(track.Step{Unit: n, Kind: end, Text: "end"})
	}
	p.End()
	if n := strings.Count(b.String(), "\n"); n != 11 { // ten failures and the last count
		t.Errorf("%d lines", n)
	}
	if !strings.HasSuffix(b.String(), "0 placed, 0 on their way, 0 waiting, 990 done, 10 failed of 1000\n") {
		t.Errorf("%q", b.String()[max(0, b.Len()-200):])
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		m           machine.Machine
		leads       bool
		text, words string
	}{
		{machine.Machine{}, false, "client", "client: it holds no copy of the store"},
		{machine.Machine{}, true, "client,leader", "client: it holds no copy of the store; it leads the cluster"},
		{machine.Machine{Learner: true}, false, "learner", "learner: it holds a copy of the store and does not vote"},
		{machine.Machine{Voter: true}, true, "voter,leader", "voter: it holds a copy of the store and votes; it leads the cluster"},
		{machine.Machine{Voter: true, Witness: true}, false, "witness", "witness, voter: it holds a copy of the store and votes; no unit is placed on it"},
	} {
		m := api.Machine{Machine: c.m, Leader: c.leads}
		want(t, role(m), c.text)
		want(t, roleInWords(m), c.words)
	}
}
