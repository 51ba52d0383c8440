package v2

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// program runs a client to its end and gives its exit code and what it said.
func program(t *testing.T, dir, name string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "ETCDCTL_API=2", "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestEtcdctl runs the commands of Debian's etcdctl, as people type them.
func TestEtcdctl(t *testing.T) {
	if _, err := exec.LookPath("etcdctl"); err != nil {
		t.Skip("etcdctl is not installed: scripts/setup does that")
	}
	b := newBed(t, nil)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"set /a/b one", 0, "one\n"},
		{"get /a/b", 0, "one\n"},
		{"get --quorum /a/b", 0, "one\n"},
		{"-o extended get /a/b", 0, "Key: /a/b\n"},
		{"-o json get /a/b", 0, `"action":"get"`},
		{"set --ttl 60 /a/t two", 0, "two\n"},
		{"set --swap-with-value one /a/b three", 0, "three\n"},
		{"set --swap-with-value one /a/b four", 4, "Error:  101: Compare failed ([one != three]) ["},
		{"mk /a/b five", 4, "Error:  105: Key already exists (/a/b) ["},
		{"mk /a/new six", 0, "six\n"},
		{"mk --in-order /q job", 0, "job\n"},
		{"update /a/b seven", 0, "seven\n"},
		{"update /a/none seven", 4, "Error:  100: Key not found (/a/none) ["},
		{"mkdir /d", 0, ""},
		{"mkdir /d", 4, "Error:  105: Key already exists (/d) ["},
		{"setdir /d2", 0, ""},
		{"updatedir --ttl 100 /d2", 0, ""},
		{"ls /", 0, "/a\n/d\n/d2\n/q\n"},
		{"ls -p --sort --recursive /a", 0, "/a/b\n/a/new\n/a/t\n"},
		{"rm /d", 4, "Error:  102: Not a file (/d) ["},
		{"rmdir /d", 0, ""},
		{"rmdir /a", 4, "Error:  108: Directory not empty (/a) ["},
		{"rm /a/b", 0, "PrevNode.Value: seven\n"},
		{"rm --recursive /a", 0, ""},
		{"get /a/b", 4, "Error:  100: Key not found (/a) ["},
		{"cluster-health", 0, "cluster is healthy\n"},
		{"member list", 0, "isLeader=true\n"},
	} {
		code, out := program(t, "", "etcdctl", append([]string{"--endpoints", b.url}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("etcdctl %s: exit code %d, want %d, with %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
}

// TestEtcdctlWatches runs watch and exec-watch.
func TestEtcdctlWatches(t *testing.T) {
	if _, err := exec.LookPath("etcdctl"); err != nil {
		t.Skip("etcdctl is not installed: scripts/setup does that")
	}
	b, c := newBed(t, nil), browser(t)
	// What the command prints may be lost, because etcdctl does not wait for it; so it writes to a file.
	file := filepath.Join(t.TempDir(), "out")
	for name, want := range map[string]string{
		"watch /w":            "new\n",
		"watch --recursive /": "[set] /w\nnew\n",
		"watch -f /w":         "new\n",
	} {
		b.watchBy(t, c, append([]string{"--endpoints", b.url}, strings.Fields(name)...), func(out string) bool { return strings.Contains(out, want) })
	}
	b.watchBy(t, c, []string{"--endpoints", b.url, "exec-watch", "--recursive", "/w", "--", "sh", "-c", "echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE >" + file}, func(string) bool {
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), "new")
	})
}

// watchBy runs etcdctl until what is watched for has come.
func (b *bed) watchBy(t *testing.T, c *http.Client, args []string, came func(out string) bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "etcdctl", args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=2")
	out := &guarded{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	wait := func(until func() bool) bool {
		for !until() && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		return until()
	}
	wait(func() bool { return b.api.window.watching() > 0 })
	b.ask(t, c, "PUT", "/w", "value=new")
	if !wait(func() bool { return came(out.String()) }) {
		t.Errorf("%v says %q", args, out)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	wait(func() bool { return b.api.window.watching() == 0 })
}

// TestPython runs python-etcd.
func TestPython(t *testing.T) {
	python := "/usr/bin/python3" // Debian's, which finds Debian's modules
	if exec.Command(python, "-c", "import etcd").Run() != nil {
		t.Skip("python3-etcd is not installed: scripts/setup does that")
	}
	b := newBed(t, nil)
	script, err := filepath.Abs("testdata/client.py")
	if err != nil {
		t.Fatal(err)
	}
	if code, out := program(t, "", python, script, strings.TrimPrefix(b.url, "http://")); code != 0 || !strings.Contains(out, "all is well") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// TestGoClient runs etcd's own Go client of version 2, built in a module of its own.
func TestGoClient(t *testing.T) {
	b := newBed(t, nil)
	bin := filepath.Join(t.TempDir(), "client")
	if code, out := program(t, "testdata/client", "go", "build", "-o", bin, "."); code != 0 {
		t.Skipf("etcd's client cannot be built here, its modules may be out of reach: %s", out)
	}
	if code, out := program(t, "", bin, b.url); code != 0 || !strings.Contains(out, "all is well") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// guarded is a buffer for a process to write to while it is read.
type guarded struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write implements io.Writer.
func (g *guarded) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

// String implements fmt.Stringer.
func (g *guarded) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}
