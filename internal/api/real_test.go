package api

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fleetctl gives the path of a real fleetctl v1.0.0: $FLOTA_TEST_FLEETCTL, or one built of testdata/fleetctl.
// Without either (no network) the test is skipped.
func fleetctl(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("FLOTA_TEST_FLEETCTL"); path != "" {
		return path
	}
	if testing.Short() {
		t.Skip("fleetctl is not built in short mode")
	}
	src, err := filepath.Abs("testdata/fleetctl")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "fleetctl")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-o", bin, "github.com/coreos/fleet/fleetctl")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("fleetctl v1.0.0 cannot be built here: %v\n%s", err, out)
	}
	return bin
}

// The real client of fleet, unchanged, against our API on a unix socket.
func TestRealFleetctl(t *testing.T) {
	bin := fleetctl(t)
	r := newRig(t, 2)
	r.hands()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "flota.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.boxes[1].srv.Serve(ctx, l, Local) }()
	defer func() { cancel(); <-done }()
	file := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, int) {
		t.Helper()
		limit, stop := context.WithTimeout(ctx, 20*time.Second)
		defer stop()
		cmd := exec.CommandContext(limit, bin, append([]string{"--endpoint=unix://" + filepath.Join(dir, "flota.sock")}, args...)...)
		cmd.Dir = dir
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if limit.Err() != nil {
			t.Errorf("fleetctl %s hangs", strings.Join(args, " "))
		}
		return out.String(), cmd.ProcessState.ExitCode()
	}
	file("hello.service", hello)
	file("hello@.service", hello)
	file("all.service", hello+"[X-Fleet]\nGlobal=true\n")
	for _, x := range []struct {
		args string
		code int
		want string
	}{
		{"list-machines", 0, "10000000..."},
		{"list-units", 0, "UNIT"},
		{"list-unit-files", 0, "UNIT"},
		{"submit hello.service", 0, "Unit hello.service inactive"},
		{"submit hello.service", 0, ""},
		{"cat hello.service", 0, "ExecStart=/bin/sleep 1000"},
		{"load hello.service", 0, "Unit hello.service loaded on"},
		{"start hello.service", 0, "Unit hello.service launched on"},
		{"list-units --no-legend", 0, "active\trunning"},
		{"list-unit-files --no-legend", 0, "launched\tlaunched"},
		{"restart hello.service", 0, ""},
		{"stop hello.service", 0, "Successfully stopped units [hello.service]"},
		{"unload hello.service", 0, "Successfully unloaded units [hello.service]"},
		{"stop hello.service", 1, "Unable to stop unit hello.service in state inactive"},
		{"start hello@1 hello@2", 0, "Unit hello@2.service launched"},
		{"submit hello@.service", 0, "Unit hello@.service inactive"},
		{"start hello@.service", 1, `cannot activate template "hello@.service"`},
		{"start all.service", 0, "Triggered global unit all.service start"},
		{"destroy hello.service hello@1 hello@2", 0, "Destroyed hello.service"},
		{"destroy hello.service", 0, "Units not found in registry"},
		{"cat hello.service", 1, ""},
	} {
		out, code := run(strings.Fields(x.args)...)
		if code != x.code || !strings.Contains(out, x.want) {
			t.Errorf("fleetctl %s: exit %d, want %d with %q:\n%s", x.args, code, x.code, x.want, out)
		}
	}
	until(t, "the global unit is on both", func() bool {
		out, _ := run("list-units", "--no-legend")
		return strings.Count(out, "all.service") == 2 && !strings.Contains(out, "hello")
	})
}
