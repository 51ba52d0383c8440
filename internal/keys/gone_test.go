package keys

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"flota/internal/keys/v2"
)

// TestGoneClients cuts the wire to clients that wait: nobody says goodbye. They are forgotten, whether something was on its way to them or not,
// and who is there goes on.
func TestGoneClients(t *testing.T) {
	oldProbes, oldWait := probes, goneWait
	t.Cleanup(func() { probes, goneWait = oldProbes, oldWait })
	probes = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}
	goneWait = 3 * time.Second
	far := newWire(t)
	var l net.Listener
	b := newBed(t, 1, false, func(o *Options) {
		_ = o.Listen.Close()
		var err error
		if l, err = net.Listen("tcp", far.here+":0"); err != nil {
			t.Fatal(err)
		}
		o.Listen = l
		o.V2 = func(c *clientv3.Client) Handler {
			return v2.New(v2.Options{Client: c, Members: func(context.Context) []v2.Member { return nil }, Log: slog.New(slog.DiscardHandler)})
		}
	})
	b.boxes[0].addr = l.Addr().String()
	ctx := patientCtx(t)
	near := b.dial(0)
	if _, err := near.Put(ctx, "/near", "1"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/version", "/v2/keys/quiet?wait=true", "/v2/keys/loud?wait=true&stream=true"} {
		c, err := far.dial(ctx, b.boxes[0].addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", path, resp, err)
		}
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{b.boxes[0].addr}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithContextDialer(far.dial)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, key := range []string{"/quiet", "/loud"} {
		if r := <-c.Watch(ctx, key, clientv3.WithCreatedNotify()); r.Err() != nil {
			t.Fatal(r.Err())
		}
	}
	if n := far.open(t, l); n != 4 {
		t.Fatalf("%d connections, want 4", n)
	}
	far.cut(t)
	if _, err := near.Put(ctx, "/loud", "somebody there?"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for far.open(t, l) > 0 || b.boxes[0].front.guard.watches.Load() > 1 { // one is v2's own
		if ctx.Err() != nil {
			t.Fatalf("after %s %d connections and %d watches are left", time.Since(began), far.open(t, l), b.boxes[0].front.guard.watches.Load())
		}
		pause(ctx, 20*time.Millisecond)
	}
	t.Logf("all were forgotten after %s", time.Since(began).Round(100*time.Millisecond))
	if _, err := near.Put(ctx, "/near", "2"); err != nil {
		t.Error(err)
	}
}

// wire is a network with another machine at its far end, as far as the kernel is concerned.
type wire struct {
	space, here string // name of the far end's network namespace; address of this end
}

// newWire lays one, and takes it up again with the test.
func newWire(t *testing.T) *wire {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed: scripts/setup does that")
	}
	n := os.Getpid() % 16000
	w := &wire{space: fmt.Sprint("flota", n), here: fmt.Sprintf("10.213.%d.%d", n/64, n%64*4+1)}
	there := fmt.Sprintf("10.213.%d.%d", n/64, n%64*4+2)
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", w.space+"a").Run() // or the namespace takes it with it, once nobody uses it
		_ = exec.Command("ip", "netns", "del", w.space).Run()
	})
	for _, args := range []string{
		"netns add S", "link add Sa type veth peer name Sb netns S", "addr add " + w.here + "/30 dev Sa", "link set Sa up",
		"-n S addr add " + there + "/30 dev Sb", "-n S link set Sb up",
	} {
		if out, err := exec.Command("ip", strings.Fields(strings.ReplaceAll(args, "S", w.space))...).CombinedOutput(); err != nil {
			t.Skipf("no network namespace can be made here: ip %s: %s", args, out)
		}
	}
	return w
}

// dial connects from the far end.
func (w *wire) dial(ctx context.Context, addr string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var home, far *os.File
		if home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		defer home.Close()
		if far, err = os.Open("/run/netns/" + w.space); err != nil {
			return
		}
		defer far.Close()
		if err = unix.Setns(int(far.Fd()), unix.CLONE_NEWNET); err == nil {
			c, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread is given up
		}
	}()
	<-done
	return c, err
}

// cut cuts it.
func (w *wire) cut(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("ip", "-n", w.space, "link", "set", w.space+"b", "down").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// open counts the connections of a listener that come over the wire.
func (w *wire) open(t *testing.T, l net.Listener) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	own := reversed(net.ParseIP(w.here))
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[1] == fmt.Sprintf("%s:%04X", own, port) && !strings.HasPrefix(f[2], own) && f[3] != "0A" && f[3] != "06" {
			n++
		}
	}
	return n
}

// reversed gives an address as the kernel's table has it on little-endian machines.
func reversed(ip net.IP) string {
	ip = ip.To4()
	return strings.ToUpper(hex.EncodeToString([]byte{ip[3], ip[2], ip[1], ip[0]}))
}
