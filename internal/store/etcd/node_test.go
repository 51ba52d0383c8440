package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
	"flota/internal/store"
)

// patient gives a context that only a failing test outlives.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func put(key, value string) store.Txn {
	return store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}}
}

func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	c, ctx := startOn(t, 1, Options{}), patient(t)
	rev, _, err := c.nodes[0].KV().Commit(ctx, put("a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(){func() { _ = c.nodes[0].Close() }, func() { c.nodes[0].halt() }} {
		stopped := c.nodes[0].Stopped()
		end()
		<-stopped
		if _, _, err := c.nodes[0].KV().Get(ctx, "a", store.Read{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a closed member gives %v", err)
		}
		c.start(t, 0)
		c.ready(t, 0)
		it, ok, err := c.nodes[0].KV().Get(ctx, "a", store.Read{})
		if err != nil || !ok || it.Rev != rev {
			t.Errorf("after the restart: %+v, %v, %v", it, ok, err)
		}
	}
	for _, o := range c.opts {
		if st, err := os.Stat(o.Socket); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the socket is %v, %v", st, err)
		}
	}
}

// TestNoQuorum has one of three members left, which did not lead: reads and writes fail with their kind, stale reads and what is known of the members are given, and all is
// well when a second member returns.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c, ctx := startCluster(t, 3), patient(t)
	left := (c.leader(t) + 1) % 3
	inside, outside := c.inside(left), c.dial(t)
	defer inside.Close()
	defer outside.Close()
	rev, _, err := inside.Commit(ctx, put("a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := outside.Get(ctx, "a", store.Read{}); err != nil {
		t.Fatal(err)
	}
	away := outside.Watch(ctx, "", rev)
	c.kill((left + 1) % 3)
	c.kill((left + 2) % 3)
	var all sync.WaitGroup
	for _, kv := range []store.KV{inside, outside} {
		for what, call := range map[string]func() error{
			"commit": func() error { _, _, err := kv.Commit(context.Background(), put("a", "2")); return err },
			"get":    func() error { _, _, err := kv.Get(context.Background(), "a", store.Read{}); return err },
			"list":   func() error { _, _, err := kv.List(context.Background(), "a", store.Read{}); return err },
			"grant":  func() error { _, err := kv.Grant(context.Background(), time.Minute); return err },
			"renew":  func() error { return kv.Renew(context.Background(), 1) },
			"revoke": func() error { return kv.Revoke(context.Background(), 1) },
		} {
			all.Go(func() {
				if err := call(); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no quorum") {
					t.Errorf("%s gives %v", what, err)
				}
			})
		}
		all.Go(func() {
			if it, ok, err := kv.Get(ctx, "a", store.Read{Stale: true}); err != nil || !ok || it.Rev != rev {
				t.Errorf("stale get gives %+v, %v, %v", it, ok, err)
			}
			if h := kv.Health(ctx); h.Quorum || h.Leader != "" || len(h.Members) != 3 {
				t.Errorf("health is %+v", h)
			}
		})
	}
	all.Wait()
	var last store.Update
	for u := range away {
		last = u
	}
	if !fault.Is(last.Err, fault.Unavailable) {
		t.Errorf("a client's watch at a member without a quorum ends with %v", last.Err)
	}
	c.start(t, (left+1)%3)
	c.ready(t, (left+1)%3)
	for _, kv := range []store.KV{inside, outside} {
		for {
			_, ok, err := kv.Commit(ctx, put("a", "3"))
			if ok {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("with a quorum again: %v", err)
			}
		}
		if h := kv.Health(ctx); !h.Quorum || h.Leader == "" {
			t.Errorf("health is %+v", h)
		}
	}
}

// TestDiskQuota fills the store: it says so, and reads go on.
func TestDiskQuota(t *testing.T) {
	t.Parallel()
	dir := socketDir(t)
	n, err := Start(context.Background(), Options{Dir: filepath.Join(dir, "m1"), Name: "m1", PeerAddr: freeAddrs(t, 1)[0], QuotaBytes: 4 << 20, Log: loud(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, big := patient(t), strings.Repeat("x", 1<<20)
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		_, _, err := n.KV().Commit(ctx, put(fmt.Sprint("k", i), big))
		if err == nil && i < 20 {
			continue
		}
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "disk quota") || fault.Hint(err) == "" {
			t.Errorf("write %d gives %v", i, err)
		}
		break
	}
	if _, ok, err := n.KV().Get(ctx, "k0", store.Read{}); !ok || err != nil {
		t.Errorf("get gives %v, %v", ok, err)
	}
	if h := n.KV().Health(ctx); !h.Quorum || !strings.Contains(h.Trouble, "NOSPACE") {
		t.Errorf("health is %+v", h)
	}
}

// TestListOfLargeValues lists more than one page of what is large, and more keys than one page of what is small.
func TestListOfLargeValues(t *testing.T) {
	t.Parallel()
	c, ctx := startCluster(t, 1), patient(t)
	kv := c.dial(t)
	defer kv.Close()
	big := strings.Repeat("x", 100<<10)
	for i := range 60 {
		if _, _, err := kv.Commit(ctx, put(fmt.Sprintf("large/%03d", i), big)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 55 {
		var txn store.Txn
		for j := range 100 {
			txn.Then = append(txn.Then, store.Op{Key: fmt.Sprintf("small/%03d/%02d", i, j), Value: []byte("x")})
		}
		if _, _, err := kv.Commit(ctx, txn); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]int{"large/": 60, "small/": 5_500, "": 5_560} {
		for _, r := range []store.Read{{}, {Stale: true}} {
			items, _, err := kv.List(ctx, prefix, r)
			if err != nil || len(items) != want {
				t.Errorf("list of %q gives %d items, %v; want %d", prefix, len(items), err, want)
			}
		}
	}
}

func TestStartRefuses(t *testing.T) {
	good := Options{Dir: t.TempDir(), Name: "m1", PeerAddr: "127.0.0.1:7701", Log: loud(t)}
	for name, c := range map[string]struct {
		change func(*Options)
		want   fault.Kind
	}{
		"no name":           {func(o *Options) { o.Name = "" }, fault.Invalid},
		"no directory":      {func(o *Options) { o.Dir = "" }, fault.Invalid},
		"no port":           {func(o *Options) { o.PeerAddr = "127.0.0.1" }, fault.Invalid},
		"a host name":       {func(o *Options) { o.PeerAddr = "localhost:1" }, fault.Invalid},
		"off loopback":      {func(o *Options) { o.PeerAddr = "192.0.2.1:7701" }, fault.Denied},
		"peer off loopback": {func(o *Options) { o.Peers = map[string]string{"m1": o.PeerAddr, "m2": "192.0.2.1:1"} }, fault.Denied},
		"not on the list":   {func(o *Options) { o.Peers = map[string]string{"m2": "127.0.0.1:1"} }, fault.Invalid},
		"a name with =":     {func(o *Options) { o.Name = "m=1" }, fault.Invalid},
	} {
		o := good
		c.change(&o)
		n, err := Start(context.Background(), o)
		if n != nil || !fault.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Start(ended, good); !fault.Is(err, fault.Unavailable) {
		t.Errorf("ended context: %v", err)
	}
	if _, err := Dial(context.Background(), DialOptions{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("dial without a log: %v", err)
	}
}

// TestDamagedData starts on what is not a log: an error, not the end of the process. In a process of its own, because etcd leaves
// files open when it gives up like that.
func TestDamagedData(t *testing.T) {
	const mark = "FLOTA_TEST_DAMAGED"
	if dir := os.Getenv(mark); dir != "" {
		n, err := Start(context.Background(), Options{Dir: dir, Name: "m1", PeerAddr: freeAddrs(t, 1)[0], Log: loud(t)})
		fmt.Printf("started: %v, internal: %v, %v\n", n != nil, err != nil && fault.Is(err, fault.Internal), err)
		os.Exit(0)
	}
	dir := filepath.Join(t.TempDir(), "m1")
	wal := filepath.Join(dir, "member", "wal")
	if err := os.MkdirAll(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wal, "0000000000000000-0000000000000000.wal"), []byte("not a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(patient(t), self, "-test.run=^TestDamagedData$")
	cmd.Env = append(os.Environ(), mark+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "started: false, internal: true") {
		t.Errorf("start gives %v: %s", err, out)
	}
}

// TestDiskFails has the database meet the end of its disk: the member stops, the process goes on. In a process of its own, whose files may not grow.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	const mark = "FLOTA_TEST_DISK"
	if dir := os.Getenv(mark); dir != "" {
		signal.Ignore(syscall.SIGXFSZ)
		limit := syscall.Rlimit{Cur: 66 << 20, Max: 66 << 20} // etcd's log has files of 64 MiB
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		ctx := patient(t)
		n, err := Start(ctx, Options{Dir: dir, Name: "m1", PeerAddr: freeAddrs(t, 1)[0], Socket: dir + ".sock", Log: loud(t), noSync: true})
		if err == nil {
			err = n.Ready(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		outside, err := Dial(ctx, DialOptions{Endpoints: []string{dir + ".sock"}, Log: loud(t)})
		if err != nil {
			t.Fatal(err)
		}
		big := strings.Repeat("x", 1<<20)
		for i := 0; err == nil && i < 200; i++ {
			_, _, err = n.KV().Commit(ctx, put(fmt.Sprint("k", i), big))
		}
		<-n.Stopped()
		_, _, read := n.KV().Get(ctx, "k1", store.Read{Stale: true})
		h := n.KV().Health(ctx)
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, _, far := outside.Get(short, "k1", store.Read{})
		_ = outside.Close()
		_ = n.Close()
		fmt.Printf("write: %q, read: %q, from outside: %q, quorum: %v, removed: %v\n", fault.KindOf(err), fault.KindOf(read), fault.KindOf(far), h.Quorum, n.Removed())
		os.Exit(0)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(patient(t), self, "-test.run=^TestDiskFails$")
	cmd.Env = append(os.Environ(), mark+"="+filepath.Join(socketDir(t), "m1"))
	out, err := cmd.CombinedOutput()
	const want = `write: "unavailable", read: "unavailable", from outside: "unavailable", quorum: false, removed: false`
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("it ends with %v: %s", err, out)
	}
}

func TestProblemKinds(t *testing.T) {
	mine := fault.New(fault.Conflict, "mine")
	for _, c := range []struct {
		err  error
		want fault.Kind
	}{
		{mine, fault.Conflict},
		{context.Canceled, fault.Unavailable},
		{fmt.Errorf("call: %w", context.DeadlineExceeded), fault.Unavailable},
		{errors.New("anything"), fault.Internal},
		{status.Error(codes.Unknown, "raft proposal dropped"), fault.Unavailable},
		{rpctypes.ErrPermissionDenied, fault.Denied},
		{rpctypes.ErrRequestTooLarge, fault.Invalid},
	} {
		if got := problem("test", c.err); fault.KindOf(got) != c.want {
			t.Errorf("%v becomes %v of kind %q, want %q", c.err, got, fault.KindOf(got), c.want)
		}
	}
}

// TestDialer reaches the members through a function that knows what their names mean, and goes on when one dies.
func TestDialer(t *testing.T) {
	t.Parallel()
	c, ctx := startCluster(t, 3), patient(t)
	sockets := map[string]string{}
	var names []string
	for _, o := range c.opts {
		name := o.Name + ":7700"
		names, sockets[name] = append(names, name), o.Socket
	}
	kv, err := Dial(ctx, DialOptions{Endpoints: names, Log: loud(t), Dialer: func(ctx context.Context, name string) (net.Conn, error) {
		if sockets[name] == "" {
			return nil, fmt.Errorf("nobody is called %q", name)
		}
		return (&net.Dialer{}).DialContext(ctx, "unix", sockets[name])
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer kv.Close()
	if _, _, err := kv.Commit(ctx, put("a", "1")); err != nil {
		t.Fatal(err)
	}
	follower := (c.leader(t) + 1) % 3
	c.kill(follower)
	for i := range 50 {
		// A call that was on its way to the dead one may fail, no other.
		if _, _, err := kv.Commit(ctx, put("a", fmt.Sprint(i))); err != nil && i > 0 {
			t.Errorf("write %d after a follower's death: %v", i, err)
		}
	}
	c.start(t, follower)
	c.ready(t, follower)
	if h := kv.Health(ctx); !h.Quorum || len(h.Members) != 3 || h.Trouble != "" {
		t.Errorf("health is %+v", h)
	}
}
