// Package ext tests the real binary on a store of the user's own: whole machines whose cluster is kept in an etcd of three members that run apart, with TLS.
//
// The invariant: a test that passes has ended every process that it started. Nothing waits for a time to pass where it could wait for something to
// happen, but for how long the store is away. The package has no code of the product.
//
// Start reading at bed, then apart (apart_test.go) and the tests (machines_test.go, away_test.go).
package ext

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"flota/internal/api"
)

// flota is the binary that TestMain built.
var flota string

// TestMain builds the binary; the test's own program is started again as a member of an etcd where none is installed.
func TestMain(m *testing.M) {
	if spec := os.Getenv(memberVar); spec != "" {
		os.Exit(runMember(spec))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fx")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	flota = filepath.Join(dir, "flota")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", flota, "flota/cmd/flota")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build flota: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// bed is a dev cluster of three machines, m1 to m3, on an etcd apart.
type bed struct {
	root  string // holds all of it; short, since unix sockets lie in it
	dir   string // the dev cluster's folder
	base  string // machines are base.1 to base.3, the etcd's members base.201 to base.203
	store *apart
}

// newBed starts both, ended after the test.
func newBed(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	root, err := os.MkdirTemp("", "fx")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{root: root, dir: filepath.Join(root, "c"), base: freeBase(t)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.logs())
		}
		if r := b.run(nil, "dev", "down"); r.code != 0 && !strings.Contains(r.err, "no dev cluster") {
			t.Error(r)
		}
		if !t.Failed() {
			b.leaks(t)
		}
		_ = os.RemoveAll(root)
	})
	b.store = newApart(t, b.base, filepath.Join(root, "etcd"))
	if r := b.run(b.store.environ(), "dev", "up", "--detach", "-n", "3", "--base", b.base); r.code != 0 {
		t.Fatal(r)
	}
	return b
}

// freeBase finds three bytes of loopback addresses on which nobody listens.
func freeBase(t *testing.T) string {
	t.Helper()
	for range 200 {
		base := fmt.Sprintf("127.64.%d", 1+rand.IntN(254))
		l, err := net.Listen("tcp", base+".1:7700")
		if err != nil {
			continue
		}
		l.Close()
		return base
	}
	t.Fatal("no free addresses in 127.64.0.0/16")
	return ""
}

// leaks fails the test for processes whose command line names the bed.
func (b *bed) leaks(t *testing.T) {
	t.Helper()
	var left []string
	if !until(5*time.Second, func() bool {
		left = nil
		dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, d := range dirs {
			if cmd, _ := os.ReadFile(d); bytes.Contains(cmd, []byte(b.dir)) || bytes.Contains(cmd, []byte(b.root+"/m4")) {
				left = append(left, d+": "+string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
			}
		}
		return len(left) == 0
	}) {
		t.Errorf("processes are left: %q", left)
	}
}

// result is what a command has printed and its exit code.
type result struct {
	args     []string
	out, err string
	code     int
}

// String is for messages.
func (r result) String() string {
	return fmt.Sprintf("%s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.out, r.err)
}

// run runs flota against the cluster with more environment, for two minutes at most.
func (b *bed) run(env []string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, flota, args...)
	cmd.Env = append(b.environ(), env...)
	cmd.Dir = b.root
	cmd.WaitDelay = 5 * time.Second // what it has started may keep its output open
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	r := result{args: args}
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
		if !strings.HasPrefix(e, "FLOTA_") {
			env = append(env, e)
		}
	}
	return append(env, "FLOTA_CONFIG="+filepath.Join(b.root, "contexts.json"), "FLOTA_DEV_DIR="+b.dir)
}

// flota runs flota, which must succeed, and gives what it printed.
func (b *bed) flota(t *testing.T, args ...string) string {
	t.Helper()
	r := b.run(nil, args...)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.out + r.err
}

// fails runs flota, which must fail and say the words.
func (b *bed) fails(t *testing.T, words []string, args ...string) {
	t.Helper()
	r := b.run(nil, args...)
	if r.code == 0 {
		t.Errorf("want a refusal: %v", r)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("want %q on standard error: %v", w, r)
		}
	}
}

// at is the flag that makes a command ask one machine.
func (b *bed) at(name string) string {
	return "--endpoint=unix://" + filepath.Join(b.dir, name, "flota.sock")
}

// decode runs flota with --json and reads what it prints into v.
func (b *bed) decode(v any, args ...string) error {
	r := b.run(nil, append(args, "--json")...)
	if r.code != 0 {
		return errors.New(r.String())
	}
	return json.Unmarshal([]byte(r.out), v)
}

// status asks one machine.
func (b *bed) status(name string) (s api.Status, err error) {
	return s, b.decode(&s, b.at(name), "status")
}

// leader gives the name of the machine that leads.
func (b *bed) leader(t *testing.T, ask string) string {
	t.Helper()
	var s api.Status
	wait(t, "a machine leads", func() (err error) {
		if s, err = b.status(ask); err == nil && s.Leader == "" {
			err = errors.New("none does")
		}
		return err
	})
	return s.Leader
}

// start starts sleepers and gives their names.
func (b *bed) start(t *testing.T, from, to int) (names []string) {
	t.Helper()
	text := "[Unit]\nDescription=Sleeps\n[Service]\nExecStart=/bin/sleep infinity\nRestart=always\n"
	file := filepath.Join(b.root, "sleeper@.service")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.flota(t, "submit", file)
	for i := from; i <= to; i++ {
		names = append(names, "sleeper@"+strconv.Itoa(i)+".service")
	}
	b.flota(t, append([]string{"start"}, names...)...)
	return names
}

// mains waits until all the units are active, each on one machine and none on a forbidden one, and gives their machines and main processes.
func (b *bed) mains(t *testing.T, units []string, notOn ...string) map[string]string {
	t.Helper()
	var out map[string]string
	wait(t, fmt.Sprintf("units are active, none on %v", notOn), func() error {
		var us []api.Unit
		out = map[string]string{}
		if err := b.decode(&us, append([]string{"list-unit-files"}, units...)...); err != nil {
			return err
		}
		for _, u := range us {
			if len(u.States) != 1 || u.States[0].Active != "active" || len(u.Places) != 1 || u.Places[0].Machine != u.States[0].Machine {
				return fmt.Errorf("%s: %+v %+v", u.Name, u.Places, u.States)
			}
			s := u.States[0]
			for _, n := range notOn {
				if s.Name == n {
					return fmt.Errorf("%s is on %s", u.Name, n)
				}
			}
			out[string(u.Name)] = fmt.Sprintf("%s pid %d, %d restarts", s.Name, s.MainPID, s.Restarts)
		}
		if len(out) != len(units) {
			return fmt.Errorf("%d of %d units are there", len(out), len(units))
		}
		return nil
	})
	return out
}

// same fails the test for units that run elsewhere, or as another process, than before; those on machines that died may.
func same(t *testing.T, before, after map[string]string, died ...string) {
	t.Helper()
	for u, was := range before {
		name, _, _ := strings.Cut(was, " ")
		moved := false
		for _, d := range died {
			moved = moved || d == name
		}
		if !moved && after[u] != was {
			t.Errorf("%s was on %s, is on %s", u, was, after[u])
		}
	}
}

// untouched says which of the processes have ended.
func untouched(mains map[string]string) error {
	for u, s := range mains {
		var name string
		var pid int
		if _, err := fmt.Sscanf(s, "%s pid %d,", &name, &pid); err != nil {
			return err
		}
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if _, state, _ := strings.Cut(string(stat), ") "); err != nil || strings.HasPrefix(state, "Z") {
			return fmt.Errorf("%s (%s) was stopped", u, s)
		}
	}
	return nil
}

// patience is how long things may take that take a second or ten on a quiet host.
const patience = 60 * time.Second

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

// logs gives the ends of all logs.
func (b *bed) logs() string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(b.root, "*", "*", "agent.log"))
	more, _ := filepath.Glob(filepath.Join(b.root, "etcd", "*.log"))
	for _, f := range append(append(files, more...), filepath.Join(b.root, "m4.log")) {
		text, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&out, "--- %s\n%s\n", f, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
	return out.String()
}
