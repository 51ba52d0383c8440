package cli

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/agent"
	"flota/internal/api"
	"flota/internal/daemon"
	"flota/internal/driver/fake"
	"flota/internal/leader"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/view"
)

// cache is an agent.Cache in memory.
type cache struct {
	mu sync.Mutex
	b  []byte
}

func (c *cache) Load() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b, nil
}

func (c *cache) Save(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b = b
	return nil
}

// cluster is three machines in this process: the real leader, agents and API over a store in memory and drivers that only pretend.
type cluster struct {
	t       *testing.T
	dir     string
	drivers map[string]*fake.Driver
	off     map[string]context.CancelFunc // ends one machine
	ends    []string                      // its endpoints
	home    string                        // of the person who types
}

// newCluster starts a cluster that ends with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, drivers: map[string]*fake.Driver{}, off: map[string]context.CancelFunc{}, home: t.TempDir()}
	kv := mem.New()
	var wg sync.WaitGroup
	t.Cleanup(func() {
		for _, off := range c.off {
			off()
		}
		wg.Wait()
		_ = kv.Close()
		_ = os.RemoveAll(dir)
	})
	for i := 1; i <= 3; i++ {
		c.start(&wg, kv, i)
	}
	c.await(func() bool {
		out, _, _ := c.try("list-machines", "--no-legend")
		return strings.Count(out, "\n") == 3
	})
	return c
}

// start starts machine mN.
func (c *cluster) start(wg *sync.WaitGroup, kv *mem.Mem, i int) {
	name := fmt.Sprintf("m%d", i)
	id := machine.ID(strings.Repeat(fmt.Sprint(i), 32))
	ctx, off := context.WithCancel(context.Background())
	c.off[name] = off
	st := store.New(kv.Client())
	log := slog.New(slog.DiscardHandler)
	d := fake.New(fake.Options{})
	c.drivers[name] = d
	v := view.New(view.Options{Store: st, Log: log})
	desk := leader.NewDesk()
	sock := filepath.Join(c.dir, name+".sock")
	c.ends = append(c.ends, "unix://"+sock)
	local, err := net.Listen("unix", sock)
	if err != nil {
		c.t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	ag := agent.New(agent.Options{ID: id, Store: st, Driver: d, Cache: &cache{}, Log: log, TTL: 3 * time.Second, Renew: time.Second,
		Presence: machine.Presence{ID: id, Name: name, Addr: fmt.Sprintf("10.0.0.%d", i), API: tcp.Addr().String(), Version: "test",
			Labels: map[string]string{"rack": fmt.Sprint(i)}, Size: machine.Size{MemBytes: 8 << 30, CPUMillis: 4000}}})
	srv := api.New(api.Options{ID: id, Name: name, Version: "test", Store: st, View: v, Driver: d, Log: log, Rebalance: desk.Rebalance})
	if err := srv.Register(ctx, machine.Machine{ID: id, Name: name, Voter: true, Joined: time.Now()}); err != nil {
		c.t.Fatal(err)
	}
	for _, run := range []func() error{
		func() error { return v.Run(ctx) },
		func() error { return ag.Run(ctx) },
		func() error {
			return leader.Run(ctx, leader.Options{ID: id, Store: st, View: v, Desk: desk, Log: log, TTL: 3 * time.Second, Lease: 3 * time.Second})
		},
		func() error { return srv.Serve(ctx, local, true) },
		func() error { return srv.Serve(ctx, tcp, false) },
	} {
		wg.Go(func() { _ = run() })
	}
}

// await waits until yes.
func (c *cluster) await(yes func() bool) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(20 * time.Second); !yes(); {
		select {
		case <-tick.C:
		case <-end:
			c.t.Fatal("waited for 20 s in vain")
		}
	}
}

// buffer is a bytes.Buffer that several goroutines may write and read.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// env is the world of one command line.
func (c *cluster) env(out, err *buffer, set map[string]string) Env {
	vars := map[string]string{"HOME": c.home, "FLOTA_ENDPOINT": strings.Join(c.ends, ",")}
	for k, v := range set {
		vars[k] = v
	}
	return Env{In: strings.NewReader(""), Out: out, Err: err, Getenv: func(k string) string { return vars[k] }, Version: "1.2.3",
		Daemon: func(context.Context, daemon.Options) error { return nil }}
}

// as runs a command line under a name of the program.
func (c *cluster) as(name string, set map[string]string, args ...string) (stdout, stderr string, code int) {
	var out, err buffer
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	code = Main(ctx, append([]string{name}, args...), c.env(&out, &err, set))
	return out.String(), err.String(), code
}

// try runs flota.
func (c *cluster) try(args ...string) (stdout, stderr string, code int) {
	return c.as("flota", nil, args...)
}

// ok runs flota and wants success.
func (c *cluster) ok(args ...string) string {
	c.t.Helper()
	out, err, code := c.try(args...)
	if code != 0 {
		c.t.Fatalf("flota %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, err)
	}
	return out
}

// fails runs flota and wants an exit code and words on standard error.
func (c *cluster) fails(code int, words string, args ...string) {
	c.t.Helper()
	out, err, got := c.try(args...)
	if got != code || !strings.Contains(err, words) {
		c.t.Errorf("flota %s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), got, code, words, out, err)
	}
}

// file writes a unit file and gives its path.
func (c *cluster) file(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.home, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// has wants words in a text.
func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}
