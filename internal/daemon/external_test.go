package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/store/mem"
	"flota/internal/trust"
)

// TestStoreIsRecalled: a later start without flags means the same store, and a cluster does not move from its own store to another one.
func TestStoreIsRecalled(t *testing.T) {
	theirs := &external{Endpoints: []string{"https://a:2379"}, Cert: "/c", Key: "/k", CA: "/ca", Prefix: "p/"}
	signed := *theirs
	signed.User = "flota"
	given := &etcd.ExternalOptions{Endpoints: []string{"https://b:2379"}}
	for name, c := range map[string]struct {
		given *etcd.ExternalOptions
		self  self
		want  string // the first endpoint
		kind  fault.Kind
	}{
		"nothing":                 {},
		"first start":             {given: given, want: "https://b:2379"},
		"again, without flags":    {self: self{Founded: true, Store: theirs}, want: "https://a:2379"},
		"again, elsewhere":        {given: given, self: self{Founded: true, Store: theirs}, want: "https://b:2379"},
		"joined without it first": {given: given, self: self{Name: "m2"}, want: "https://b:2379"},
		"had a store of its own":  {given: given, self: self{Founded: true}, kind: fault.Conflict},
		"password is not stored":  {self: self{Store: &signed}, kind: fault.Invalid},
	} {
		o, err := Options{External: c.given}.recallStore(c.self)
		if c.kind != fault.KindOf(nil) || err != nil {
			if !fault.Is(err, c.kind) || fault.Hint(err) == "" {
				t.Errorf("%s: %v, hint %q", name, err, fault.Hint(err))
			}
			continue
		}
		if (o.External != nil) != (c.want != "") || o.External != nil && o.External.Endpoints[0] != c.want {
			t.Errorf("%s: %+v", name, o.External)
		}
	}
	o, err := Options{}.recallStore(self{Store: theirs})
	if err != nil || o.External.Cert != "/c" || o.External.Key != "/k" || o.External.CA != "/ca" || o.External.Prefix != "p/" {
		t.Errorf("%+v, %v", o.External, err)
	}
}

// machineOn is a machine with an identity, whose external store is in memory.
func machineOn(t *testing.T, founded bool) *machineNow {
	t.Helper()
	dir := t.TempDir()
	id := machine.ID(strings.Repeat("a", 32))
	m := &machineNow{home: &home{dir: dir, id: id}, external: mem.New(), evicted: make(chan machine.Gone, 1)}
	t.Cleanup(func() { _ = m.external.Close() })
	m.Options = Options{Name: "m1", Addr: "127.0.0.1", Log: slog.New(slog.DiscardHandler),
		External: &etcd.ExternalOptions{Endpoints: []string{"https://a:2379"}, Cert: "rel.crt", User: "u", Password: "secret", Prefix: "p/"}}
	m.self.Founded = founded
	var err error
	m.identity, err = trust.Found(trust.Options{Dir: filepath.Join(dir, "trust"), Log: m.Log},
		trust.Subject{ID: id, Name: "m1", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err == nil {
		err = m.rememberSelf()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestStoreIsRemembered: paths are found from any folder later, and the password is nowhere.
func TestStoreIsRemembered(t *testing.T) {
	m := machineOn(t, true)
	text, err := os.ReadFile(m.home.path(selfFile))
	if err != nil || strings.Contains(string(text), "secret") || !filepath.IsAbs(m.self.Store.Cert) || !UsesExternal(m.home.dir) {
		t.Errorf("%s, %v", text, err)
	}
	if UsesExternal(t.TempDir()) {
		t.Error("a machine that is none has an external store")
	}
}

// TestStoreIsChecked: only a store with this machine's cluster is used, and an empty one exactly once, by the machine that makes the cluster.
func TestStoreIsChecked(t *testing.T) {
	ctx := context.Background()
	refused := func(m *machineNow, words string) {
		t.Helper()
		if err := m.checkStore(ctx); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), words) || fault.Hint(err) == "" {
			t.Errorf("want %q: %v", words, err)
		}
	}
	put := func(m *machineNow, id string) {
		t.Helper()
		if err := store.New(m.external).Cluster.Put(ctx, store.ThisCluster, machine.Cluster{ID: id}, 0); err != nil {
			t.Fatal(err)
		}
	}
	refused(machineOn(t, false), "holds no cluster")
	m := machineOn(t, true)
	if err := m.checkStore(ctx); err != nil || m.self.Store.Used {
		t.Errorf("the first start of the first machine: %v", err)
	}
	put(m, strings.Repeat("b", 32))
	refused(m, "holds cluster bbbbbbbb")
	put(m, m.identity.Cluster())
	if err := m.checkStore(ctx); err != nil || !m.self.Store.Used {
		t.Errorf("its own cluster: %v", err)
	}
	if _, err := store.New(m.external).Cluster.Delete(ctx, store.ThisCluster); err != nil {
		t.Fatal(err)
	}
	refused(m, "holds no cluster")
}

// TestRemovedMachineLearnsOfIt before it uses the store, whose credentials it has still.
func TestRemovedMachineLearnsOfIt(t *testing.T) {
	ctx, m := context.Background(), machineOn(t, false)
	st := store.New(m.external)
	if err := st.Cluster.Put(ctx, store.ThisCluster, machine.Cluster{ID: m.identity.Cluster()}, 0); err != nil {
		t.Fatal(err)
	}
	if err := st.Removed.Put(ctx, string(m.home.id), machine.Gone{ID: m.home.id, Name: "m1", Reason: "test"}, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.checkStore(ctx); err != errGone {
		t.Errorf("%v", err)
	}
	if g := <-m.evicted; g.Reason != "test" {
		t.Errorf("%+v", g)
	}
}
