package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"flota/internal/api"
	"flota/internal/store"
)

const simple = "[Unit]\nDescription=A test of %i\n[Service]\nExecStart=/bin/true\n"

func TestStartShowsWhatHappens(t *testing.T) {
	c := newCluster(t)
	f := c.file("hello@.service", simple)
	out := c.ok("start", strings.Replace(f, "@", "@{1..3}", 1))
	for i := 1; i <= 3; i++ {
		has(t, out, fmt.Sprintf("hello@%d.service: placed on m", i), fmt.Sprintf("hello@%d.service: active (running) on m", i))
	}
	for _, m := range []string{"m1/10.0.0.1", "m2/10.0.0.2", "m3/10.0.0.3"} {
		has(t, c.ok("list-units"), m)
	}
	has(t, c.ok("start", "hello@1"), "hello@1.service: is active (running) on m", "already")
	has(t, c.ok("restart", "hello@*"), "hello@3.service: active (running) on m")
	has(t, c.ok("status", "hello@1"), "● hello@1.service - A test of 1", "Loaded: loaded", "Active: active (running) since", "Machine: m", "Main PID: 1")
	has(t, c.ok("status"), "3 machines", "leads", "quorum of", "units: 3 active")
	has(t, c.ok("stop", "hello@{1..2}"), "hello@1.service: stopped")
	c.fails(3, "", "status", "hello@1")
	has(t, c.ok("stop", "hello@{1..2}"), "hello@1.service: is not running")
	has(t, c.ok("unload", "hello@1"), "hello@1.service: unloaded")
	has(t, c.ok("stop", "hello@1"), "hello@1.service: is not loaded")
	has(t, c.ok("cat", "hello@1"), "[Service]\nExecStart=/bin/true\n")
	has(t, c.ok("destroy", "hello@*"), "hello@3.service: destroyed")
	if out := c.ok("list-unit-files", "--no-legend"); out != "" {
		t.Errorf("left after destroy:\n%s", out)
	}
}

func TestJSONIsTheAPIsTypes(t *testing.T) {
	c := newCluster(t)
	var units []api.Unit
	if err := json.Unmarshal([]byte(c.ok("start", "--json", c.file("web.service", simple))), &units); err != nil || len(units) != 1 || units[0].States[0].Active != "active" {
		t.Errorf("start --json: %v %+v", err, units)
	}
	for _, args := range [][]string{{"list-units"}, {"list-unit-files"}, {"list-machines"}, {"machine", "list"}, {"why", "web"}, {"machine", "show", "m1"}, {"cat", "web"}, {"submit", "web"}, {"status", "web"}} {
		var list []map[string]any
		if err := json.Unmarshal([]byte(c.ok(append(args, "--json")...)), &list); err != nil || len(list) == 0 {
			t.Errorf("%v --json: %v, %d items", args, err, len(list))
		}
	}
	for _, args := range [][]string{{"status"}, {"plan"}, {"rebalance"}, {"version"}, {"context", "list"}} {
		var one map[string]any
		if err := json.Unmarshal([]byte(c.ok(append(args, "--json")...)), &one); err != nil {
			t.Errorf("%v --json: %v", args, err)
		}
	}
	for _, args := range [][]string{{"logs", "web"}, {"events"}} {
		for _, line := range strings.Split(strings.TrimSpace(c.ok(append(args, "--json")...)), "\n") {
			var one map[string]any
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Errorf("%v --json: %q: %v", args, line, err)
			}
		}
	}
}

func TestStartFailsWithReasonAndLog(t *testing.T) {
	c := newCluster(t)
	f := c.file("bad.service", simple+"[X-Fake]\nBehaviour={\"failStart\":true,\"lines\":12,\"startDelay\":50000000}\n")
	out, err, code := c.try("start", f)
	if code != 1 {
		t.Errorf("exit code %d\n%s%s", code, out, err)
	}
	has(t, out, "bad.service: placed on m", "bad.service: starting")
	has(t, err, "flota: start bad.service: failed on m", "status 3 (exit-code)", "last lines of bad.service on m", "line 12", "hint: flota why bad.service")
	if strings.Contains(err, "line 1\n") {
		t.Error("more than the last lines are shown")
	}
	c.fails(1, "failed on m", "start", "bad") // asked again, it is tried again
	loops := c.file("loops.service", simple+"[X-Fake]\nBehaviour={\"endAfter\":1000000,\"exitCode\":1,\"restart\":true}\n")
	c.fails(1, "start-limit-hit", "start", loops)
	ends := c.file("ends.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n[X-Fake]\nBehaviour={\"endAfter\":1000000}\n")
	if out := c.ok("start", ends); !strings.Contains(out, "finished (exit 0) on m") && !strings.Contains(out, "active (running)") {
		t.Error(out)
	}
	slow := c.file("slow.service", simple+"[X-Fake]\nBehaviour={\"startDelay\":60000000000}\n")
	c.fails(7, "s: it is activating (start) on m", "start", "--timeout", "1s", slow)
	has(t, c.ok("start", "--no-block", slow), "start was asked for")
}

func TestWhatCannotBePlacedSaysWhy(t *testing.T) {
	c := newCluster(t)
	f := c.file("picky.service", simple+"[X-Fleet]\nMachineMetadata=rack=9\n")
	began := time.Now()
	c.fails(1, "start picky.service: cannot be placed: ", "start", f)
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s to say so", d)
	}
	has(t, c.ok("list-units"), "picky.service", "waiting")
	has(t, c.ok("plan", "--add", c.file("ok.service", simple)), "ok.service", "place on m", "picky.service", "waits")
	has(t, c.ok("machine", "label", "m2", "rack=9", "spare=yes"), "rack=9,spare=yes")
	c.await(func() bool { out, _, _ := c.try("list-units"); return strings.Contains(out, "m2/10.0.0.2") })
	has(t, c.ok("why", "picky"), "m2")
	has(t, c.ok("machine", "label", "m2", "spare-"), "m2: rack=9")
}

func TestGlobalUnitsTellOfEachMachine(t *testing.T) {
	c := newCluster(t)
	out := c.ok("start", c.file("every.service", simple+"[X-Fleet]\nGlobal=true\n"))
	has(t, out, "active (running) on m1", "active (running) on m2", "active (running) on m3", "every.service: up on 3 machines")
	has(t, c.ok("list-unit-files"), "global")
	has(t, c.ok("stop", "every"), "every.service: stopped")
}

func TestDrainAndPlan(t *testing.T) {
	c := newCluster(t)
	c.ok("start", strings.Replace(c.file("a@.service", simple), "@", "@{1..3}", 1))
	has(t, c.ok("plan"), "nothing would change")
	has(t, c.ok("plan", "--drain", "m1"), "m1 -> m")
	out, err, code := c.try("machine", "drain", "m1")
	if code != 0 {
		t.Fatal(out, err)
	}
	has(t, err, "m1: drained; 1 unit to move", "moved to m")
	has(t, c.ok("machine", "list"), "drained")
	has(t, c.ok("machine", "show", "m1"), "Status: drained", "Units: 0")
	c.ok("machine", "resume", "m1")
	has(t, c.ok("why", "m1"), "m1")
	has(t, c.ok("rebalance"), "-> m1")
	c.ok("rebalance", "--apply")
	c.await(func() bool { out, _, _ := c.try("list-units"); return strings.Contains(out, "m1/10.0.0.1") })
	c.fails(3, "m9", "machine", "remove", "m9")
	has(t, c.ok("events"), "m1 is drained")
}

func TestReplaceAndWarnings(t *testing.T) {
	c := newCluster(t)
	c.ok("submit", c.file("r.service", simple))
	f := c.file("r.service", simple+"[X-Fleet]\nGlobl=true\n")
	_, err, _ := c.try("submit", f)
	has(t, err, "warning: r.service in the cluster differs from", "--replace")
	out, err, _ := c.try("submit", "--replace", f)
	has(t, out, "r.service: replaced")
	has(t, err, "warning: r.service: ", "Globl")
	c.fails(2, "Globl", "submit", "--strict", c.file("s.service", simple+"[X-Fleet]\nGlobl=true\n"))
	c.fails(3, "", "cat", "s")
}

func TestLogsOfSeveralUnits(t *testing.T) {
	c := newCluster(t)
	c.ok("start", strings.Replace(c.file("l@.service", simple+"[X-Fake]\nBehaviour={\"lines\":3}\n"), "@", "@{1..2}", 1))
	has(t, c.ok("logs", "l@1"), "line 1\nline 2\nline 3\n-- Started.\n")
	if out := c.ok("logs", "-n", "1", "l@1"); out != "-- Started.\n" {
		t.Errorf("%q", out)
	}
	has(t, c.ok("logs", "l@*"), "l@1.service: line 1", "l@2.service: line 3")
	var out, err buffer
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int)
	go func() { code <- Main(ctx, []string{"flota", "logs", "-f", "l@1", "l@2"}, c.env(&out, &err, nil)) }()
	c.await(func() bool { return strings.Contains(out.String(), "l@2.service: line 3") })
	cancel()
	if got := <-code; got != 130 || err.String() != "" {
		t.Errorf("exit code %d, %q", got, err.String())
	}
}

func TestBadInput(t *testing.T) {
	c := newCluster(t)
	for _, x := range []struct {
		code  int
		words string
		args  []string
	}{
		{2, `unknown command "strat"`, []string{"strat"}},
		{2, "did you mean start?", []string{"strat"}},
		{2, `unknown command "lst" for "flota machine"`, []string{"machine", "lst"}},
		{2, `unknown command "pu" for "flota dev"`, []string{"dev", "pu"}},
		{2, "unknown flag: --frobnicate", []string{"start", "--frobnicate", "x"}},
		{2, "requires at least 1 arg", []string{"start"}},
		{3, `no unit "nope.service" in the cluster`, []string{"start", "nope"}},
		{3, `nor its template "nope@.service"`, []string{"start", "nope@1"}},
		{3, `unit "nope.service" does not exist`, []string{"stop", "nope"}},
		{3, `units "a.service", "b.service" do not exist`, []string{"destroy", "a", "b"}},
		{3, `matches "zzz*"`, []string{"stop", "zzz*"}},
		{2, "stands for too many names", []string{"start", "x@{1..1000000}"}},
		{2, "cannot activate template", []string{"start", "t@.service"}},
		{2, "cannot contain", []string{"start", ".."}},
		{2, "invalid character", []string{"start", "a b"}},
		{2, "is larger than a unit may be", []string{"start", c.file("big.service", "[Service]\nExecStart=/bin/echo "+strings.Repeat("x", 10<<20))}},
		{2, "NUL byte", []string{"submit", c.file("nul.service", "[Service]\nExecStart=/bin/\x00")}},
		{2, "says nothing", []string{"submit", c.file("empty.service", "")}},
		{3, "no file", []string{"plan", "--add", "nofile.service"}},
		{3, "", []string{"machine", "show", "m9"}},
		{3, "neither a unit", []string{"why", "m9"}},
		{2, "label", []string{"machine", "label", "m1", "nolabel"}},
		{2, "Invalid key in output format", []string{"list-units", "--fields", "unit,colour"}},
		{2, "--timeout", []string{"stop", "--timeout", "soon", "nope"}},
		{3, "no context named", []string{"--context", "nope", "status"}},
		{2, `unknown command "make" for "flota token"`, []string{"token", "make"}},
		{3, "there is no such join token", []string{"token", "revoke", "0123456789"}},
		{2, "nobody can be asked to confirm", []string{"leave"}},
		{2, "say how the backup is to be encrypted", []string{"backup", "x.flota"}},
		{6, "m1 cannot copy the store", []string{"backup", "--plain", "x.flota"}},
		{3, "read the backup", []string{"restore", "nothing.flota"}},
	} {
		c.fails(x.code, x.words, x.args...)
	}
	out, err, code := c.as("flota", map[string]string{"FLOTA_ENDPOINT": "unix:///nowhere/flota.sock"}, "start", "x")
	if code != 6 || !strings.Contains(err, "hint: ") {
		t.Errorf("unreachable: exit code %d\n%s%s", code, out, err)
	}
}

func TestContexts(t *testing.T) {
	c := newCluster(t)
	set := map[string]string{"FLOTA_ENDPOINT": ""}
	run := func(want int, args ...string) string {
		t.Helper()
		out, err, code := c.as("flota", set, args...)
		if code != want {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, code, want, out, err)
		}
		return out
	}
	run(3, "context", "use", "here")
	run(2, "context", "use", "here", "gopher://x")
	run(0, "context", "use", "here", c.ends[0])
	has(t, run(0, "list-machines"), "m3")
	has(t, run(0, "context", "list"), "*  here")
	has(t, run(0, "context", "show"), c.ends[0])
	run(0, "context", "remove", "here")
	run(3, "context", "remove", "here")
	has(t, run(0, "context", "show"), "unix:///var/lib/flota/flota.sock")
}

func TestCompletion(t *testing.T) {
	c := newCluster(t)
	c.ok("submit", c.file("comp.service", simple))
	has(t, c.ok("__complete", "start", ""), "comp.service")
	has(t, c.ok("__complete", "machine", "drain", ""), "m1\nm2\nm3\n")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		has(t, c.ok("completion", shell), "flota")
	}
}

func TestManyUnitsAreToldBriefly(t *testing.T) {
	c := newCluster(t)
	out := c.ok("start", strings.Replace(c.file("n@.service", simple), "@", "@{1..200}", 1))
	if n := strings.Count(out, "\n"); n != 200 {
		t.Errorf("%d lines for 200 units", n)
	}
	has(t, c.ok("status"), "200 active")
	out = c.ok("destroy", "n@*")
	if n := strings.Count(out, "\n"); n != 200 {
		t.Errorf("%d lines for destroying 200 units", n)
	}
}

// A bad FLOTA_ value of `flota up` is refused by it, and no business of other commands.
func TestBadVariablesOfUp(t *testing.T) {
	c := &bed{t: t, home: t.TempDir()}
	set := map[string]string{"FLOTA_LEASE": "soon", "FLOTA_ENDPOINT": ""}
	if out, err, code := c.as("flota", set, "version"); code != 0 || err != "" {
		t.Errorf("version: exit code %d\n%s%s", code, out, err)
	}
	if _, err, code := c.as("flota", set, "up"); code != 2 || !strings.Contains(err, `FLOTA_LEASE="soon": `) {
		t.Errorf("up: exit code %d\n%s", code, err)
	}
}

// Who may come and who has to go, through the real desk.
func TestMachinesComeAndGo(t *testing.T) {
	c := newCluster(t)
	has(t, c.ok("machine", "list"), "voter,leader", "client")
	has(t, c.ok("machine", "show", "m2"), "Role: client: it holds no copy of the store")
	out, err, code := c.try("token", "create", "--uses", "2", "--label", "rack=4")
	if code != 0 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "flota up --join 10.0.0.1:7700") {
		t.Fatalf("exit code %d: %q, %q", code, out, err)
	}
	has(t, out, " --token flj_", " --ca-hash "+c.who.CAHash())
	has(t, err, "run this as root on up to 2 new machines, until ", "labelled rack=4; it is shown only now")
	_, rest, _ := strings.Cut(out, "flj_")
	id, _, _ := strings.Cut(rest, "_")
	has(t, c.ok("token", "list"), id, "0 of 2", "expires in 1h", "rack=4")
	has(t, c.ok("__complete", "token", "revoke", ""), id+"\texpires in 1h")
	c.ok("token", "revoke", id)
	c.fails(3, "there is no such join token", "token", "revoke", id)
	has(t, c.ok("trust", "show"), "authority: "+c.who.CAHash()+" (issues certificates)", "change: none")
	c.interrupted("m1: waits for its vote", "interrupted: m1 stays drained and leaving", "machine", "remove", "m1")
	has(t, c.ok("machine", "list"), "leaving")
	c.ok("machine", "resume", "m1")
	c.off["m3"]()
	c.await(func() bool { // its agent announces a restart, for which nothing is moved for a minute: here its power goes
		_, gone := store.New(c.kv.Client()).Alive.Delete(context.Background(), strings.Repeat("3", 32))
		out, _, _ := c.try("machine", "list")
		return gone == nil && strings.Contains(out, "gone")
	})
	_, err, code = c.try("machine", "remove", "m3", "--reason", "it burnt")
	if code != 0 {
		t.Fatal(err)
	}
	has(t, err, "m3: its certificate opens nothing any more", "m3: removed")
	if out := c.ok("machine", "list"); strings.Contains(out, "m3") {
		t.Error(out)
	}
}

// interrupted runs flota, interrupts it when it has said words, and wants to be told what becomes of it.
func (c *bed) interrupted(words, told string, args ...string) {
	c.t.Helper()
	var out, err buffer
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	code := make(chan int, 1)
	go func() { code <- Main(ctx, append([]string{"flota"}, args...), c.env(&out, &err, nil)) }()
	c.await(func() bool { return strings.Contains(err.String(), words) })
	cancel()
	if got := <-code; got != 130 || !strings.Contains(err.String(), told) {
		c.t.Errorf("exit code %d, want %q\n%s%s", got, told, out.String(), err.String())
	}
}
