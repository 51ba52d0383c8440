package etcd

import (
	"context"
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/store/storetest"
)

// apart is an etcd that is not Flota's.
type apart struct {
	ca       *authority
	endpoint string
	o        ExternalOptions
	raw      *clientv3.Client
}

func newApart(t testing.TB) (a *apart, cert, key string) {
	t.Helper()
	a = &apart{ca: newAuthority(t), endpoint: "https://" + freeAddrs(t, 1)[0]}
	cert, key = a.ca.issue(t, "server", "127.0.0.1")
	a.o = ExternalOptions{Endpoints: []string{a.endpoint}, CA: a.ca.file, Prefix: "ours/", Log: loud(t)}
	a.o.Cert, a.o.Key = a.ca.issue(t, "machine", "127.0.0.1")
	return a, cert, key
}

// connect waits until it answers.
func (a *apart) connect(t testing.TB) {
	t.Helper()
	conf, err := a.o.tls()
	if err != nil {
		t.Fatal(err)
	}
	a.raw, err = clientv3.New(clientv3.Config{Endpoints: a.o.Endpoints, TLS: conf, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.raw.Close() })
	again(t, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := a.raw.Get(ctx, "x")
		return problem("wait", err)
	})
}

// startApart runs etcd as a program of its own would, with TLS for its clients.
func startApart(t testing.TB) *apart {
	t.Helper()
	a, cert, key := newApart(t)
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.UnsafeNoFsync = "theirs", t.TempDir(), true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.MaxRequestBytes, cfg.BcryptCost = 2<<20, 4 // bcrypt's least
	client, _ := url.Parse(a.endpoint)
	peer, _ := url.Parse("http://" + freeAddrs(t, 1)[0])
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.InitialCluster = "theirs=" + peer.String()
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: a.ca.file, ClientCertAuth: true}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Server.HardStop()
		e.Close()
	})
	<-e.Server.ReadyNotify()
	a.connect(t)
	return a
}

// startInstalled runs the machine's own etcd program, if there is one.
func startInstalled(t testing.TB) *apart {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("no etcd is installed")
	}
	a, cert, key := newApart(t)
	peer := "http://" + freeAddrs(t, 1)[0]
	cmd := exec.Command(program, "--name", "theirs", "--data-dir", t.TempDir(), "--listen-client-urls", a.endpoint, "--advertise-client-urls", a.endpoint,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "theirs="+peer, "--cert-file", cert, "--key-file", key,
		"--trusted-ca-file", a.ca.file, "--client-cert-auth", "--max-request-bytes", "2097152")
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	a.connect(t)
	return a
}

func (a *apart) open(t *testing.T) store.KV {
	t.Helper()
	kv, err := External(context.Background(), a.o)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// bed forgets from one revision earlier: an external etcd's changes at the very revision of the compaction are not relied on, see kept.
func (a *apart) bed(*testing.T) storetest.Bed {
	return storetest.Bed{Open: a.open, Compact: func(ctx context.Context, rev int64) error {
		_, err := a.raw.Compact(ctx, rev-1)
		return err
	}}
}

func TestConformanceExternal(t *testing.T) {
	t.Parallel()
	storetest.Run(t, startApart(t).bed)
}

func TestConformanceExternalInstalled(t *testing.T) {
	t.Parallel()
	storetest.Run(t, startInstalled(t).bed)
}

// TestExternalPrefix: nothing outside of the prefix is seen or touched, and what is ours is where it was said to be.
func TestExternalPrefix(t *testing.T) {
	t.Parallel()
	a, ctx := startApart(t), patient(t)
	for _, k := range []string{"a", "ours", "ours0", "z"} {
		if _, err := a.raw.Put(ctx, k, "theirs"); err != nil {
			t.Fatal(err)
		}
	}
	kv := a.open(t)
	defer kv.Close()
	rev := write(t, kv, "k", "1")
	w := kv.Watch(ctx, "", rev)
	<-w
	if _, err := a.raw.Put(ctx, "ours0", "theirs"); err != nil {
		t.Fatal(err)
	}
	next := write(t, kv, "k", "2")
	for u := range w {
		if u.Err != nil || len(u.Events) > 0 && (u.Rev != next || u.Events[0].Key != "k") {
			t.Errorf("the watch gives %+v", u)
		}
		if u.Rev == next {
			break
		}
	}
	if items, _, err := kv.List(ctx, "", store.Read{}); err != nil || len(items) != 1 || items[0].Key != "k" {
		t.Errorf("list gives %+v, %v", items, err)
	}
	got, err := a.raw.Get(ctx, "ours/k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "2" {
		t.Errorf("their etcd has %+v, %v", got, err)
	}
	if h := kv.Health(ctx); !h.Quorum || len(h.Members) != 1 || h.Leader != "theirs" {
		t.Errorf("health is %+v", h)
	}
}

// TestExternalUser signs in with etcd's own users, allowed our prefix only.
func TestExternalUser(t *testing.T) {
	t.Parallel()
	a, ctx := startApart(t), patient(t)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.raw.RoleAdd(ctx, "ours"))
	must(a.raw.RoleGrantPermission(ctx, "ours", "ours/", "ours0", clientv3.PermissionType(clientv3.PermReadWrite)))
	must(a.raw.UserAdd(ctx, "root", "secret"))
	must(a.raw.UserGrantRole(ctx, "root", "root"))
	must(a.raw.UserAdd(ctx, "flota", "pass"))
	must(a.raw.UserGrantRole(ctx, "flota", "ours"))
	must(a.raw.AuthEnable(ctx))

	a.o.User, a.o.Password = "flota", "wrong"
	if _, err := External(ctx, a.o); !fault.Is(err, fault.Denied) || fault.Hint(err) == "" {
		t.Errorf("a wrong password gives %v", err)
	}
	a.o.Password = "pass"
	kv := a.open(t)
	defer kv.Close()
	rev := write(t, kv, "k", "1")
	if u := <-kv.Watch(ctx, "", rev); u.Err != nil {
		t.Errorf("a watch gives %v", u.Err)
	}
	lease, err := kv.Grant(ctx, time.Minute)
	if err != nil || kv.Renew(ctx, lease) != nil || kv.Revoke(ctx, lease) != nil {
		t.Errorf("a lease: %v", err)
	}
	if h := kv.Health(ctx); !h.Quorum {
		t.Errorf("health is %+v", h)
	}
	a.o.Prefix = "other/"
	other := a.open(t)
	defer other.Close()
	if _, _, err := other.Commit(ctx, put("k", "1")); !fault.Is(err, fault.Denied) {
		t.Errorf("another prefix gives %v", err)
	}
}

func TestExternalRefuses(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "m1", "127.0.0.1")
	good := ExternalOptions{Endpoints: []string{"https://127.0.0.1:1"}, CA: ca.file, Cert: cert, Key: key, Log: loud(t)}
	for name, c := range map[string]struct {
		change func(*ExternalOptions)
		want   fault.Kind
	}{
		"no endpoint":    {func(o *ExternalOptions) { o.Endpoints = nil }, fault.Invalid},
		"no log":         {func(o *ExternalOptions) { o.Log = nil }, fault.Invalid},
		"no key":         {func(o *ExternalOptions) { o.Key = "" }, fault.Invalid},
		"no port":        {func(o *ExternalOptions) { o.Endpoints[0] = "https://a" }, fault.Invalid},
		"no scheme":      {func(o *ExternalOptions) { o.Endpoints[0] = "a:2379" }, fault.Invalid},
		"a path":         {func(o *ExternalOptions) { o.Endpoints[0] = "https://a:2379/v3" }, fault.Invalid},
		"plain":          {func(o *ExternalOptions) { o.Endpoints[0] = "http://192.0.2.1:2379" }, fault.Denied},
		"plain, a name":  {func(o *ExternalOptions) { o.Endpoints[0] = "http://etcd:2379" }, fault.Denied},
		"mixed":          {func(o *ExternalOptions) { o.Endpoints = append(o.Endpoints, "http://127.0.0.1:1") }, fault.Invalid},
		"no authorities": {func(o *ExternalOptions) { o.CA = filepath.Join(t.TempDir(), "none") }, fault.Invalid},
		"a key as CA":    {func(o *ExternalOptions) { o.CA = key }, fault.Invalid},
		"a wrong key":    {func(o *ExternalOptions) { o.Key = ca.file }, fault.Invalid},
		"nobody there":   {func(o *ExternalOptions) { o.User, o.Password = "u", "p" }, fault.Unavailable},
	} {
		o := good
		o.Endpoints = append([]string{}, good.Endpoints...)
		c.change(&o)
		if kv, err := External(context.Background(), o); kv != nil || !fault.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	kv, err := External(context.Background(), good)
	if err != nil {
		t.Fatal(err)
	}
	defer kv.Close()
	if _, _, err := kv.Get(context.Background(), "k", store.Read{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}
