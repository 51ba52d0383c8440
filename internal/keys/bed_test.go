package keys

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"flota/internal/fault"
	"flota/internal/store/etcd"
)

// TestMain finds goroutines left behind, but for those of idle HTTP connections between members, which etcd leaves to their timeouts.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	)
}

// loud logs to the test if asked to.
func loud(t testing.TB) *slog.Logger {
	if os.Getenv("FLOTA_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// patientCtx gives a context that only a failing test outlives.
func patientCtx(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// box is one machine.
type box struct {
	opts  etcd.Options
	addr  string // of its front
	node  *etcd.Node
	front *Front
	end   func() // ends the front
}

// bed is some voters, and after them one machine without a member if there is to be one, in this process.
type bed struct {
	t      testing.TB
	change func(*Options)
	mu     sync.Mutex // guards boxes' node, front and end
	boxes  []*box
}

// newBed starts voters, and an edge after them; change may be nil.
func newBed(t testing.TB, voters int, edge bool, change func(*Options)) *bed {
	t.Helper()
	dir := t.TempDir()
	b := &bed{t: t, change: change}
	peers := map[string]string{}
	for i := range voters {
		peers[fmt.Sprint("m", i+1)] = freeAddr(t)
	}
	for i := range voters {
		name := fmt.Sprint("m", i+1)
		addr := freeAddr(t)
		b.boxes = append(b.boxes, &box{addr: addr, opts: etcd.Options{
			Dir: filepath.Join(dir, name), Name: name, PeerAddr: peers[name], Peers: peers, ClientAddr: addr, Log: loud(t),
		}})
	}
	t.Cleanup(b.stop)
	for i := range voters {
		b.start(i)
	}
	for i := range voters {
		if err := b.boxes[i].node.Ready(patientCtx(t)); err != nil {
			t.Fatal(err)
		}
	}
	if edge {
		b.boxes = append(b.boxes, &box{addr: freeAddr(t)})
		b.serve(voters, Options{Forward: b.forward()})
	}
	return b
}

func freeAddr(t testing.TB) string {
	t.Helper()
	// On an address of its own, so that no connection that somebody opens takes the port meanwhile.
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// forward connects to the voters' fronts in turn.
func (b *bed) forward() func(context.Context) (net.Conn, error) {
	var turn atomic.Int64
	return func(ctx context.Context) (net.Conn, error) {
		b.mu.Lock()
		var up []*Front
		for _, x := range b.boxes {
			if x.node != nil && x.front != nil {
				up = append(up, x.front)
			}
		}
		b.mu.Unlock()
		if len(up) == 0 {
			return nil, fault.New(fault.Unavailable, "no voter is there")
		}
		return up[int(turn.Add(1))%len(up)].Conn(ctx)
	}
}

// start starts voter i and its front.
func (b *bed) start(i int) {
	b.t.Helper()
	n, err := etcd.Start(context.Background(), b.boxes[i].opts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.boxes[i].node = n
	b.mu.Unlock()
	b.serve(i, Options{Node: n})
}

func (b *bed) serve(i int, o Options) {
	b.t.Helper()
	var err error
	if o.Listen, err = net.Listen("tcp", b.boxes[i].addr); err != nil {
		b.t.Fatal(err)
	}
	o.Log = loud(b.t)
	if b.change != nil {
		b.change(&o)
	}
	f, err := New(o)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil {
			b.t.Errorf("front %d: %v", i, err)
		}
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.boxes[i].front = f
	b.boxes[i].end = func() { cancel(); <-done }
}

// kill ends a machine as a power cut would, as far as that goes in one process.
func (b *bed) kill(i int) {
	b.mu.Lock()
	x := b.boxes[i]
	n, end := x.node, x.end
	x.node, x.front, x.end = nil, nil, nil
	b.mu.Unlock()
	if n != nil {
		n.Server().HardStop()
	}
	if end != nil {
		end()
	}
	if n != nil {
		_ = n.Close()
	}
}

func (b *bed) stop() {
	var all sync.WaitGroup
	for i := len(b.boxes) - 1; i >= 0; i-- {
		all.Go(func() { b.kill(i) })
	}
	all.Wait()
}

// dial gives a client of one machine's front, as an application makes one.
func (b *bed) dial(i int) *clientv3.Client {
	b.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{b.boxes[i].addr}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}
