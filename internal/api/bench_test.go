package api

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"flota/internal/driver/fake"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

// BenchmarkListUnits lists 1,000 running units, once with all of them placed and once with one that waits, so that a plan is made.
func BenchmarkListUnits(b *testing.B) {
	for _, waiting := range []bool{false, true} {
		b.Run(fmt.Sprintf("waiting=%v", waiting), func(b *testing.B) {
			m := mem.New()
			defer m.Close()
			st := store.New(m)
			put := func(op store.Op) {
				if _, _, err := m.Commit(b.Context(), store.Txn{Then: []store.Op{op}}); err != nil {
					b.Fatal(err)
				}
			}
			for n := 1; n <= 3; n++ {
				put(st.Machines.PutOp(string(idOf(n)), machine.Machine{ID: idOf(n), Name: fmt.Sprintf("m%d", n)}, 0))
				put(st.Alive.PutOp(string(idOf(n)), machine.Presence{ID: idOf(n)}, 0))
			}
			for i := range 1000 {
				u := unit.Unit{Name: unit.Name(fmt.Sprintf("u@%d.service", i)), Target: unit.Launched, Run: 1,
					Options: []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/sleep 1000"}}}
				if waiting && i == 0 {
					u.Options = append(u.Options, unit.Option{Section: "X-Fleet", Name: "MachineMetadata", Value: "a=b"})
				}
				put(st.Units.PutOp(string(u.Name), u, 0))
				if waiting && i == 0 {
					continue
				}
				key := store.PlaceKey(idOf(i%3+1), u.Name)
				put(st.Places.PutOp(key, unit.Place{Machine: idOf(i%3 + 1), Unit: u}, 0))
				put(st.States.PutOp(key, unit.State{Unit: u.Name, Machine: idOf(i%3 + 1), Load: "loaded", Active: "active", Run: 1}, 0))
			}
			h := New(Options{ID: idOf(1), Name: "m1", Store: st, Driver: fake.New(fake.Options{})}).Handler(Local)
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/units", nil))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
