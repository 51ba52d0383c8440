package mem_test

import (
	"testing"

	"go.uber.org/goleak"

	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a store of its own for each test; its clients are Faulty ones without a fault.
func bed(t *testing.T) storetest.Bed {
	m := mem.New()
	t.Cleanup(func() { _ = m.Close() })
	return storetest.Bed{Open: func(*testing.T) store.KV { return m.Client() }, Compact: m.Compact}
}

func TestConformance(t *testing.T) { storetest.RunVirtual(t, bed) }
