package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flota/internal/daemon"
	"flota/internal/dev"
)

// TestMain lets the test binary be flota, fleetctl, and everything that flota starts of itself: machines and supervisors.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flota": main, "fleetctl": main})
}

// patience is how long scripts wait for anything, and Down may take.
const patience = 40 * time.Second

// TestScripts runs testdata/script: stories of what a person types, each with a dev cluster of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"examples": examples,
			"exits":    exits,
			"until":    until,
			"bigfile":  bigfile,
			"where":    where,
			"spawn":    spawn,
			"nothing":  nothing,
			"samefile": samefile,
		},
	})
}

// setup gives a script $BASE and FLOTA_DEV_DIR for a dev cluster, which is ended with the script whatever comes of it.
func setup(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "fl") // the work folder's path is too long for sockets
	if err != nil {
		return err
	}
	base, err := freeBase()
	if err != nil {
		return err
	}
	env.Setenv("FLOTA_DEV_DIR", dir)
	env.Setenv("BASE", base)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("FLOTA_CONFIG", filepath.Join(env.WorkDir, "contexts.json"))
	t := env.T().(testing.TB)
	env.Defer(func() {
		if t.Failed() {
			tails(t, dir)
		}
		if c, err := dev.Open(dir); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := c.Down(ctx); err != nil {
				t.Errorf("end the cluster: %v", err)
			}
		}
		if left := processes(dir); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
		_ = os.RemoveAll(dir)
	})
	return nil
}

// tails shows the ends of the machines' logs.
func tails(t testing.TB, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "m*", "*.log"))
	for _, log := range logs {
		b, _ := os.ReadFile(log)
		t.Logf("%s:\n%s", log, b[max(0, len(b)-3000):])
	}
}

// bases counts the networks that were handed out.
var bases atomic.Uint32

// freeBase finds three bytes of loopback addresses on which nobody listens on a machine's ports.
func freeBase() (string, error) {
	for range 200 {
		n := bases.Add(1)
		base := fmt.Sprintf("127.%d.%d", 60+(uint32(os.Getpid())+n)%60, (uint32(os.Getpid())/60+n)%250+1)
		free := true
		for i := 1; i <= 3 && free; i++ {
			for _, port := range []int{daemon.DefaultAPIPort, daemon.DefaultPeerPort} {
				l, err := net.Listen("tcp", net.JoinHostPort(base+"."+strconv.Itoa(i), strconv.Itoa(port)))
				if err != nil {
					free = false
					break
				}
				_ = l.Close()
			}
		}
		if free {
			return base, nil
		}
	}
	return "", errors.New("no free network of loopback addresses")
}

// processes gives the command lines of processes that name the folder.
func processes(dir string) []string {
	var out []string
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(dir)) {
			out = append(out, path+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

// code runs a command and gives its exit code.
func code(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.ExitCode()
	}
	ts.Fatalf("%v: %v", args, err)
	return -1
}

// exits CODE COMMAND... wants the exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	if got := code(ts, args[1:]); got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}

// until PATTERN COMMAND... runs the command until its output matches (with !: does not match any more).
func until(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[0])
	if err != nil || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND... (%v)", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for end := time.After(patience); ; {
		_ = ts.Exec(args[1], args[2:]...) // it may fail until it does not
		if re.MatchString(ts.ReadFile("stdout")) != neg {
			ts.Logf("after %s", time.Since(began).Round(100*time.Millisecond))
			return
		}
		select {
		case <-tick.C:
		case <-end:
			ts.Fatalf("not within %s: %s", patience, args[0])
		}
	}
}

// bigfile FILE MIB writes a unit file of that size.
func bigfile(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := "[Service]\nExecStart=/bin/echo " + strings.Repeat("x", n<<20) + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// where VAR UNIT sets VAR to the name of the machine that the unit is active on.
func where(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("flota", "list-units", "--no-legend", args[1]))
	for _, line := range strings.Split(ts.ReadFile("stdout"), "\n") {
		if f := strings.Fields(line); len(f) == 4 && f[2] == "active" {
			name, _, _ := strings.Cut(f[1], "/")
			ts.Setenv(args[0], name)
			return
		}
	}
	ts.Fatalf("%s is active on no machine", args[1])
}

// spawn FILE COMMAND... runs a command with its output in a file until the script ends.
func spawn(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = f, f, ts.MkAbs(".")
	for _, key := range []string{"PATH", "HOME", "FLOTA_CONFIG", "FLOTA_DEV_DIR", "ETCDCTL_API"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a shell waits for what it runs before it ends
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) // it may have ended
		kill := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		_ = f.Close()
	})
}

// nothing TEXT wants no process whose command line has the text.
func nothing(ts *testscript.TestScript, _ bool, args []string) {
	if left := processes(args[0]); len(left) > 0 {
		ts.Fatalf("left over: %q", left)
	}
}

// samefile A B compares files ignoring blank space at the ends.
func samefile(ts *testscript.TestScript, _ bool, args []string) {
	if a, b := strings.TrimSpace(ts.ReadFile(args[0])), strings.TrimSpace(ts.ReadFile(args[1])); a != b {
		ts.Fatalf("%s and %s differ:\n%s\n----\n%s", args[0], args[1], a, b)
	}
}
