package v2

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"flota/internal/store/etcd"
)

// bed is the API over a real store in this process.
type bed struct {
	api    *API
	url    string
	client *clientv3.Client // sees what the API's client sees
	raw    *clientv3.Client // sees all keys
}

func quiet(t testing.TB) *slog.Logger {
	if os.Getenv("FLOTA_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// freeAddr gives a loopback address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// startNode runs a store of one member.
func startNode(t testing.TB) *etcd.Node {
	t.Helper()
	n, err := etcd.Start(context.Background(), etcd.Options{Dir: filepath.Join(t.TempDir(), "m1"), Name: "m1", PeerAddr: freeAddr(t), Log: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

// confined gives a client that sees only what begins with user/.
func confined(t testing.TB, n *etcd.Node) (c, raw *clientv3.Client) {
	t.Helper()
	c, raw = v3client.New(n.Server()), v3client.New(n.Server())
	t.Cleanup(func() { _, _ = c.Close(), raw.Close() })
	c.KV = namespace.NewKV(c.KV, "user/")
	c.Watcher = namespace.NewWatcher(copying{c.Watcher}, "user/")
	c.Lease = namespace.NewLease(c.Lease, "user/")
	return c, raw
}

// copying gives copies of events: those of an in-process watch are shared with all others, and namespace writes into them.
type copying struct{ clientv3.Watcher }

// Watch implements clientv3.Watcher.
func (w copying) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	in, out := w.Watcher.Watch(ctx, key, opts...), make(chan clientv3.WatchResponse)
	copied := func(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
		if kv == nil {
			return nil
		}
		return &mvccpb.KeyValue{Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
	}
	go func() {
		defer close(out)
		for resp := range in {
			for i, e := range resp.Events {
				resp.Events[i] = &clientv3.Event{Type: e.Type, Kv: copied(e.Kv), PrevKv: copied(e.PrevKv)}
			}
			select {
			case out <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// newBed serves the API of one machine on a store of its own.
func newBed(t testing.TB, change func(*Options)) *bed {
	t.Helper()
	n := startNode(t)
	return serve(t, n, change)
}

// serve is another machine's API on the same store.
func serve(t testing.TB, n *etcd.Node, change func(*Options)) *bed {
	t.Helper()
	b := &bed{}
	b.client, b.raw = confined(t, n)
	o := Options{Client: b.client, Log: quiet(t)}
	o.Members = func(context.Context) []Member {
		return []Member{{ID: 0x946a60da48096010, Name: "n1", PeerURLs: []string{"http://127.7.9.1:2380"}, ClientURLs: []string{b.url}, Leader: true, Self: true}}
	}
	if change != nil {
		change(&o)
	}
	b.api = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.api.Run(ctx) }()
	srv := httptest.NewUnstartedServer(b.api)
	b.url = "http://" + srv.Listener.Addr().String()
	srv.Start()
	t.Cleanup(func() {
		cancel()
		<-done
		srv.CloseClientConnections()
		srv.Close()
	})
	return b
}

// client for tests, with as many connections as are asked for.
func browser(t testing.TB) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 200}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
