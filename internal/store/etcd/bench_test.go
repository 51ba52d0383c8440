package etcd

import (
	"context"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/store"
	"flota/internal/store/mem"
)

// BenchmarkCommit is one guarded put of 256 bytes, by one client after the other; "raw" is clientv3 on the same member, so that etcd against
// raw is what our own layer costs.
func BenchmarkCommit(b *testing.B) {
	c := startOn(b, 1, Options{})
	value := make([]byte, 256)
	outside := c.dial(b)
	defer outside.Close()
	m := mem.New()
	defer m.Close()
	commit := func(kv store.KV) func(b *testing.B) {
		return func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				key := fmt.Sprint("key", i%1000)
				if _, ok, err := kv.Commit(context.Background(), store.Txn{If: []store.Cond{{Key: "guard"}}, Then: []store.Op{{Key: key, Value: value}}}); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		}
	}
	b.Run("mem", commit(m))
	b.Run("etcd", commit(c.nodes[0].KV()))
	b.Run("socket", commit(outside))
	b.Run("raw", func(b *testing.B) {
		raw := c.nodes[0].kv.c
		for i := 0; b.Loop(); i++ {
			key := fmt.Sprint("key", i%1000)
			resp, err := raw.Txn(context.Background()).If(clientv3.Compare(clientv3.ModRevision("guard"), "=", 0)).Then(clientv3.OpPut(key, string(value))).Commit()
			if err != nil || !resp.Succeeded {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkList lists 100,000 keys of 100 bytes.
func BenchmarkList(b *testing.B) {
	c := startOn(b, 1, Options{})
	m := mem.New()
	defer m.Close()
	outside := c.dial(b)
	defer outside.Close()
	value := make([]byte, 100)
	for i := 0; i < 100_000; i += 100 {
		var t store.Txn
		for j := i; j < i+100; j++ {
			t.Then = append(t.Then, store.Op{Key: fmt.Sprintf("k%06d", j), Value: value})
		}
		for _, kv := range []store.KV{m, c.nodes[0].KV()} {
			if _, _, err := kv.Commit(context.Background(), t); err != nil {
				b.Fatal(err)
			}
		}
	}
	for name, kv := range map[string]store.KV{"mem": m, "etcd": c.nodes[0].KV(), "socket": outside} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if items, _, err := kv.List(context.Background(), "k", store.Read{}); err != nil || len(items) != 100_000 {
					b.Fatal(len(items), err)
				}
			}
		})
	}
}
