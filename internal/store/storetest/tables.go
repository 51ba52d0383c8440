package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

func tables() []test {
	return []test{
		{"table makes, reads, lists and deletes", tableBasics},
		{"table update counts every change", tableUpdates},
		{"table update says why not", tableRefusals},
		{"table skips what it cannot read", tableBroken},
	}
}

// named gives a machine with a count in its labels.
func named(id string, n int) machine.Machine {
	return machine.Machine{ID: machine.ID(id), Labels: map[string]string{"n": strconv.Itoa(n)}}
}

func count(m machine.Machine) int {
	n, _ := strconv.Atoi(m.Labels["n"])
	return n
}

func tableBasics(t *testing.T, b *bench) {
	s := store.New(b.kv)
	key := b.prefix + "m1"
	if err := s.Machines.Create(b.ctx, key, named("m1", 1)); err != nil {
		t.Fatalf("create: %v", err)
	}
	if err := s.Machines.Create(b.ctx, key, named("m1", 2)); !fault.Is(err, fault.Exists) {
		t.Errorf("create again gives %v", err)
	}
	e, ok, err := s.Machines.Get(b.ctx, key, store.Read{})
	if err != nil || !ok || e.Key != key || count(e.Value) != 1 || e.Rev != e.Created || e.Rev == 0 {
		t.Errorf("get gives %+v, %v, %v", e, ok, err)
	}
	if err := s.Machines.Put(b.ctx, b.prefix+"m0", named("m0", 0), 0); err != nil {
		t.Errorf("put: %v", err)
	}
	all, rev, err := s.Machines.List(b.ctx, b.prefix, store.Read{})
	if err != nil || len(all) != 2 || all[0].Value.ID != "m0" || all[1].Key != key || rev < e.Rev {
		t.Errorf("list gives %+v at %d, %v", all, rev, err)
	}
	if sub, ok := s.Machines.Match(s.Machines.Prefix() + key); !ok || sub != key {
		t.Errorf("match gives %q, %v", sub, ok)
	}
	for _, want := range []bool{true, false} {
		if was, err := s.Machines.Delete(b.ctx, key); was != want || err != nil {
			t.Errorf("delete gives %v, %v; want %v", was, err, want)
		}
	}
	if _, ok, err := s.Machines.Get(b.ctx, key, store.Read{}); ok || err != nil {
		t.Errorf("get after delete gives %v, %v", ok, err)
	}
}

func tableUpdates(t *testing.T, b *bench) {
	const clients, times = 5, 12
	key := b.prefix + "m1"
	lease := b.grant(t, time.Hour)
	if err := store.New(b.kv).Machines.Put(b.ctx, key, named("m1", 0), lease); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range clients {
		s := store.New(b.open(t))
		all.Go(func() {
			for range times {
				_, err := s.Machines.Update(b.ctx, key, func(m *machine.Machine) error {
					*m = named("m1", count(*m)+1)
					return nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	all.Wait()
	e, _, err := store.New(b.kv).Machines.Get(b.ctx, key, store.Read{})
	if err != nil || count(e.Value) != clients*times || e.Lease != lease {
		t.Errorf("counted %d under lease %d, want %d under %d; %v", count(e.Value), e.Lease, clients*times, lease, err)
	}
	if err := b.kv.Revoke(b.ctx, lease); err != nil {
		t.Error(err)
	}
}

func tableRefusals(t *testing.T, b *bench) {
	s := store.New(b.kv)
	key := b.prefix + "m1"
	none := func(*machine.Machine) error { return nil }
	if _, err := s.Machines.Update(b.ctx, key, none); !fault.Is(err, fault.NotFound) {
		t.Errorf("update of nothing gives %v", err)
	}
	if err := s.Machines.Create(b.ctx, key, named("m1", 1)); err != nil {
		t.Fatal(err)
	}
	rev := b.now(t)
	if m, err := s.Machines.Update(b.ctx, key, func(*machine.Machine) error { return fmt.Errorf("as it is: %w", store.ErrNoChange) }); err != nil || m.ID != "m1" {
		t.Errorf("no change gives %+v, %v", m, err)
	}
	mine := errors.New("mine")
	if _, err := s.Machines.Update(b.ctx, key, func(*machine.Machine) error { return mine }); err != mine {
		t.Errorf("the function's error comes as %v", err)
	}
	if now := b.now(t); now != rev {
		t.Errorf("something was written: %d, want %d", now, rev)
	}
}

func tableBroken(t *testing.T, b *bench) {
	s := store.New(b.kv)
	broken := s.Machines.Prefix() + b.prefix + "broken"
	if err := s.Machines.Create(b.ctx, b.prefix+"good", named("m1", 1)); err != nil {
		t.Fatal(err)
	}
	b.must(t, store.Txn{Then: []store.Op{{Key: broken, Value: []byte("{")}}})
	all, _, err := s.Machines.List(b.ctx, b.prefix, store.Read{})
	if err != nil || len(all) != 1 {
		t.Errorf("list gives %+v, %v", all, err)
	}
	if _, ok, err := s.Machines.Get(b.ctx, b.prefix+"broken", store.Read{}); ok || err == nil || !fault.Is(err, fault.Internal) {
		t.Errorf("get gives %v, %v", ok, err)
	}
	b.must(t, store.Txn{Then: []store.Op{{Key: broken}}})
}
