package etcd

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/store"
	"flota/internal/store/storetest"
)

// TestMain finds goroutines left behind, but for those of idle HTTP connections between members, which etcd leaves
// to their timeouts.
func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "40") // about 10 s; the command line may say otherwise
	_ = flag.Set("test.parallel", "8") // the tests wait for leases and elections more than they compute
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	)
}

// loud logs to the test, unless it is over.
func loud(t testing.TB) *slog.Logger {
	if os.Getenv("FLOTA_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// freeAddrs gives n loopback addresses that nobody listens on.
func freeAddrs(t testing.TB, n int) (addrs []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs
}

// socketDir is a directory whose path is short enough for a unix socket.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "flota")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// cluster is n members in this process.
type cluster struct {
	opts  []Options
	mu    sync.Mutex // guards nodes; nil is one that does not run
	nodes []*Node
}

// startCluster starts n members that find each other, and waits until they do.
func startCluster(t testing.TB, n int) *cluster {
	t.Helper()
	return startOn(t, n, Options{noSync: true})
}

// startOn is startCluster with further options.
func startOn(t testing.TB, n int, o Options) *cluster {
	t.Helper()
	dir, addrs := socketDir(t), freeAddrs(t, n)
	peers := map[string]string{}
	for i, a := range addrs {
		peers[fmt.Sprint("m", i+1)] = a
	}
	c := &cluster{nodes: make([]*Node, n)}
	for i, a := range addrs {
		name := fmt.Sprint("m", i+1)
		o.Dir, o.Name, o.PeerAddr, o.Peers = filepath.Join(dir, name), name, a, peers
		o.Socket, o.Log = filepath.Join(dir, name+".sock"), loud(t)
		c.opts = append(c.opts, o)
	}
	t.Cleanup(func() { c.stop() })
	for i := range c.opts {
		c.start(t, i)
	}
	for i := range c.opts {
		c.ready(t, i)
	}
	return c
}

func (c *cluster) start(t testing.TB, i int) {
	t.Helper()
	n, err := Start(context.Background(), c.opts[i])
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = n
}

func (c *cluster) ready(t testing.TB, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.nodes[i].Ready(ctx); err != nil {
		t.Fatalf("ready: %v", err)
	}
}

// kill halts member i.
func (c *cluster) kill(i int) {
	c.mu.Lock()
	n := c.nodes[i]
	c.nodes[i] = nil
	c.mu.Unlock()
	if n != nil {
		n.halt()
	}
}

func (c *cluster) stop() {
	var all sync.WaitGroup
	for i := range c.nodes {
		all.Go(func() { c.kill(i) })
	}
	all.Wait()
}

// leader gives the place of the member that leads.
func (c *cluster) leader(t testing.TB) int {
	t.Helper()
	for i, n := range c.nodes {
		if n != nil && n.Leads() {
			return i
		}
	}
	t.Fatal("nobody leads")
	return 0
}

// dial gives a client of all members.
func (c *cluster) dial(t testing.TB) store.KV {
	t.Helper()
	var sockets []string
	for _, o := range c.opts {
		sockets = append(sockets, o.Socket)
	}
	kv, err := Dial(context.Background(), DialOptions{Endpoints: sockets, Log: loud(t)})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return kv
}

// inside is a client of member i within this process that leaves the member's own one open.
func (c *cluster) inside(i int) store.KV { return c.nodes[i].inside() }

// compact forgets what was before rev.
func (c *cluster) compact(ctx context.Context, rev int64) error {
	for _, n := range c.nodes {
		if n != nil {
			_, err := n.kv.c.Compact(ctx, rev)
			return err
		}
	}
	return nil
}

func TestConformanceInside(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	storetest.Run(t, func(t *testing.T) storetest.Bed {
		return storetest.Bed{Open: func(*testing.T) store.KV { return c.inside(0) }, Compact: c.compact}
	})
}

func TestConformanceDialled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	storetest.Run(t, func(t *testing.T) storetest.Bed {
		return storetest.Bed{Open: func(t *testing.T) store.KV { return c.dial(t) }, Compact: c.compact}
	})
}

// TestConformanceThree has each test's clients spread over three members; one of them is killed in the last test.
func TestConformanceThree(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	storetest.Run(t, func(t *testing.T) storetest.Bed {
		return storetest.Bed{
			Open:       func(t *testing.T) store.KV { return c.dial(t) },
			Compact:    c.compact,
			KillLeader: func(t *testing.T) { c.kill(c.leader(t)) },
		}
	})
}
