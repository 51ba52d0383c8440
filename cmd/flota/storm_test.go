package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// storm is a dev cluster that applications treat badly.
type storm struct {
	t    *testing.T
	dir  string
	env  []string
	base string
	hurt *clientv3.Client // of machine 1, where it happens
	well *clientv3.Client // of machine 2
}

// TestStorm treats the keys of one machine badly: each time who does so is told why it does not go on, and the cluster and who was there before do.
func TestStorm(t *testing.T) {
	t.Setenv("FLOTA_KEYS_QUOTA", "8M")
	s := &storm{t: t}
	s.dir, s.env, s.base = docCluster(t)
	s.hurt, s.well = s.client(1), s.client(2)
	t.Run("watches", func(t *testing.T) { s.t = t; s.watches() })
	t.Run("input", func(t *testing.T) { s.t = t; s.input() })
	t.Run("quota", func(t *testing.T) { s.t = t; s.quota() })
	t.Run("paused", func(t *testing.T) { s.t = t; s.paused() })
	t.Run("connections", func(t *testing.T) { s.t = t; s.connections() })
}

func (s *storm) url(machine int) string { return fmt.Sprintf("http://%s.%d:2379", s.base, machine) }

func (s *storm) client(machine int) *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{strings.TrimPrefix(s.url(machine), "http://")}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// flota runs a command and gives what it prints.
func (s *storm) flota(args ...string) string {
	s.t.Helper()
	c := exec.Command("flota", args...)
	c.Env = s.env
	b, err := c.CombinedOutput()
	if err != nil {
		s.t.Errorf("flota %q: %v\n%s", args, err, b)
	}
	return string(b)
}

// fine wants the cluster to be well, and both machines to answer those who were there before, soon.
func (s *storm) fine(when string) {
	s.t.Helper()
	if out := s.flota("status"); !strings.Contains(out, "quorum of 3 voters") || strings.Count(out, "ready") != 3 {
		s.t.Errorf("%s: the status is\n%s", when, out)
	}
	for name, c := range map[string]*clientv3.Client{"m1": s.hurt, "m2": s.well} {
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		if _, err := c.Put(ctx, "/fine", when); err != nil {
			s.t.Errorf("%s: %s: %v", when, name, err)
		}
		cancel()
	}
}

// send sends one request of HTTP.
func (s *storm) send(method, path, kind, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url(1)+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		s.t.Errorf("%s %.60s: %v", method, path, err)
		return 0, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body) // what came counts
	return resp.StatusCode, string(b)
}

// input sends what is too large, or no text.
func (s *storm) input() {
	const form, js = "application/x-www-form-urlencoded", "application/json"
	big := strings.Repeat("x", 10<<20)
	for name, x := range map[string]struct {
		method, path, kind, body string
		code                     int
		want                     string // part of the answer
	}{
		"v2, a value of 10 MB":        {"PUT", "/v2/keys/big", form, "value=" + big, 413, "too large"},
		"v2, 10 MB as they come":      {"PUT", "/v2/keys/big", form, big, 413, "too large"},
		"v2, a key of 10 KB":          {"PUT", "/v2/keys/" + big[:10<<10], form, "value=x", 400, "4096"},
		"v2, a deep key of 10 KB":     {"PUT", "/v2/keys/" + strings.Repeat("a/", 5<<10), form, "value=x", 400, "more than 50 names"},
		"v2, a key that is not UTF-8": {"PUT", "/v2/keys/%ff%fe", form, "value=x", 201, `"action":"set"`},
		"v2, a value that is none":    {"PUT", "/v2/keys/bytes", form, "value=%ff%fe%00", 201, `"action":"set"`},
		"v2, a broken escape":         {"PUT", "/v2/keys/bytes", form, "value=%zz", 400, `"errorCode":210`},
		"v3 JSON, 10 MB":              {"POST", "/v3/kv/put", js, `{"key":"YQ==","value":"` + big + `"}`, 413, "too large"},
		"v3 JSON, not UTF-8":          {"POST", "/v3/kv/put", js, "{\"key\":\"\xff\xfe\"}", 400, "message"},
		"a header of 100 KB":          {"GET", "/v2/keys/a?x=" + big[:100<<10], form, "", 431, "Too Large"},
	} {
		if code, text := s.send(x.method, x.path, x.kind, x.body); code != x.code || !strings.Contains(text, x.want) {
			s.t.Errorf("%s: %d %.200s, want %d with %q", name, code, text, x.code, x.want)
		}
	}
	for name, x := range map[string]struct{ key, value, want string }{
		"v3, a value of 10 MB": {"/big", big, "larger than max"},
		"v3, a key of 10 KB":   {big[:10<<10], "x", "the limit is 4096"},
	} {
		if _, err := s.hurt.Put(s.t.Context(), x.key, x.value); err == nil || !strings.Contains(err.Error(), x.want) {
			s.t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	s.fine("bad input")
}

// quota fills it, by v2 and by v3: a warning at 90 %, an error that says what to do at the end, the cluster's own keys are written all the same, and
// deleting makes room.
func (s *storm) quota() {
	ctx := s.t.Context()
	value := strings.Repeat("x", 100<<10)
	n, warned := 0, 0
	var err error
	for ; n < 100 && err == nil; n++ {
		if _, err = s.hurt.Put(ctx, fmt.Sprint("/fill/", n), value); err == nil && n > 65 && warned == 0 && strings.Contains(s.flota("status"), "of their quota of 8.0 MiB") {
			warned = n
		}
	}
	const full = "of their quota of 8.0 MiB; delete some, or raise it with flota up --keys-quota"
	if err == nil || !strings.Contains(err.Error(), full) || n < 78 || n > 83 {
		s.t.Errorf("put %d: %v", n, err)
	}
	if warned < 72 || warned > 76 {
		s.t.Errorf("the status warned at %d of %d", warned, n)
	}
	if code, text := s.send("PUT", "/v2/keys/fill/more", "application/x-www-form-urlencoded", "value="+value); code != 500 || !strings.Contains(text, full) {
		s.t.Errorf("v2: %d %.200s", code, text)
	}
	if code, text := s.send("POST", "/v3/kv/put", "application/json", `{"key":"YQ==","value":"`+value+value+`"}`); code == 200 || !strings.Contains(text, full) {
		s.t.Errorf("v3 JSON: %d %.200s", code, text)
	}
	unit := filepath.Join(s.dir, "sleep.service")
	if err := os.WriteFile(unit, []byte("[Service]\nExecStart=/bin/sleep infinity\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.flota("start", unit) // writes the cluster's keys, and waits
	s.flota("destroy", "sleep.service")
	s.flota("key", "del", "--prefix", "/fill")
	if _, err := s.well.Put(ctx, "/fill/again", value); err != nil {
		s.t.Errorf("with room again: %v", err)
	}
	if out := s.flota("status"); strings.Contains(out, "quota") {
		s.t.Errorf("the status still warns:\n%s", out)
	}
	s.fine("the quota was full")
}

// connections opens 10,000. Those that are too many are told so.
func (s *storm) connections() {
	const all = 10_000
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur < all+1000 {
		s.t.Skipf("only %d files may be open", r.Cur)
	}
	conns := make([]net.Conn, all)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	var served, told, other atomic.Int64
	var busy sync.WaitGroup
	sem := make(chan struct{}, 200)
	for i := range conns {
		sem <- struct{}{}
		busy.Go(func() {
			defer func() { <-sem }()
			c, err := net.Dial("tcp", strings.TrimPrefix(s.url(1), "http://"))
			if err != nil {
				other.Add(1)
				return
			}
			conns[i] = c
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			fmt.Fprint(c, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				other.Add(1)
				return
			}
			b, _ := io.ReadAll(resp.Body) // what came counts
			switch {
			case resp.StatusCode == 200:
				served.Add(1)
			case resp.StatusCode == 503 && bytes.Contains(b, []byte("too many connections")):
				told.Add(1)
			default:
				other.Add(1)
			}
		})
	}
	busy.Wait()
	s.t.Logf("%d are served, %d are told that they are too many, %d neither", served.Load(), told.Load(), other.Load())
	if served.Load() < 1000 || told.Load() == 0 && served.Load() < all || other.Load() > 0 {
		s.t.Errorf("%d are served, %d told, %d neither", served.Load(), told.Load(), other.Load())
	}
	s.fine("10,000 connections")
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if code, _ := s.send("GET", "/version", "", ""); code == 200 {
			break
		} else if time.Now().After(end) {
			s.t.Fatal("nobody is served after the connections have gone")
		}
	}
}

// paused has programs watch that are stopped in the middle: the kernel goes on for them, and takes nothing more once their buffers are full. What they do
// not take does not fill the machine's memory, and who goes on later has missed nothing (v3) or is told by the end of the answer (v2 streams).
func (s *storm) paused() {
	if _, err := exec.LookPath("etcdctl"); err != nil {
		s.t.Skip("etcdctl is not installed: scripts/setup does that")
	}
	const each, puts = 10, 200
	var outs []*os.File
	var all []*exec.Cmd
	for i := range 2 * each {
		f, err := os.Create(filepath.Join(s.t.TempDir(), "out"))
		if err != nil {
			s.t.Fatal(err)
		}
		defer f.Close()
		c := exec.Command("etcdctl", "--endpoints", strings.TrimPrefix(s.url(1), "http://"), "watch", "/slow")
		c.Env = append(os.Environ(), "ETCDCTL_API=3")
		if i >= each {
			c = exec.Command("curl", "-s", "-N", s.url(1)+"/v2/keys/slow?wait=true&stream=true")
		}
		c.Stdout = f
		if err := c.Start(); err != nil {
			s.t.Fatal(err)
		}
		defer c.Wait()
		defer c.Process.Kill()
		outs, all = append(outs, f), append(all, c)
	}
	sees := func(f *os.File, text string) bool {
		b, err := os.ReadFile(f.Name())
		return err == nil && bytes.Contains(b, []byte(text))
	}
	for _, f := range outs {
		for !sees(f, "hello") {
			if _, err := s.hurt.Put(s.t.Context(), "/slow", "hello"); err != nil {
				s.t.Fatal(err)
			}
			rest(s.t.Context(), 20*time.Millisecond)
		}
	}
	for _, c := range all {
		_ = c.Process.Signal(syscall.SIGSTOP)
	}
	before, value := s.memory(), strings.Repeat("x", 100<<10)
	for i := range puts {
		if _, err := s.hurt.Put(s.t.Context(), "/slow", fmt.Sprint("change-", i, " ", value)); err != nil {
			s.t.Fatal(err)
		}
	}
	grown := s.memory() - before
	s.t.Logf("%d paused clients cost %d MiB while %d MiB were written", len(all), grown>>20, puts*len(value)>>20)
	if grown > 250<<20 && !raceDetector {
		s.t.Errorf("%d paused clients cost %d MiB", len(all), grown>>20)
	}
	s.fine("paused clients")
	for _, c := range all {
		_ = c.Process.Signal(syscall.SIGCONT)
	}
	for i, f := range outs[:each] {
		for end := time.Now().Add(2 * time.Minute); !sees(f, fmt.Sprint("change-", puts-1)) && time.Now().Before(end); {
			rest(s.t.Context(), 50*time.Millisecond)
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			s.t.Fatal(err)
		}
		if n := bytes.Count(b, []byte("change-")); n != puts {
			s.t.Errorf("client %d got %d changes of %d", i, n, puts)
		}
	}
}

// watches opens 5,000 that have nothing to tell, and tells what they cost.
func (s *storm) watches() {
	const all, clients = 5000, 10
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	s.fine("before") // what the first requests cost is not the watches'
	before := s.memory()
	for range clients {
		c := s.client(1)
		for i := range all / clients {
			if r := <-c.Watch(ctx, fmt.Sprint("/idle/", i), clientv3.WithCreatedNotify()); r.Err() != nil {
				s.t.Fatal(r.Err())
			}
		}
	}
	cost := s.memory() - before
	s.t.Logf("%d idle watches of %d clients cost %d KiB", all, clients, cost>>10)
	if cost > 50<<20 && !raceDetector {
		s.t.Errorf("%d idle watches cost %d KiB", all, cost>>10)
	}
	s.fine("5,000 watches")
}

// memory is what the agent of machine 1 has in memory, in bytes.
func (s *storm) memory() int {
	s.t.Helper()
	pid, err := os.ReadFile(filepath.Join(s.dir, "c", "m1", "agent.pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/status")
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return kb << 10
}
