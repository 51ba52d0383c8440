package etcd

import (
	"testing"

	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/store/storetest"
)

// TestModel has the store in memory and a real member answer the same random calls alike.
func TestModel(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	storetest.Model(t, func() (one, two storetest.Bed) {
		m := mem.New()
		one = storetest.Bed{Open: func(*testing.T) store.KV { return m }, Compact: m.Compact}
		two = storetest.Bed{Open: func(*testing.T) store.KV { return c.inside(0) }, Compact: c.compact}
		return one, two
	})
}
