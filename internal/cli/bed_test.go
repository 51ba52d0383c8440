package cli

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/admit"
	"flota/internal/agent"
	"flota/internal/api"
	"flota/internal/daemon"
	"flota/internal/driver/fake"
	"flota/internal/leader"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
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

// bed is three machines in this process: the real leader, agents and API over a store in memory and drivers that only pretend.
type bed struct {
	t       *testing.T
	dir     string
	drivers map[string]*fake.Driver
	off     map[string]context.CancelFunc // ends one machine
	ends    []string                      // its endpoints
	kv      *mem.Mem
	who     *trust.Identity // of m1; the others use it too, as they talk without TLS here
	home    string          // of the person who types
}

// newCluster starts a cluster that ends with the test.
func newCluster(t *testing.T) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	c := &bed{t: t, dir: dir, drivers: map[string]*fake.Driver{}, off: map[string]context.CancelFunc{}, home: t.TempDir()}
	kv := mem.New()
	c.kv = kv
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
func (c *bed) start(wg *sync.WaitGroup, kv *mem.Mem, i int) {
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
	srv := api.New(api.Options{ID: id, Name: name, Version: "test", Store: st, View: func() *view.View { return v }, Driver: d, Log: log,
		Rebalance: desk.Rebalance, Desk: c.member(ctx, st, id, name)})
	for _, run := range []func() error{
		func() error { return v.Run(ctx) },
		func() error { return ag.Run(ctx) },
		func() error {
			return leader.Run(ctx, leader.Options{ID: id, Store: st, View: v, Desk: desk, Log: log, TTL: 3 * time.Second, Lease: 3 * time.Second})
		},
		func() error { return srv.Serve(ctx, local, api.Local) },
		func() error { return srv.Serve(ctx, tcp, api.Machines) },
	} {
		wg.Go(func() { _ = run() })
	}
}

// member makes a machine one of the cluster, which the first one founds and alone votes in, and gives its desk.
func (c *bed) member(ctx context.Context, st *store.Store, id machine.ID, name string) *admit.Desk {
	c.t.Helper()
	var err error
	if c.who == nil {
		c.who, err = trust.Found(trust.Options{Dir: filepath.Join(c.dir, "trust")},
			trust.Subject{ID: id, Name: name, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
		if err == nil {
			err = st.Voters.Put(ctx, string(id), machine.Vote{Machine: id, Role: machine.Voter}, 0)
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	d := admit.New(admit.Options{Store: st, Identity: c.who, ID: id, Name: name, Addrs: func() []string { return []string{"10.0.0.1:7700"} }})
	if id == c.who.ID() {
		err = d.Found(ctx)
	} else {
		_, _, err = st.KV.Commit(ctx, store.Txn{Then: []store.Op{
			st.Machines.PutOp(string(id), machine.Machine{ID: id, Name: name, Joined: time.Now(), Key: name}, 0), st.Names.PutOp(name, id, 0),
		}})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

// await waits until yes.
func (c *bed) await(yes func() bool) {
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
func (c *bed) env(out, err *buffer, set map[string]string) Env {
	vars := map[string]string{"HOME": c.home, "FLOTA_ENDPOINT": strings.Join(c.ends, ",")}
	for k, v := range set {
		vars[k] = v
	}
	return Env{In: strings.NewReader(""), Out: out, Err: err, Getenv: func(k string) string { return vars[k] }, Version: "1.2.3",
		Daemon: func(context.Context, daemon.Options) error { return nil }}
}

// as runs a command line under a name of the program.
func (c *bed) as(name string, set map[string]string, args ...string) (stdout, stderr string, code int) {
	var out, err buffer
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	code = Main(ctx, append([]string{name}, args...), c.env(&out, &err, set))
	return out.String(), err.String(), code
}

// try runs flota.
func (c *bed) try(args ...string) (stdout, stderr string, code int) {
	return c.as("flota", nil, args...)
}

// ok runs flota and wants success.
func (c *bed) ok(args ...string) string {
	c.t.Helper()
	out, err, code := c.try(args...)
	if code != 0 {
		c.t.Fatalf("flota %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, err)
	}
	return out
}

// fails runs flota and wants an exit code and words on standard error.
func (c *bed) fails(code int, words string, args ...string) {
	c.t.Helper()
	out, err, got := c.try(args...)
	if got != code || !strings.Contains(err, words) {
		c.t.Errorf("flota %s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), got, code, words, out, err)
	}
}

// file writes a unit file and gives its path.
func (c *bed) file(name, text string) string {
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
