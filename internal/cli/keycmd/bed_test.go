package keycmd

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"

	"flota/internal/api"
	"flota/internal/fault"
)

// front is the address of an etcd that all tests share; each begins with fresh.
var front string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "keycmd")
	if err != nil {
		panic(err)
	}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync = dir, "fatal", true
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		panic(err)
	}
	<-e.Server.ReadyNotify()
	front = e.Clients[0].Addr().String()
	code := m.Run()
	e.Close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// exited is what Env.Exit gives here.
type exited int

func (e exited) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// buffer may be written and read by several goroutines.
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

// run is one command line: `flota key args`, with text on standard input. Commands end with ctx.
func run(ctx context.Context, in string, out, errs *buffer, args ...string) error {
	json := false
	root := &cobra.Command{Use: "flota", SilenceErrors: true, SilenceUsage: true}
	root.PersistentFlags().BoolVar(&json, "json", false, "")
	root.AddCommand(New(Env{In: strings.NewReader(in), Out: out, Err: errs, JSON: func() bool { return json },
		Getenv: func(k string) string { return map[string]string{"FLOTA_KEYS": front}[k] },
		API:    func() (*api.Client, error) { return nil, fault.New(fault.Unavailable, "no cluster here") },
		Exit:   func(code int) error { return exited(code) },
		Help:   func(c *cobra.Command, _ []string) error { return c.Help() },
	}))
	root.SetArgs(append([]string{"key"}, args...))
	return root.ExecuteContext(ctx)
}

// ok runs a command that must succeed and gives what it printed.
func ok(t *testing.T, in string, args ...string) string {
	t.Helper()
	var out, errs buffer
	if err := run(t.Context(), in, &out, &errs, args...); err != nil {
		t.Fatalf("flota key %s: %v (%s)", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// wants runs a command and compares what it prints.
func wants(t *testing.T, want string, args ...string) {
	t.Helper()
	if got := ok(t, "", args...); got != want {
		t.Errorf("flota key %s:\n%s\nwant\n%s", strings.Join(args, " "), got, want)
	}
}

// fails runs a command that must fail with an error of the kind.
func fails(t *testing.T, kind fault.Kind, in string, args ...string) {
	t.Helper()
	var out, errs buffer
	if err := run(t.Context(), in, &out, &errs, args...); !fault.Is(err, kind) {
		t.Errorf("flota key %s: %v, want %s (%s)", strings.Join(args, " "), err, kind, out.String())
	}
}

// etcd gives a client of the etcd itself.
func etcd(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{front}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// fresh deletes all keys, so that a test begins with none. Tests do not run side by side.
func fresh(t *testing.T) *clientv3.Client {
	t.Helper()
	c := etcd(t)
	if _, err := c.Delete(t.Context(), "\x00", clientv3.WithFromKey()); err != nil {
		t.Fatal(err)
	}
	return c
}

// await waits until yes, or fails after 10 s.
func await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(10 * time.Second); !yes(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
