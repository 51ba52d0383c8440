package cli

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// ctl runs fleetctl and wants an exit code.
func (c *bed) ctl(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	out, err, got := c.as("/usr/bin/fleetctl", nil, args...)
	if got != code {
		c.t.Errorf("fleetctl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, err)
	}
	return out, err
}

// like wants a text that matches the whole pattern.
func like(t *testing.T, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(text) {
		t.Errorf("want %q, got:\n%q", pattern, text)
	}
}

func TestFleetctlSpeaksItsOwnWords(t *testing.T) {
	c := newCluster(t)
	hello := c.file("hello.service", "[Unit]\nDescription=Hello World\n[Service]\nExecStart=/bin/true\n[X-Fake]\nBehaviour={\"lines\":2}\n")
	on := `([1-3])\1{7}\.\.\./10\.0\.0\.\d`
	on = strings.ReplaceAll(on, `([1-3])\1{7}`, `[1-3]{8}`) // RE2 has no back references

	out, _ := c.ctl(0, "submit", hello)
	like(t, out, "Unit hello.service inactive\n")
	_, err := c.ctl(1, "stop", "hello")
	like(t, err, "Unable to stop unit hello.service in state inactive\n")
	out, _ = c.ctl(0, "load", "hello")
	like(t, out, "Unit hello.service loaded on "+on+"\n")
	out, _ = c.ctl(0, "start", hello)
	like(t, out, "Unit hello.service launched on "+on+"\n")
	out, _ = c.ctl(0, "start", "hello")
	like(t, out, "")
	out, _ = c.ctl(0, "list-units")
	like(t, out, "UNIT\t\tMACHINE\t\t\tACTIVE\tSUB\nhello.service\t"+on+"\tactive\trunning\n")
	out, _ = c.ctl(0, "list-unit-f", "--fields", "unit,dstate,state,desc,global", "--no-legend")
	like(t, out, "hello.service\tlaunched\tlaunched\tHello World\tfalse\n")
	out, _ = c.ctl(0, "list-m", "-l")
	like(t, out, "MACHINE\t+IP\t+METADATA\n1{32}\t10.0.0.1\track=1\n2{32}\t10.0.0.2\track=2\n3{32}\t10.0.0.3\track=3\n")
	out, _ = c.ctl(0, "cat", "hello")
	has(t, out, "[Unit]\nDescription=Hello World\n\n[Service]\n")
	out, _ = c.ctl(0, "status", "hello")
	has(t, out, "Loaded: loaded", "Active: active (running)", "line 2")
	out, _ = c.ctl(0, "journal", "--lines", "2", "hello")
	like(t, out, `[^\n]*hello.service: line 2\n[^\n]*-- Started.\n`)
	out, _ = c.ctl(0, "restart", "hello")
	like(t, out, "Unit hello.service launched on "+on+"\n")
	out, err = c.ctl(0, "stop", "hello")
	like(t, out, "Unit hello.service loaded on "+on+"\n")
	like(t, err, `Successfully stopped units \[hello.service\].`+"\n")
	c.ctl(3, "status", "hello")
	out, _ = c.ctl(0, "unload", "hello")
	like(t, out, "Unit hello.service inactive\n")
	_, err = c.ctl(1, "status", "hello")
	like(t, err, "Unit hello.service does not appear to be loaded.\n")
	out, _ = c.ctl(0, "destroy", "hello")
	like(t, out, "Destroyed hello.service\n")
	out, _ = c.ctl(0, "list-units", "--no-legend")
	like(t, out, "")
}

func TestFleetctlExitCodes(t *testing.T) {
	c := newCluster(t)
	dir := c.file("t@.service", simple)
	for _, x := range []struct {
		code int
		err  string
		args []string
	}{
		{0, "Units not found in registry\n", []string{"destroy", "nope"}},
		{0, "Units not found in registry\n", []string{"stop", "t@*"}},
		{0, "No units given\n", []string{"start"}},
		{0, "No units given\n", []string{"unload"}},
		{0, `Error: unknown command "frob" for "fleetctl"`, []string{"frob"}},
		{0, "Error: unknown flag: --frob", []string{"list-units", "--frob"}},
		{1, `Invalid key in output format: "x"` + "\n", []string{"list-units", "--fields", "x"}},
		{1, "Unit nope.service not found\n", []string{"cat", "nope"}},
		{1, "Unit nope.service does not exist.\n", []string{"status", "nope"}},
		{1, `cannot activate template "t@.service"`, []string{"start", dir}},
		{1, "Error creating units: ", []string{"start", "nope"}},
		{1, `unrecognized driver "x"`, []string{"--driver", "x", "list-units"}},
		{1, "Unable to initialize client", []string{"--endpoint", "nowhere", "list-units"}},
		{1, "Error retrieving list of units from repository", []string{"--endpoint", "unix:///nowhere/x.sock", "list-units"}},
		{1, "not offered", []string{"ssh", "m1"}},
		{1, "not offered", []string{"fd-forward", "/x"}},
		{1, "not offered", []string{"--tunnel", "host", "list-units"}},
		{2, "DEPRECATED", []string{"verify"}},
		{0, "", []string{}},
		{0, "", []string{"--help"}},
		{0, "", []string{"help"}},
	} {
		if _, err := c.ctl(x.code, x.args...); !strings.Contains(err, x.err) {
			t.Errorf("fleetctl %v: want %q, got %q", x.args, x.err, err)
		}
	}
	for _, args := range [][]string{{"version"}, {"--version"}, {"-v"}} {
		out, _ := c.ctl(0, args...)
		like(t, out, "fleetctl version 1.2.3\n")
	}
	out, _ := c.ctl(0, "help")
	has(t, out, "1.2.3")
}

func TestFleetctlReplaceByTarget(t *testing.T) {
	c := newCluster(t)
	old := c.file("r.service", simple)
	c.ctl(0, "start", old)
	file := c.file("r.service", simple+"ExecReload=/bin/true\n")
	_, err := c.ctl(0, "start", file)
	has(t, err, "WARNING: Unit r.service in registry differs from local unit file "+file+". Add --replace to override.")
	_, err = c.ctl(0, "submit", "--replace", file)
	has(t, err, "Warning: can not replace Unit(r.service) in state 'launched', use the appropriate command")
	out, _ := c.ctl(0, "start", "--replace", file)
	has(t, out, "Unit r.service launched on ")
	out, _ = c.ctl(0, "cat", "r")
	has(t, out, "ExecReload=/bin/true")
	out, _ = c.ctl(0, "start", "--replace", file)
	like(t, out, `Found same Unit\(r.service\) in Registry, nothing to do`+"\n")
}

func TestFleetctlGlobalUnitsAreTriggered(t *testing.T) {
	c := newCluster(t)
	out, _ := c.ctl(0, "start", c.file("g.service", simple+"[X-Fleet]\nGlobal=true\n"))
	has(t, out, "Triggered global unit g.service start\n")
	c.await(func() bool {
		out, _ := c.ctl(0, "list-units", "--no-legend")
		return strings.Count(out, "running") == 3
	})
	out, _ = c.ctl(0, "restart", "g")
	like(t, out, "Triggered global unit g.service restart\n")
	out, _ = c.ctl(0, "start", "--no-block", c.file("n.service", simple))
	has(t, out, "Triggered unit n.service start\n")
	_, err := c.ctl(1, "start", c.file("p.service", fmt.Sprintf("%s[X-Fleet]\nMachineMetadata=rack=9\n", simple)))
	has(t, err, "Error waiting for units: unit p.service cannot be placed")
}
