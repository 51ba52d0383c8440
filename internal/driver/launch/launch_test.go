package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flota/internal/driver/launch/child"
	"flota/internal/service"
	"flota/internal/unit"
)

// TestMain makes the test binary the probe that units of these tests run: it tries one thing and says what came of it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "probe" {
		fmt.Println(probe(os.Args[2], os.Args[3:]))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ran is what came of a command.
type ran struct {
	out    string
	status syscall.WaitStatus
	err    error // of Child.Exec
	notes  []string
}

// bench is one command about to be run.
type bench struct {
	keys string         // lines of [Service] beside ExecStart=
	cmd  string         // ExecStart=
	ctx  func(*Context) // changes what Plan is told
	host func(*Host)    // changes what the machine can do
	spec func(*Spec)    // changes the outcome
}

// needRoot skips what only root can do.
func needRoot(t *testing.T) {
	t.Helper()
	if !LookHost().Root {
		t.Skip("needs root with CAP_SYS_ADMIN")
	}
}

// parse reads a service out of lines of [Service].
func parse(t *testing.T, lines string) *service.Service {
	t.Helper()
	f, _, err := unit.Parse("probe.service", []byte("[Service]\n"+lines))
	if err != nil {
		t.Fatal(err)
	}
	s, notes, err := service.Parse("probe.service", f, service.DefaultHost())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range notes {
		t.Logf("note: %v", n)
	}
	return &s
}

// self is ExecStart= of the probe, at a place that every user can reach.
func self(t *testing.T, words ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(probeBase(), "flota-probe-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	at := filepath.Join(dir, "probe")
	if err := os.Link(exe, at); err != nil {
		if out, err := exec.Command("cp", exe, at).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	os.Chmod(at, 0o755)
	return at + " probe " + strings.Join(words, " ")
}

// probeBase is a directory that no private tmp hides; without root there is none.
func probeBase() string {
	if os.Geteuid() == 0 {
		return "/opt"
	}
	return os.TempDir()
}

// run starts a command and waits for its end.
func (b bench) run(t *testing.T) ran {
	t.Helper()
	s := parse(t, "ExecStart="+b.cmd+"\n"+b.keys)
	id, err := Identify(s, "probe.service")
	if err != nil {
		return ran{err: err}
	}
	h := LookHost()
	if b.host != nil {
		b.host(&h)
	}
	c := Context{Host: h, Identity: id, Start: true, Env: []string{"PATH=/usr/bin:/bin", "HOME=" + id.Home}}
	if b.ctx != nil {
		b.ctx(&c)
	}
	spec, notes, err := Plan(s, s.ExecStart[0], c)
	if err != nil {
		return ran{err: err, notes: notes}
	}
	if b.spec != nil {
		b.spec(&spec)
	}
	r := start(t, spec)
	r.notes = notes
	return r
}

// start runs a Spec to its end, with a pipe as file 0.
func start(t *testing.T, spec Spec) ran {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c, err := Start(spec, []*os.File{in})
	in.Close()
	if err != nil {
		return ran{err: err}
	}
	defer c.Close()
	text, _ := io.ReadAll(out)
	r := ran{out: strings.TrimSpace(string(text)), err: c.Exec(context.Background())}
	for {
		_, err := syscall.Wait4(c.PID, &r.status, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	return r
}

// wants fails unless the command ran well and said want.
func (r ran) wants(t *testing.T, want string) {
	t.Helper()
	if r.err != nil || r.out != want || r.status.ExitStatus() != 0 {
		t.Fatalf("out %q, status %v (signal %v), err %v; want %q", r.out, r.status.ExitStatus(), r.status.Signal(), r.err, want)
	}
}

// fails fails unless the command failed in a step with systemd's code.
func (r ran) fails(t *testing.T, step string, code int) {
	t.Helper()
	var f *Failure
	if !errors.As(r.err, &f) || f.Step != step || f.Code != code {
		t.Fatalf("out %q, status %v, err %v; want %s with %d", r.out, r.status, r.err, step, code)
	}
	if r.status != 0 && r.status.ExitStatus() != code {
		t.Fatalf("exit status %d, want %d", r.status.ExitStatus(), code)
	}
}

func TestPlainCommand(t *testing.T) {
	r := bench{cmd: `/bin/sh -c 'echo "$0 $1 $PATH"; pwd; umask' a "b c"`, keys: "UMask=0027"}.run(t)
	r.wants(t, "a b c /usr/bin:/bin\n/\n0027")
}

func TestBytesThatAreNotUTF8Survive(t *testing.T) {
	r := start(t, Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", `printf %s "$X$1"`, "sh", "\xff\xfe"}, Env: []string{"X=\x80"},
		Stdout: Stdio{Kind: child.FD},
	})
	r.wants(t, "\x80\xff\xfe")
}

func TestOnlyStandardStreamsAreInherited(t *testing.T) {
	r := bench{cmd: "/bin/ls /proc/self/fd"}.run(t)
	r.wants(t, "0\n1\n2\n3") // 3 is ls reading the directory
}

func TestSessionAndSignals(t *testing.T) {
	r := bench{cmd: "/bin/sh -c 'cut -d\" \" -f1,6 /proc/$$/stat; grep -E \"Sig(Blk|Ign)\" /proc/self/status'"}.run(t)
	lines := strings.Split(r.out, "\n")
	pid, sid, _ := strings.Cut(lines[0], " ")
	if pid != sid {
		t.Errorf("pid %s, session %s", pid, sid)
	}
	want := "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001000" // SIGPIPE
	if got := strings.Join(lines[1:], "\n"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r = bench{cmd: "/bin/grep SigIgn /proc/self/status", keys: "IgnoreSIGPIPE=no"}.run(t)
	r.wants(t, "SigIgn:\t0000000000000000")
}

func TestFailuresHaveSystemdsCodes(t *testing.T) {
	for _, c := range []struct {
		keys, cmd, step string
		code            int
		root            bool
	}{
		{"", "/no/such/program", "EXEC", 203, false},
		{"", "no-such-program-anywhere", "EXEC", 203, false},
		{"", "/etc/passwd", "EXEC", 203, false},
		{"SystemCallFilter=@system-service", "/no/such/program", "EXEC", 203, false},
		{"WorkingDirectory=/no/such/dir", "/bin/true", "CHDIR", 200, false},
		{"StandardOutput=append:/no/such/dir/log", "/bin/true", "STDOUT", 209, false},
		{"StandardInput=file:/no/such/file", "/bin/true", "STDIN", 208, false},
		{"StandardError=file:/no/such/dir/log", "/bin/true", "STDERR", 222, false},
		{"User=no-such-user", "/bin/true", "USER", 217, true},
		{"Group=no-such-group", "/bin/true", "GROUP", 216, true},
		{"ReadWritePaths=/no/such/path", "/bin/true", "NAMESPACE", 226, true},
		{"BindPaths=/no/such/path", "/bin/true", "NAMESPACE", 226, true},
	} {
		t.Run(c.step+c.keys, func(t *testing.T) {
			if c.root {
				needRoot(t)
			}
			bench{keys: c.keys, cmd: c.cmd}.run(t).fails(t, c.step, c.code)
		})
	}
	t.Run("LIMITS", func(t *testing.T) {
		bench{cmd: "/bin/true", spec: func(s *Spec) { s.Rlimits = []child.Rlimit{{Resource: 99}} }}.run(t).fails(t, "LIMITS", 205)
	})
	t.Run("CGROUP", func(t *testing.T) {
		bench{cmd: "/bin/true", ctx: func(c *Context) { c.Cgroup = []string{"/no/such/cgroup.procs"} }}.run(t).fails(t, "CGROUP", 219)
	})
	t.Run("CAPABILITIES", func(t *testing.T) {
		needRoot(t)
		set := func(s *Spec) { s.Caps = &child.Caps{Bounding: ^uint64(0), Ambient: 1 << 63} }
		bench{cmd: "/bin/true", spec: set}.run(t).fails(t, "CAPABILITIES", 218)
	})
	t.Run("SECCOMP", func(t *testing.T) {
		bench{cmd: "/bin/true", spec: func(s *Spec) { s.NoNewPrivs, s.Seccomp = true, [][]byte{make([]byte, 8)} }}.run(t).fails(t, "SECCOMP", 228)
	})
}

func TestWorkingDirectoryMayBeMissing(t *testing.T) {
	bench{keys: "WorkingDirectory=-/no/such/dir", cmd: "/bin/pwd"}.run(t).wants(t, "/")
}

func TestManyStartsLeaveNothingOpen(t *testing.T) {
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	bench{cmd: "/bin/true"}.run(t)
	before := count()
	for range 20 {
		bench{cmd: "/bin/true"}.run(t)
	}
	if after := count(); after > before {
		t.Errorf("%d files open, %d before", after, before)
	}
}
