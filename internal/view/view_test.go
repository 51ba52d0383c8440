package view_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
	"flota/internal/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(i int) machine.ID { return machine.ID(strings.Repeat(fmt.Sprint(i), 32)) }

// bed is a store and a view of it through a client that can be cut off.
type bed struct {
	t      *testing.T
	mem    *mem.Mem
	client *mem.Faulty
	store  *store.Store
	view   *view.View
}

func onBed(t *testing.T, prepare, f func(b *bed)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, mem: mem.New()}
		b.store, b.client = store.New(b.mem), b.mem.Client()
		prepare(b)
		b.view = view.New(view.Options{Store: store.New(b.client), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.view.Run(ctx) }()
		b.rest()
		f(b)
		cancel()
		b.must(<-done)
		b.must(b.client.Close())
		b.must(b.mem.Close())
	})
}

func (b *bed) rest() { time.Sleep(100 * time.Millisecond); synctest.Wait() }

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) machine(i int, change func(*machine.Machine)) {
	m := machine.Machine{ID: id(i), Name: fmt.Sprint("m", i)}
	if change != nil {
		change(&m)
	}
	b.must(b.store.Machines.Put(b.t.Context(), string(m.ID), m, 0))
}

func (b *bed) alive(i int) store.LeaseID {
	lease, err := b.mem.Grant(b.t.Context(), time.Hour)
	b.must(err)
	b.must(b.store.Alive.Put(b.t.Context(), string(id(i)), machine.Presence{ID: id(i), Name: fmt.Sprint("m", i)}, lease))
	return lease
}

func (b *bed) story() []string {
	events, _ := b.view.Events(0)
	var out []string
	for _, e := range events {
		out = append(out, e.Text)
	}
	return out
}

func TestStory(t *testing.T) {
	onBed(t, func(b *bed) { b.machine(1, nil); b.alive(1) }, func(b *bed) {
		if len(b.story()) != 0 {
			t.Errorf("what was there before is told as news: %q", b.story())
		}
		ctx := b.t.Context()
		b.machine(2, nil)
		lease := b.alive(2)
		u := unit.Unit{Name: "hello@1.service", Target: unit.Launched, Run: 1}
		b.must(b.store.Units.Put(ctx, "hello@1.service", u, 0))
		key := store.PlaceKey(id(2), u.Name)
		p := unit.Place{Machine: id(2), Unit: u, Reason: "spread over machines"}
		b.must(b.store.Places.Put(ctx, key, p, 0))
		st := unit.State{Unit: u.Name, Machine: id(2), Active: "activating"}
		b.must(b.store.States.Put(ctx, key, st, lease))
		st.Active = "active"
		b.must(b.store.States.Put(ctx, key, st, lease))
		st.Active, st.Result, st.ExitCode = "failed", "exit-code", 1
		b.must(b.store.States.Put(ctx, key, st, lease))
		u.Run, u.Options = 2, []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/x"}}
		b.must(b.store.Units.Put(ctx, "hello@1.service", u, 0))
		b.machine(2, func(m *machine.Machine) { m.Drained = true })
		p.Leaving, p.Reason = true, "m2 is drained"
		b.must(b.store.Places.Put(ctx, key, p, 0))
		_, err := b.store.Places.Delete(ctx, key)
		b.must(err)
		b.must(b.mem.Revoke(ctx, lease))
		time.Sleep(12 * time.Second)
		b.alive(2)
		b.machine(2, func(m *machine.Machine) { m.Labels = map[string]string{"zone": "b"} })
		_, err = b.store.Units.Delete(ctx, "hello@1.service")
		b.must(err)
		leads, err := b.store.Campaign(ctx, id(1), 5*time.Second)
		b.must(err)
		b.rest()
		want := []string{
			"m2 joined the cluster", "m2 is there", "hello@1.service submitted, to be launched",
			"hello@1.service placed on m2: spread over machines", "hello@1.service active on m2",
			"hello@1.service failed on m2: exit-code 1",
			"hello@1.service has new content", "hello@1.service is to be started anew",
			"m2 is drained: its units move to other machines", "hello@1.service leaves m2 when it is active elsewhere: m2 is drained",
			"hello@1.service taken off m2", "m2 is gone", "m2 is back after 12s", "m2 takes units again", "m2 has the labels zone=b",
			"hello@1.service destroyed", "m1 leads the cluster",
		}
		if d := cmp.Diff(want, b.story()); d != "" {
			t.Error(d)
		}
		leads.Resign(ctx)
	})
}

func TestLost(t *testing.T) {
	onBed(t, func(b *bed) { b.machine(1, nil); b.machine(2, nil); b.machine(3, nil) }, func(b *bed) {
		lost := func(i int) (since time.Time, lost bool) {
			b.rest()
			b.view.Look(func(c *view.Cluster) { since, lost = c.Lost(id(i), time.Now()) })
			return since, lost
		}
		lease := b.alive(1)
		if _, is := lost(1); is {
			t.Error("m1 is there")
		}
		if _, is := lost(2); is {
			t.Error("m2 may still come")
		}
		at := time.Now()
		b.must(b.mem.Revoke(b.t.Context(), lease))
		if since, is := lost(1); !is || !since.Equal(at) {
			t.Errorf("m1 is gone since %s: %s %v", at, since, is)
		}
		time.Sleep(10 * time.Second)
		if _, is := lost(2); !is {
			t.Error("m2 never came")
		}
		b.alive(1)
		if _, is := lost(1); is {
			t.Error("m1 is back")
		}
	})
}

// Whatever happens to the watch, the view ends up as the store is, and told the same machines lost.
func TestFollowsThroughTrouble(t *testing.T) {
	for seed := range uint64(50) {
		onBed(t, func(*bed) {}, func(b *bed) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			ctx := b.t.Context()
			for range 200 {
				m, n := id(1+rnd.IntN(3)), unit.Name(fmt.Sprintf("u%d.service", rnd.IntN(5)))
				key := store.PlaceKey(m, n)
				switch rnd.IntN(12) {
				case 0:
					b.must(b.store.Units.Put(ctx, string(n), unit.Unit{Name: n, Run: rnd.Uint64N(9)}, 0))
				case 1:
					_, err := b.store.Units.Delete(ctx, string(n))
					b.must(err)
				case 2, 3:
					b.must(b.store.Places.Put(ctx, key, unit.Place{Machine: m, Unit: unit.Unit{Name: n}}, 0))
				case 4:
					_, err := b.store.Places.Delete(ctx, key)
					b.must(err)
				case 5:
					b.must(b.store.States.Put(ctx, key, unit.State{Machine: m, Unit: n, Run: rnd.Uint64N(9)}, 0))
				case 6:
					b.client.Lag(time.Duration(rnd.IntN(2000)) * time.Millisecond)
				case 7:
					b.client.Repeat(rnd.IntN(2) == 0)
				case 8:
					b.client.EndWatches(store.ErrCompacted)
				case 9:
					b.client.Down(rnd.IntN(2) == 0)
				case 10:
					b.client.Pause(rnd.IntN(2) == 0)
				case 11:
					time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
				}
			}
			b.client.Down(false)
			b.client.Pause(false)
			b.client.Lag(0)
			time.Sleep(5 * time.Second)
			b.compare()
		})
	}
}

// compare holds the view against the store.
func (b *bed) compare() {
	b.t.Helper()
	items, rev, err := b.mem.List(b.t.Context(), store.Prefix, store.Read{})
	b.must(err)
	stored := map[string]string{}
	for _, it := range items {
		stored[it.Key] = string(it.Value)
	}
	seen := map[string]string{}
	add := func(prefix, key string, v any) {
		text, err := json.Marshal(v)
		b.must(err)
		seen[prefix+key] = string(text)
	}
	b.must(b.view.Await(b.t.Context(), rev))
	b.view.Look(func(c *view.Cluster) {
		for n, e := range c.Units {
			add(b.store.Units.Prefix(), string(n), e.Value)
		}
		for m, places := range c.Places {
			for n, e := range places {
				add(b.store.Places.Prefix(), store.PlaceKey(m, n), e.Value)
			}
		}
		for m, states := range c.States {
			for n, e := range states {
				add(b.store.States.Prefix(), store.PlaceKey(m, n), e.Value)
			}
		}
	})
	if !maps.Equal(stored, seen) {
		b.t.Error(cmp.Diff(stored, seen))
	}
}

func TestUnreadableValueStaysAsItWas(t *testing.T) {
	onBed(t, func(*bed) {}, func(b *bed) {
		ctx := b.t.Context()
		b.must(b.store.Units.Put(ctx, "a.service", unit.Unit{Name: "a.service", Run: 7}, 0))
		_, _, err := b.mem.Commit(ctx, store.Txn{Then: []store.Op{{Key: b.store.Units.Prefix() + "a.service", Value: []byte("{")}}})
		b.must(err)
		b.rest()
		b.view.Look(func(c *view.Cluster) {
			if c.Units["a.service"].Value.Run != 7 {
				t.Errorf("%+v", c.Units)
			}
		})
	})
}

func TestEventsAreBounded(t *testing.T) {
	onBed(t, func(*bed) {}, func(b *bed) {
		ctx := b.t.Context()
		_, more := b.view.Events(0)
		for i := range 2500 {
			n := unit.Name(fmt.Sprintf("u%d.service", i))
			b.must(b.store.Units.Put(ctx, string(n), unit.Unit{Name: n, Target: unit.Loaded}, 0))
		}
		b.rest()
		select {
		case <-more:
		default:
			t.Error("nobody was woken")
		}
		all, _ := b.view.Events(0)
		if len(all) != 1000 || all[999].ID != 2500 {
			t.Errorf("%d events", len(all))
		}
		if late, _ := b.view.Events(2498); len(late) != 2 || late[0].ID != 2499 {
			t.Errorf("%v", late)
		}
		if none, _ := b.view.Events(9999); len(none) != 0 {
			t.Errorf("%v", none)
		}
	})
}
