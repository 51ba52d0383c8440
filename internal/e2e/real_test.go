package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// realFleetctl builds fleet's own fleetctl v1.0.0 from its source, in a module of its own, and gives its path.
func realFleetctl(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fleetctl")
	cmd := exec.Command("go", "build", "-o", path, "github.com/coreos/fleet/fleetctl")
	cmd.Dir = filepath.Join("testdata", "fleetctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build fleet's fleetctl: %v\n%s", err, out)
	}
	return path
}

// TestRealFleetctl takes units through their life with the fleetctl that fleet shipped, against the socket of a machine.
func TestRealFleetctl(t *testing.T) {
	program := realFleetctl(t)
	b := borrow(t)
	run := func(words []string, args ...string) string {
		t.Helper()
		r := b.runEnv(program, []string{"FLEETCTL_ENDPOINT=unix://" + b.socket(2)}, args...)
		if r.code != 0 {
			t.Fatal(r)
		}
		for _, w := range words {
			if !strings.Contains(r.out+r.err, w) {
				t.Errorf("%q is not said: %v", w, r)
			}
		}
		return r.out
	}
	if out := run(nil, "list-machines", "--no-legend", "--full"); strings.Count(out, "\n") != 3 {
		t.Errorf("machines: %s", out)
	}
	names := hellos(3)
	run([]string{"Unit hello@1.service inactive"}, append([]string{"submit"}, fixtures(names...)...)...)
	run(names, "list-unit-files", "--no-legend")
	run([]string{"Unit hello@2.service loaded"}, append([]string{"load"}, names...)...)
	run([]string{"Unit hello@3.service launched"}, append([]string{"start"}, names...)...)
	b.waitDone(t, "start", names)
	if out := run(names, "list-units", "--no-legend", "--fields", "unit,load,active,sub,hash"); strings.Count(out, "running") != 3 {
		t.Errorf("units: %s", out)
	}
	text, err := os.ReadFile(fixture("hello@.service"))
	if err != nil {
		t.Fatal(err)
	}
	if out := run(nil, "cat", "hello@1"); strings.TrimSpace(out) != strings.TrimSpace(string(text)) {
		t.Errorf("cat: %s", out)
	}
	before := b.pids(t)
	run(nil, append([]string{"restart"}, names...)...)
	wait(t, "new processes", func() error {
		now := b.pids(t)
		for u, pid := range before {
			if now[u] == pid || now[u] == 0 {
				return fmt.Errorf("%s: process %d, before %d", u, now[u], pid)
			}
		}
		return nil
	})
	changed := b.file(t, "hello@1.service", strings.Replace(string(text), "World", "Moon", 1))
	run([]string{"Add --replace to override"}, "start", changed)
	run(nil, "start", "--replace", changed)
	run([]string{"Hello, Moon!"}, "cat", "hello@1")
	run([]string{"Triggered global unit everywhere.service start"}, "start", fixture("everywhere.service"))
	b.waitActive(t, 6)
	run([]string{"Successfully stopped units"}, append([]string{"stop"}, names...)...)
	b.waitActive(t, 3)
	run([]string{"Successfully unloaded units"}, append([]string{"unload"}, names...)...)
	b.waitListed(t, "list-units", []string{"everywhere.service", "everywhere.service", "everywhere.service"})
	run([]string{"Destroyed hello@1.service"}, append([]string{"destroy", "everywhere.service"}, names...)...)
	b.waitListed(t, "list-unit-files", nil)
	r := b.runEnv(program, nil, "--endpoint=unix://"+b.socket(2), "start", "hello@.service")
	if r.code != 1 {
		t.Errorf("a template: %v", r)
	}
}
