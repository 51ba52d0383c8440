package backup

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/trust"
	"flota/internal/trust/token"
	"flota/internal/unit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	cluster = "0123456789abcdef0123456789abcdef"
	m1      = machine.ID("11111111111111111111111111111111")
	m2      = machine.ID("22222222222222222222222222222222")
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// patient bounds one test's calls.
func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// startStore runs a store of one member; it ends with the test.
func startStore(t testing.TB, dir, name string) *etcd.Node {
	t.Helper()
	n, err := etcd.Start(patient(t), etcd.Options{Dir: dir, Name: name, PeerAddr: nowhere, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if err := n.Ready(patient(t)); err != nil {
		t.Fatal(err)
	}
	return n
}

// authority is the cluster's.
var authority = sync.OnceValue(func() Trust {
	a, err := trust.NewAuthority(cluster, nil, time.Now())
	if err != nil {
		panic(err)
	}
	key, err := a.PEM()
	if err != nil {
		panic(err)
	}
	return Trust{Bundle: a.Certificate(), Key: key}
})

func about() Manifest {
	return Manifest{Version: "test", Cluster: cluster, Epoch: 3, Machine: m1, Name: "m1"}
}

// sourceOf makes backups of a node.
func sourceOf(t testing.TB, n *etcd.Node) Source {
	return Source{About: about, Snapshot: n.Snapshot, Trust: func() (Trust, error) { return authority(), nil }, Scratch: t.TempDir()}
}

// fill puts a small cluster into the store: two machines, two units, applications' keys (n of them), one of them under a lease.
func fill(t testing.TB, n *etcd.Node, keys int) {
	t.Helper()
	ctx, kv := patient(t), n.KV()
	s := store.New(kv)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lease, err := kv.Grant(ctx, time.Hour)
	must(err)
	must(s.Cluster.Create(ctx, store.ThisCluster, machine.Cluster{ID: cluster, Epoch: 3}))
	for id, name := range map[machine.ID]string{m1: "m1", m2: "m2"} {
		must(s.Machines.Create(ctx, string(id), machine.Machine{ID: id, Name: name}))
		must(s.Names.Create(ctx, name, id))
		must(s.Alive.Put(ctx, string(id), machine.Presence{ID: id, Name: name}, lease))
		must(s.Voters.Put(ctx, string(id), machine.Vote{Machine: id, Role: machine.Voter}, 0))
		must(s.Places.Put(ctx, store.PlaceKey(id, "web.service"), unit.Place{}, 0))
		must(s.States.Put(ctx, store.PlaceKey(id, "web.service"), unit.State{}, lease))
	}
	must(s.Units.Put(ctx, "web.service", unit.Unit{Name: "web.service", Target: unit.Launched}, 0))
	must(s.Units.Put(ctx, "db.service", unit.Unit{Name: "db.service", Target: unit.Launched}, 0))
	must(s.Joins.Put(ctx, "0123456789", token.Token{ID: "0123456789", Uses: 1}, 0))
	_, _, err = kv.Commit(ctx, store.Txn{Then: []store.Op{{Key: "flota/leader", Value: []byte(m1), Lease: lease}, {Key: "user/leased", Value: []byte("1"), Lease: lease}}})
	must(err)
	for from := 0; from < keys; from += 100 {
		var txn store.Txn
		for i := from; i < from+100 && i < keys; i++ {
			txn.Then = append(txn.Then, store.Op{Key: fmt.Sprintf("user/k%05d", i), Value: fmt.Appendf(nil, "value %d", i)})
		}
		_, _, err := kv.Commit(ctx, txn)
		must(err)
	}
	// History that must not be counted: overwritten, deleted, made anew.
	for i := range min(keys, 50) {
		key := fmt.Sprintf("user/k%05d", i)
		_, _, err := kv.Commit(ctx, store.Txn{Then: []store.Op{{Key: key, Value: []byte("new")}}})
		must(err)
		if i%2 == 0 {
			_, _, err = kv.Commit(ctx, store.Txn{Then: []store.Op{{Key: key}}})
			must(err)
		}
	}
	_, _, err = kv.Commit(ctx, store.Txn{Then: []store.Op{{Key: "user/k00000", Value: []byte{}}}})
	must(err)
}

// smallSnapshot is the database of a small cluster, made once.
var small struct {
	sync.Once
	snapshot []byte
}

func smallSnapshot(t testing.TB) []byte {
	t.Helper()
	small.Do(func() {
		n, err := etcd.Start(patient(t), etcd.Options{Dir: filepath.Join(t.TempDir(), "s"), Name: "m1", PeerAddr: nowhere, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.Ready(patient(t)); err != nil {
			t.Fatal(err)
		}
		fill(t, n, 1_500)
		var b bytes.Buffer
		if _, err := n.Snapshot(patient(t), &b); err != nil {
			t.Fatal(err)
		}
		small.snapshot = b.Bytes()
	})
	if small.snapshot == nil {
		t.Fatal("no snapshot")
	}
	return small.snapshot
}

// smallSource makes backups of it without a store.
func smallSource(t testing.TB) Source {
	snapshot := smallSnapshot(t)
	return Source{
		About: about, Trust: func() (Trust, error) { return authority(), nil }, Scratch: t.TempDir(),
		Snapshot: func(_ context.Context, w io.Writer) (int64, error) {
			_, err := w.Write(snapshot)
			return 0, err
		},
	}
}

// written gives a small backup.
func written(t testing.TB, s Seal) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(patient(t), &b, smallSource(t), s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wantKind fails unless err is of the kind.
func wantKind(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("error %v of kind %q, want %q", err, fault.KindOf(err), kind)
	}
}

// newKeyPair makes a key that belongs to nothing.
func newKeyPair(t testing.TB) (public any, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
