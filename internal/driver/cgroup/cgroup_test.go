package cgroup

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree opens a tree of its own for a test and removes it afterwards.
func tree(t testing.TB) *Tree {
	t.Helper()
	tr, err := Open(Options{Key: fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := tr.KillAll(ctx); err != nil {
			t.Error(err)
		}
		if err := tr.Destroy(); err != nil {
			t.Error(err)
		}
		for _, d := range tr.dirs() {
			if exists(d) {
				t.Errorf("%s is left", d)
			}
		}
	})
	return tr
}

// real skips where this machine has no groups for us.
func real(t testing.TB) *Tree {
	t.Helper()
	tr := tree(t)
	if tr.support.Mode == None {
		t.Skip("no control groups here: ", tr.support.Reason)
	}
	return tr
}

// join runs a shell script inside the group; it begins after it has joined.
func join(t testing.TB, g *Group, script string, env ...string) *exec.Cmd {
	t.Helper()
	words := []string{"-c", `for f; do echo 0 >"$f" || exit 9; done; ` + script, "sh"}
	cmd := exec.Command("/bin/sh", append(words, g.Join()...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// ready runs a script that prints a line when it is where it shall be, and waits for that.
func ready(t testing.TB, g *Group, script string, env ...string) *exec.Cmd {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	words := []string{"-c", `for f; do echo 0 >"$f" || exit 9; done; ` + script, "sh"}
	cmd := exec.Command("/bin/sh", append(words, g.Join()...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var b [1]byte
	if _, err := r.Read(b[:]); err != nil {
		t.Fatalf("%q ended early: %v", script, err)
	}
	return cmd
}

func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestLifeOfAGroup(t *testing.T) {
	tr := real(t)
	t.Logf("%+v", tr.Support())
	g, err := tr.Create("web@1.service", "", Limits{MemMax: 64 << 20, TasksMax: 20, CPUQuota: 500, CPUWeight: 50})
	if err != nil {
		t.Fatal(err)
	}
	cmd := ready(t, g, `sleep 60 & echo x; wait`)
	pids, err := g.Procs()
	if err != nil || len(pids) != 2 || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("members %v, %v", pids, err)
	}
	if !g.Has(cmd.Process.Pid) || g.Has(os.Getpid()) || tr.Group("web@1", "").Has(cmd.Process.Pid) {
		t.Error("Has is wrong")
	}
	s, err := g.Stat()
	if err != nil || s.MemBytes <= 0 || s.Tasks != 2 || s.CPUMicros <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := g.Destroy(); !fault.Is(err, fault.Conflict) {
		t.Errorf("destroy with members: %v", err)
	}
	again := tr.Group("web@1.service", "") // a new supervisor
	if err := again.KillAll(patience(t)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("not killed")
	}
	if err := again.WaitEmpty(patience(t)); err != nil {
		t.Error(err)
	}
	if err := again.Destroy(); err != nil {
		t.Error(err)
	}
	for _, f := range []func() error{again.Destroy, func() error { return again.KillAll(patience(t)) }, func() error { return again.Kill(syscall.SIGTERM) }} {
		if err := f(); err != nil {
			t.Errorf("of a group that is gone: %v", err)
		}
	}
}

func TestMemoryLimitKills(t *testing.T) {
	tr := real(t)
	if !tr.support.Memory {
		t.Skip("no memory controller")
	}
	g, err := tr.Create("greedy.service", "", Limits{MemMax: 16 << 20, SwapSet: true})
	if err != nil {
		t.Fatal(err)
	}
	// dd with one block of 64 MB needs a buffer of that size.
	cmd := join(t, g, `exec dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null`)
	err = cmd.Wait()
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); !st.Signaled() || st.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", err)
	}
	if n, err := g.OOMKills(); n != 1 || err != nil {
		t.Errorf("%d kills, %v", n, err)
	}
}

func TestTasksMaxHoldsAForkBombWhichKillAllEnds(t *testing.T) {
	tr := real(t)
	if !tr.support.Pids {
		t.Skip("no pids controller")
	}
	g, err := tr.Create("bomb.service", "", Limits{TasksMax: 64})
	if err != nil {
		t.Fatal(err)
	}
	cmd := ready(t, g, `echo x; b() { b & b & wait; }; b 2>/dev/null`)
	full := func() bool { s, _ := g.Stat(); return s.Tasks >= 32 }
	for ctx := patience(t); !full() && ctx.Err() == nil; {
		exec.Command("/bin/true").Run() // gives the bomb time without a clock
	}
	if s, _ := g.Stat(); s.Tasks < 32 || s.Tasks > 64 {
		t.Errorf("%d tasks", s.Tasks)
	}
	began := time.Now()
	if err := g.KillAll(patience(t)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	cmd.Wait()
	if pids, _ := g.Procs(); len(pids) != 0 {
		t.Errorf("left: %v", pids)
	}
	if err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

// TestEveryWayToKill runs the bomb against the means of other machines too: v1 with freezer, v1 without.
func TestEveryWayToKill(t *testing.T) {
	full := real(t)
	if full.support.Mode != Hybrid || !full.support.Pids {
		t.Skip("needs a hybrid machine")
	}
	l, err := find(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"freezer", "stop"} {
		t.Run(way, func(t *testing.T) {
			tr := &Tree{key: full.key + "-" + way, v1: map[string]string{}}
			for _, c := range []string{"pids", "freezer"} {
				if c == "freezer" && way == "stop" {
					continue
				}
				if err := tr.openV1(c, l.v1[c]); err != nil {
					t.Fatal(err)
				}
			}
			tr.look(nil)
			defer tr.Destroy()
			if tr.support.Mode != V1 {
				t.Fatalf("mode %s", tr.support.Mode)
			}
			g, err := tr.Create("bomb.service", "", Limits{TasksMax: 64})
			if err != nil {
				t.Fatal(err)
			}
			cmd := ready(t, g, `echo x; b() { b & b & wait; }; b 2>/dev/null`)
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			if err := g.KillAll(patience(t)); err != nil {
				t.Fatal(err)
			}
			<-ended
			if err := g.Destroy(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLimitsChangeWhileItRuns(t *testing.T) {
	tr := real(t)
	g, err := tr.Create("live.service", "", Limits{TasksMax: 10, MemMax: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Set(Limits{TasksMax: Unlimited, MemMax: math.MaxInt64, CPUQuota: 1500, CPUWeight: 200}); err != nil {
		t.Fatal(err)
	}
	if tr.support.Mode == Hybrid {
		for file, want := range map[string]string{
			g.in("pids", "pids.max"): "max", g.in("cpu", "cpu.cfs_quota_us"): "150000", g.in("cpu", "cpu.shares"): "2048",
			g.in("memory", "memory.limit_in_bytes"): "9223372036854771712",
		} {
			if text, err := os.ReadFile(file); strings.TrimSpace(string(text)) != want {
				t.Errorf("%s: %q, %v", file, text, err)
			}
		}
	}
	if err := g.Set(Limits{CPUIdle: true, MemMax: 16 << 20, SwapSet: true}); err != nil {
		t.Error(err)
	}
	if err := g.Set(Limits{MemMax: 8 << 20, SwapSet: true}); err != nil {
		t.Error(err)
	}
	if err := g.Set(Limits{MemMax: 64 << 20, SwapSet: true}); err != nil {
		t.Error(err)
	}
}

// TestFilesOfV2 checks what is written where this machine has no v2 controllers.
func TestFilesOfV2(t *testing.T) {
	dir := t.TempDir()
	g := &Group{name: "x.service", tree: &Tree{
		v2: dir, v1: map[string]string{}, on: map[string]bool{"memory": true, "cpu": true, "pids": true, "io": true}, support: Support{IO: true},
	}}
	at := filepath.Join(dir, "x.service")
	os.Mkdir(at, 0o755)
	want := map[string]string{
		"memory.max": "1000", "memory.high": "900", "memory.low": "500", "memory.min": "100", "memory.swap.max": "0",
		"cpu.max": "75000 50000", "cpu.weight": "50", "cpu.idle": "0", "pids.max": "7", "io.weight": "default 30",
	}
	for name := range want {
		os.WriteFile(filepath.Join(at, name), nil, 0o600)
	}
	err := g.Set(Limits{
		MemMax: 1000, MemHigh: 900, MemLow: 500, MemMin: 100, SwapSet: true, CPUQuota: 1500, CPUPeriodMicros: 50_000,
		CPUWeight: 50, TasksMax: 7, IOWeight: 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if got, _ := os.ReadFile(filepath.Join(at, name)); string(got) != text {
			t.Errorf("%s: %q, want %q", name, got, text)
		}
	}
}

func TestLayouts(t *testing.T) {
	for _, c := range []struct{ name, mounts, self, want string }{
		{
			"v2", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice/a\n",
			"v2=/sys/fs/cgroup own=/sys/fs/cgroup/user.slice/a map[]",
		},
		{
			"container", "30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/\n",
			"v2=/sys/fs/cgroup own=/sys/fs/cgroup map[]",
		},
		{
			"v1 in a container", "31 23 0:27 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/docker/x/y\n",
			"v2= own= map[memory:{/sys/fs/cgroup/memory /sys/fs/cgroup/memory/y}]",
		},
		{"nothing", "1 1 0:1 / / rw - ext4 /dev/x rw\n", "", "v2= own= map[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Mounts: filepath.Join(dir, "m"), Self: filepath.Join(dir, "s")}
			os.WriteFile(o.Mounts, []byte(c.mounts), 0o600)
			os.WriteFile(o.Self, []byte(c.self), 0o600)
			l, err := find(o)
			delete(l.v1, "rw")
			if got := fmt.Sprintf("v2=%s own=%s %v", l.v2, l.own, l.v1); got != c.want || err != nil {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestSweepEndsWhatIsLeft(t *testing.T) {
	tr := real(t)
	for _, name := range []string{"old.service", "new.service"} {
		if _, err := tr.Create(name, "", Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	old := ready(t, tr.Group("old.service", ""), "echo x; exec sleep 60")
	kept := ready(t, tr.Group("new.service", ""), "echo x; exec sleep 60")
	if err := tr.Sweep(patience(t), func(name string) bool { return name == "new.service" }); err != nil {
		t.Fatal(err)
	}
	if old.Wait() == nil || exists(tr.Group("old.service", "").Path()) {
		t.Error("old is left")
	}
	if pids, _ := tr.Group("new.service", "").Procs(); !slices.Equal(pids, []int{kept.Process.Pid}) {
		t.Errorf("new has %v", pids)
	}
	tr.Group("new.service", "").Kill(syscall.SIGKILL)
	kept.Wait()
}

func TestWithoutControlGroups(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	os.WriteFile(empty, nil, 0o600)
	tr, err := Open(Options{Key: "none", Mounts: empty, Self: empty})
	if err != nil || tr.support.Mode != None || tr.support.Reason == "" {
		t.Fatalf("%+v, %v", tr.support, err)
	}
	const id = "0123456789abcdef0123456789abcdef"
	g, err := tr.Create("x.service", id, Limits{MemMax: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	// The second process loses its environment but not its parent.
	cmd := ready(t, g, `env -i sleep 60 & echo x; wait`, "INVOCATION_ID="+id)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pids, err := g.Procs()
	if err != nil || len(pids) != 2 || !g.Has(cmd.Process.Pid) || g.Has(os.Getpid()) {
		t.Errorf("members %v, %v", pids, err)
	}
	if s, err := g.Stat(); err != nil || s.MemBytes <= 0 || s.Tasks != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if g.Path() != "" || g.Join() != nil {
		t.Error("there is a path")
	}
	if err := g.KillAll(patience(t)); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	tr := real(t)
	g, err := tr.Create("slow.service", "", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := ready(t, g, "echo x; exec sleep 60")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.WaitEmpty(ctx); !fault.Is(err, fault.TimedOut) {
		t.Errorf("got %v", err)
	}
	if err := waitExit(ctx, cmd.Process.Pid); err == nil {
		t.Error("no error")
	}
	g.Kill(syscall.SIGKILL)
	cmd.Wait()
}

func TestBadKey(t *testing.T) {
	for _, key := range []string{"", "a/b", "..", "A"} {
		if _, err := Open(Options{Key: key}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func BenchmarkCreateDestroy(b *testing.B) {
	tr := real(b)
	for i := 0; b.Loop(); i++ {
		g, err := tr.Create(fmt.Sprintf("u%d.service", i), "", Limits{MemMax: 64 << 20, TasksMax: 100, CPUQuota: 1000})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStat(b *testing.B) {
	tr := real(b)
	g, err := tr.Create("u.service", "", Limits{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := g.Stat(); err != nil {
			b.Fatal(err)
		}
	}
}
