package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"flota/internal/api"
)

// patience is how long things may take that take a second or ten on a quiet host.
const patience = 60 * time.Second

// result is what a command has printed and its exit code; -1 is one that did not end in time.
type result struct {
	args     []string
	out, err string
	code     int
}

// String is for messages.
func (r result) String() string {
	return fmt.Sprintf("%s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.out, r.err)
}

// run runs flota or fleetctl against the cluster.
func (b *bed) run(name string, args ...string) result {
	return b.runEnv(filepath.Join(bins, name), nil, args...)
}

// runEnv runs a program with more environment, for two minutes at most.
func (b *bed) runEnv(program string, env []string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(b.environ(), env...)
	cmd.Dir = b.root
	cmd.WaitDelay = 5 * time.Second // what it has started may keep its output open
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	r := result{args: append([]string{filepath.Base(program)}, args...)}
	err := cmd.Run()
	r.out, r.err = out.String(), errs.String()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		r.code, r.err = -1, r.err+err.Error()
	}
	return r
}

// environ is the environment of commands: nothing of the caller's that names another cluster.
func (b *bed) environ() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "FLOTA_") && !strings.HasPrefix(e, "FLEETCTL_") {
			env = append(env, e)
		}
	}
	return append(env, "FLOTA_CONFIG="+filepath.Join(b.root, "contexts.json"), "FLOTA_DEV_DIR="+b.dir)
}

// flota runs flota, which must succeed, and gives what it printed.
func (b *bed) flota(t *testing.T, args ...string) string {
	t.Helper()
	return b.must(t, "flota", args...)
}

// fleetctl runs fleetctl, which must succeed, and gives what it printed.
func (b *bed) fleetctl(t *testing.T, args ...string) string {
	t.Helper()
	return b.must(t, "fleetctl", args...)
}

func (b *bed) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := b.run(name, args...)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.out
}

// fails runs flota, which must exit with code and say the words on standard error. It gives all that it said there.
func (b *bed) fails(t *testing.T, code int, words []string, args ...string) string {
	t.Helper()
	r := b.run("flota", args...)
	if r.code != code {
		t.Errorf("want exit %d: %v", code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("want %q on standard error: %v", w, r)
		}
	}
	return r.err
}

// at is the flag that makes a command ask one machine, m1 being 1.
func (b *bed) at(i int) string { return "--endpoint=unix://" + b.socket(i) }

// machineDir is a machine's data directory.
func (b *bed) machineDir(i int) string { return filepath.Join(b.dir, "m"+strconv.Itoa(i)) }

// socket is a machine's API.
func (b *bed) socket(i int) string { return filepath.Join(b.machineDir(i), "flota.sock") }

// http is a client that speaks to one machine's socket; the host in URLs does not matter.
func (b *bed) http(i int) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", b.socket(i))
		}}}
}

// decode runs flota with --json and reads what it prints into v.
func (b *bed) decode(v any, args ...string) error {
	r := b.run("flota", append(args, "--json")...)
	if r.code != 0 {
		return errors.New(r.String())
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		return fmt.Errorf("%w: %v", err, r)
	}
	return nil
}

// machines gives all machines that the cluster remembers.
func (b *bed) machines() (ms []api.Machine, err error) {
	return ms, b.decode(&ms, "machine", "list")
}

// units gives all units of the cluster.
func (b *bed) units() (us []api.Unit, err error) {
	return us, b.decode(&us, "list-unit-files")
}

// unit gives one unit.
func (b *bed) unit(t *testing.T, name string) api.Unit {
	t.Helper()
	var us []api.Unit
	if err := b.decode(&us, "list-unit-files", name); err != nil {
		t.Fatal(err)
	}
	if len(us) != 1 {
		t.Fatalf("%d units are called %s", len(us), name)
	}
	return us[0]
}

// process is what runs of a machine.
type process struct {
	Name              string
	Agent, Supervisor int
}

// processes gives what runs of each machine.
func (b *bed) processes() (ps []process) {
	if err := b.decode(&ps, "dev", "status"); err != nil {
		return nil
	}
	return ps
}

// agent gives the process of a machine's agent; it must run.
func (b *bed) agent(t *testing.T, i int) int {
	t.Helper()
	for _, p := range b.processes() {
		if p.Name == "m"+strconv.Itoa(i) && p.Agent != 0 {
			return p.Agent
		}
	}
	t.Fatalf("m%d does not run", i)
	return 0
}

// until tries every 50 ms until ok or until d is over, and says whether ok came.
func until(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-end.C:
			return ok()
		}
	}
}

// wait waits until ok gives no error, and fails the test with the last one if that does not come.
func wait(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	if !until(patience, func() bool { err = ok(); return err == nil }) {
		t.Fatalf("%s: not within %s: %v", what, patience, err)
	}
}
