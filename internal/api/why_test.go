package api

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/unit"
	"flota/internal/view"
)

var noon = time.Date(2030, 1, 2, 15, 4, 17, 0, time.UTC)

// before gives the time so many seconds before noon.
func before(s int) time.Time { return noon.Add(-time.Duration(s) * time.Second) }

// three is a cluster of m1 (leads), m2 and m3, all voters; those in gone are not there.
func three(gone ...int) *cluster {
	c := newCluster()
	c.leader = idOf(1)
	for n := 1; n <= 3; n++ {
		id := idOf(n)
		c.machines[id] = machine.Machine{ID: id, Name: "m" + string(rune('0'+n)), Voter: true}
		c.alive[id] = machine.Presence{ID: id, API: "x", Started: before(3600)}
	}
	for _, n := range gone {
		delete(c.alive, idOf(n))
	}
	return c
}

// with puts a unit on machine n and has it report st; n 0: nowhere.
func (c *cluster) with(u unit.Unit, n int, reason string, st unit.State) *cluster {
	c.units[u.Name] = u
	if n != 0 {
		c.places[u.Name] = append(c.places[u.Name], unit.Place{Machine: idOf(n), Unit: u, Since: before(12), Reason: reason})
	}
	if st.Load != "" {
		st.Unit, st.Machine = u.Name, idOf(n)
		c.states[u.Name] = append(c.states[u.Name], st)
	}
	return c
}

func TestWhyUnitSentences(t *testing.T) {
	u := unit.Unit{Name: "hello@2.service", Target: unit.Launched, Run: 1, Changed: before(300)}
	off := u
	off.Target = unit.Inactive
	for _, x := range []struct {
		name string
		c    *cluster
		unit unit.Name
		plan scheduler.Plan
		want string
	}{
		{"runs", three(2).with(u, 3, "m3 is the least loaded machine that can run it",
			unit.State{Load: "loaded", Active: "active", Sub: "running", Run: 1, MainPID: 42, Message: "running", Since: before(10)}), "", scheduler.Plan{}, `
hello@2.service runs on m3 since 15:04:05 (12 s ago): m3 is the least loaded machine that can run it
m3 reports it active (running) since 15:04:07 (10 s ago), main process 42`},
		{"done", three().with(u, 3, "least loaded", unit.State{Load: "loaded", Active: "active", Sub: "exited", Run: 1,
			Message: "done, and stays active (RemainAfterExit=)", Since: before(10)}), "", scheduler.Plan{}, `
hello@2.service is done on m3 since 15:04:05 (12 s ago): least loaded
m3 reports it active (exited) since 15:04:07 (10 s ago)`},
		{"runs, and something does not work", three().with(u, 3, "least loaded", unit.State{Load: "loaded", Active: "active", Sub: "running", Run: 1,
			Message: "load: no space left", Since: before(10)}), "", scheduler.Plan{}, `
hello@2.service runs on m3 since 15:04:05 (12 s ago): least loaded
m3 reports it active (running) since 15:04:07 (10 s ago)
m3 says of it: load: no space left`},
		{"starting", three().with(u, 3, "least loaded", unit.State{Load: "loaded", Active: "activating", Sub: "start", Run: 1,
			Message: "starting: waiting for READY=1", Since: before(10)}), "", scheduler.Plan{}, `
hello@2.service is starting on m3 since 15:04:05 (12 s ago): least loaded
m3 reports it activating (start) since 15:04:07 (10 s ago)
m3 says of it: starting: waiting for READY=1`},
		{"failed", three().with(u, 1, "least loaded",
			unit.State{Load: "loaded", Active: "failed", Sub: "failed", Run: 1, Result: "exit-code", ExitCode: 3, Restarts: 5, Since: before(1)}), "", scheduler.Plan{}, `
hello@2.service has failed on m1 since 15:04:05 (12 s ago): least loaded
m1 reports it failed (failed) since 15:04:16 (1 s ago), restarted 5 times by itself
the cause: its main process exited with status 3`},
		{"cannot be loaded", three().with(u, 1, "least loaded",
			unit.State{Load: "bad-setting", Active: "inactive", Sub: "dead", Message: "ExecStart= is missing", Notes: []string{"ProtectSystem=: not honoured (restricting)", "[Unit] After=: not acted on (b.service)"}, Since: before(1)}), "", scheduler.Plan{}, `
hello@2.service cannot be loaded on m1 since 15:04:05 (12 s ago): least loaded
m1 reports it inactive (dead) since 15:04:16 (1 s ago)
the cause: ExecStart= is missing
m1 cannot honour (flota status hello@2.service tells more): ProtectSystem=, [Unit] After=`},
		{"waits", three().with(u, 0, "", unit.State{}), "", scheduler.Plan{Waiting: []scheduler.Waiting{{Unit: u.Name, Reason: "3 of 3 machines lack label disk=ssd"}}}, `
hello@2.service waits: 3 of 3 machines lack label disk=ssd`},
		{"about to move", three(2).with(u, 2, "least loaded", unit.State{}), "", scheduler.Plan{
			Moves: []scheduler.Move{{Kind: scheduler.KindMove, Unit: u.Name, From: idOf(2), To: idOf(1), Reason: "m2 is gone"}}}, `
hello@2.service is still placed on m2, which is gone since 15:03:59 (18 s ago)
the leader is about to move it from m2 to m1: m2 is gone`},
		{"inactive", three().with(off, 0, "", unit.State{}), "", scheduler.Plan{}, `
hello@2.service is not to run: its target is inactive since 14:59:17 (5 min ago)`},
		{"template", three().with(unit.Unit{Name: "web@.service"}, 0, "", unit.State{}), "web@.service", scheduler.Plan{}, `
web@.service is a template: only its instances run, such as web@1.service`},
	} {
		name := x.unit
		if name == "" {
			name = u.Name
		}
		got := x.c.explainUnit(name, x.plan, nil, map[machine.ID]time.Time{idOf(2): before(18)}, noon)
		if d := cmp.Diff(strings.TrimPrefix(x.want, "\n"), strings.Join(got, "\n")); d != "" {
			t.Errorf("%s:\n%s", x.name, d)
		}
	}
}

// What a unit that was moved is asked first is from where, when and why.
func TestWhyMovedUnit(t *testing.T) {
	u := unit.Unit{Name: "a.service", Target: unit.Launched, Run: 1}
	c := three(2).with(u, 3, "m2 is gone (no sign of life since 15:03:59)",
		unit.State{Load: "loaded", Active: "active", Sub: "running", Run: 1, MainPID: 42, Message: "running", Since: before(10)})
	off := view.Event{Time: before(12), Kind: view.KindPlace, Unit: u.Name, Machine: idOf(2)}
	came, asked := off, off
	came.Machine = idOf(3)
	asked.Kind, asked.Machine = view.KindUnit, ""
	report := came
	report.Kind = view.KindState
	offLater := off
	offLater.Time = before(3)
	moved := `a.service was moved from m2 to m3 at 15:04:05 (12 s ago): m2 is gone (no sign of life since 15:03:59)
it runs on m3 now
m3 reports it active (running) since 15:04:07 (10 s ago), main process 42`
	stayed := `a.service runs on m3 since 15:04:05 (12 s ago): m2 is gone (no sign of life since 15:03:59)
m3 reports it active (running) since 15:04:07 (10 s ago), main process 42`
	for name, x := range map[string]struct {
		events []view.Event
		want   string
	}{
		"nothing is remembered":           {nil, stayed},
		"never elsewhere":                 {[]view.Event{asked, came, report}, stayed},
		"moved":                           {[]view.Event{asked, off, report, off, came, report}, moved},
		"moved, told the other way round": {[]view.Event{came, off, report}, moved},
		"a drain, which takes off later":  {[]view.Event{off, came, report, offLater}, moved},
		"somebody asked between":          {[]view.Event{off, asked, came, report}, stayed},
		"came here, went, and came anew":  {[]view.Event{off, came, came, asked, came}, stayed},
		"taken off elsewhere only later":  {[]view.Event{asked, came, offLater}, stayed},
	} {
		got := strings.Join(c.explainUnit(u.Name, scheduler.Plan{}, x.events, nil, noon), "\n")
		if d := cmp.Diff(x.want, got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestWhyMachineSentences(t *testing.T) {
	u := unit.Unit{Name: "a.service", Target: unit.Launched}
	drained := three()
	m := drained.machines[idOf(2)]
	m.Drained = true
	drained.machines[idOf(2)] = m
	for _, x := range []struct {
		c    *cluster
		n    int
		want string
	}{
		{three().with(u, 1, "", unit.State{}), 1, `
m1 is ready: its agent runs since 14:04:17 (60 min ago)
m1 leads the cluster: it decides which machine runs which unit
m1 is one of 3 voters of the store
1 unit is placed on it: a.service`},
		{three(2), 2, `
m2 is gone: no sign of life since 15:03:59 (18 s ago)
m2 is one of 3 voters of the store`},
		{drained, 2, `
m2 is there and drained by an operator: it gets no units until flota machine resume m2
m2 is one of 3 voters of the store
no unit is placed on it`},
	} {
		got := x.c.explainMachine(x.c.machines[idOf(x.n)], map[machine.ID]time.Time{idOf(2): before(18)}, noon)
		if d := cmp.Diff(strings.TrimPrefix(x.want, "\n"), strings.Join(got, "\n")); d != "" {
			t.Errorf("m%d:\n%s", x.n, d)
		}
	}
}

func TestMoment(t *testing.T) {
	for s, want := range map[int]string{
		0: "15:04:17 (0 s ago)", 119: "15:02:18 (119 s ago)", 120: "15:02:17 (2 min ago)", 7200: "13:04:17 (2 h ago)",
		86400: "2030-01-01 15:04:17 (24 h ago)", 3 * 86400: "2029-12-30 15:04:17 (3 days ago)", -5: "15:04:22 (0 s ago)",
	} {
		if got := moment(before(s), noon); got != want {
			t.Errorf("%d s: %q, want %q", s, got, want)
		}
	}
}

func TestWhyThroughTheAPI(t *testing.T) {
	r := newRig(t, 4)
	r.hands()
	launch(t, r.client(1), "a.service", hello)
	u := active(t, r.client(1), "a.service", 1)
	for n := 1; n <= 4; n++ {
		w, err := r.client(n).WhyUnit(t.Context(), "a.service")
		if err != nil || !strings.HasPrefix(w.Sentences[0], "a.service runs on "+u.Places[0].Name) || len(w.Events) == 0 {
			t.Errorf("asked of m%d: %+v, %v", n, w, err)
		}
		w, err = r.client(n).WhyMachine(t.Context(), "m2")
		if err != nil || !strings.HasPrefix(w.Sentences[0], "m2 is ready") {
			t.Errorf("asked of m%d: %+v, %v", n, w, err)
		}
	}
	// A unit that was never placed, and a machine that goes.
	launch(t, r.client(4), "b.service", hello+"[X-Fleet]\nMachineMetadata=n=9\n")
	if w, err := r.client(4).WhyUnit(t.Context(), "b.service"); err != nil || !strings.HasPrefix(w.Sentences[0], "b.service waits: ") {
		t.Errorf("%+v, %v", w, err)
	}
	if _, err := r.st.Alive.Delete(t.Context(), string(idOf(2))); err != nil {
		t.Fatal(err)
	}
	until(t, "m2 is seen to be gone", func() bool {
		w, err := r.client(4).WhyMachine(t.Context(), "2000")
		return err == nil && strings.HasPrefix(w.Sentences[0], "m2 is gone: no sign of life since ") && w.Subject == "m2"
	})
}
