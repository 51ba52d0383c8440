package leader_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
	"flota/internal/leader"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
	"flota/internal/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(i int) machine.ID { return machine.ID(strings.Repeat(fmt.Sprint(i), 32)) }

// bed is a store with machines, none of which runs an agent, and leaders on some of them.
type bed struct {
	t       *testing.T
	mem     *mem.Mem
	store   *store.Store
	leases  map[int]store.LeaseID
	clients []*mem.Faulty
	ends    []func()
}

func onBed(t *testing.T, machines int, f func(b *bed)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, mem: mem.New(), leases: map[int]store.LeaseID{}}
		b.store = store.New(b.mem)
		for i := 1; i <= machines; i++ {
			b.must(b.store.Machines.Put(t.Context(), string(id(i)), machine.Machine{ID: id(i), Name: fmt.Sprint("m", i)}, 0))
			b.arrive(i)
		}
		f(b)
		for _, end := range b.ends {
			end()
		}
		for _, c := range b.clients {
			b.must(c.Close())
		}
		b.must(b.mem.Close())
	})
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// arrive puts the machine's presence.
func (b *bed) arrive(i int) {
	lease, err := b.mem.Grant(b.t.Context(), 24*time.Hour)
	b.must(err)
	b.leases[i] = lease
	b.must(b.store.Alive.Put(b.t.Context(), string(id(i)), machine.Presence{ID: id(i), Name: fmt.Sprint("m", i)}, lease))
}

// lead starts a view and a leader; kill ends them, with or without a word to the store.
func (b *bed) lead(i int) (c *mem.Faulty, d *leader.Desk, end func(quiet bool)) {
	c, d = b.mem.Client(), leader.NewDesk()
	log := slog.New(slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", i)
	s := store.New(c)
	v := view.New(view.Options{Store: s, Log: log})
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{}, 2)
	go func() { _ = v.Run(ctx); done <- struct{}{} }()
	go func() {
		if err := leader.Run(ctx, leader.Options{ID: id(i), Store: s, View: v, Desk: d, Log: log}); err != nil {
			b.t.Error(err)
		}
		done <- struct{}{}
	}()
	ended := false
	end = func(quiet bool) {
		if ended {
			return
		}
		ended = true
		c.Down(quiet)
		cancel()
		<-done
		<-done
	}
	b.clients = append(b.clients, c)
	b.ends = append(b.ends, func() { end(true) })
	return c, d, end
}

func (b *bed) put(name unit.Name, run uint64) {
	b.must(b.store.Units.Put(b.t.Context(), string(name), unit.Unit{Name: name, Target: unit.Launched, Run: run}, 0))
}

func (b *bed) rest() { time.Sleep(300 * time.Millisecond); synctest.Wait() }

// places gives for each unit how many places it has, and fails if one has two.
func (b *bed) places() map[unit.Name]machine.ID {
	b.t.Helper()
	all, _, err := b.store.Places.List(b.t.Context(), "", store.Read{})
	b.must(err)
	out := map[unit.Name]machine.ID{}
	for _, e := range all {
		if e.Value.Leaving {
			continue
		}
		if out[e.Value.Unit.Name] != "" {
			b.t.Errorf("%s is placed twice", e.Value.Unit.Name)
		}
		out[e.Value.Unit.Name] = e.Value.Machine
	}
	return out
}

func (b *bed) rev() int64 {
	_, rev, err := b.mem.List(b.t.Context(), "none", store.Read{})
	b.must(err)
	return rev
}

func TestPlacesAndUpdates(t *testing.T) {
	onBed(t, 3, func(b *bed) {
		_, desk, _ := b.lead(1)
		for i := range 100 {
			b.put(unit.Name(fmt.Sprintf("u%d.service", i)), 1)
		}
		b.rest()
		if n := len(b.places()); n != 100 {
			t.Errorf("%d of 100 units placed", n)
		}
		b.put("u7.service", 2)
		b.rest()
		e, _, err := b.store.Places.Get(b.t.Context(), store.PlaceKey(b.places()["u7.service"], "u7.service"), store.Read{})
		b.must(err)
		if e.Value.Unit.Run != 2 {
			t.Errorf("run %d was placed", e.Value.Unit.Run)
		}
		if s := desk.Status(); s.Since.IsZero() || s.Moves != 101 {
			t.Errorf("%+v", s)
		}
		rev := b.rev()
		time.Sleep(time.Hour)
		if now := b.rev(); now != rev {
			t.Errorf("%d writes while nothing changed", now-rev)
		}
	})
}

func TestMachineDies(t *testing.T) {
	onBed(t, 3, func(b *bed) {
		b.lead(1)
		for i := range 9 {
			b.put(unit.Name(fmt.Sprintf("u%d.service", i)), 1)
		}
		b.rest()
		b.must(b.mem.Revoke(b.t.Context(), b.leases[2]))
		time.Sleep(time.Second)
		b.rest()
		for name, m := range b.places() {
			if m == id(2) {
				t.Errorf("%s is still on m2", name)
			}
		}
	})
}

// TestAllLeasesEndAtOnce is what a quorum's return after a long time looks like: all presences end, one after the other, and
// come back one after the other. Nothing is moved, not even off the one that takes its time.
func TestAllLeasesEndAtOnce(t *testing.T) {
	onBed(t, 3, func(b *bed) {
		b.lead(1)
		for i := range 9 {
			b.put(unit.Name(fmt.Sprintf("u%d.service", i)), 1)
		}
		b.rest()
		before := b.places()
		for n := 1; n <= 3; n++ {
			b.must(b.mem.Revoke(b.t.Context(), b.leases[n]))
			time.Sleep(100 * time.Millisecond)
		}
		b.arrive(1)
		b.arrive(3)
		time.Sleep(30 * time.Second)
		if after := b.places(); !maps.Equal(before, after) {
			t.Errorf("places were %v, are %v", before, after)
		}
		b.arrive(2)
		time.Sleep(time.Hour)
		if after := b.places(); !maps.Equal(before, after) {
			t.Errorf("places were %v, are %v at the end", before, after)
		}
	})
}

func TestColdStartMovesNothingYet(t *testing.T) {
	onBed(t, 3, func(b *bed) {
		_, _, end := b.lead(1)
		for i := range 9 {
			b.put(unit.Name(fmt.Sprintf("u%d.service", i)), 1)
		}
		b.rest()
		end(false)
		before := b.places()
		b.must(b.mem.Revoke(b.t.Context(), b.leases[2]))
		b.lead(1)
		time.Sleep(9 * time.Second)
		if after := b.places(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("moved during the grace:\n%v\n%v", before, after)
		}
		time.Sleep(2 * time.Second)
		for name, m := range b.places() {
			if m == id(2) {
				t.Errorf("%s is still on m2", name)
			}
		}
	})
}

// Leaders that are cut off, lose answers and follow each other never place a unit twice, and in the end place all.
func TestNothingIsPlacedTwice(t *testing.T) {
	onBed(t, 3, func(b *bed) {
		var clients []*mem.Faulty
		for i := 1; i <= 3; i++ {
			c, _, _ := b.lead(i)
			clients = append(clients, c)
		}
		for i := range 60 {
			b.put(unit.Name(fmt.Sprintf("u%d.service", i)), 1)
			switch c := clients[i%3]; i % 7 {
			case 0:
				c.LoseNext(1 + i%3)
			case 1:
				c.Cut(mem.Hanging)
			case 2:
				c.FailNext(2)
			case 3:
				c.Lag(time.Second)
			case 4:
				c.Repeat(true)
			}
			time.Sleep(700 * time.Millisecond)
			b.places()
			for _, c := range clients {
				c.Cut(mem.None)
				c.Lag(0)
				c.Repeat(false)
			}
		}
		time.Sleep(20 * time.Second)
		if n := len(b.places()); n != 60 {
			t.Errorf("%d of 60 units placed", n)
		}
	})
}

func TestNextLeaderTakesOver(t *testing.T) {
	for _, quiet := range []bool{true, false} {
		t.Run(fmt.Sprintf("quiet=%v", quiet), func(t *testing.T) {
			onBed(t, 3, func(b *bed) {
				_, first, end := b.lead(1)
				b.rest()
				_, second, _ := b.lead(2)
				b.rest()
				if first.Status().Since.IsZero() || !second.Status().Since.IsZero() {
					t.Fatal("the second leads")
				}
				if _, err := second.Rebalance(b.t.Context()); !fault.Is(err, fault.Conflict) {
					t.Error(err)
				}
				end(quiet)
				b.put("u.service", 1)
				time.Sleep(100 * time.Millisecond)
				if quiet {
					time.Sleep(6 * time.Second)
				}
				if second.Status().Since.IsZero() || len(b.places()) != 1 {
					t.Error("nobody took over")
				}
			})
		})
	}
}

func TestRebalance(t *testing.T) {
	onBed(t, 2, func(b *bed) {
		_, desk, _ := b.lead(1)
		b.must(b.mem.Revoke(b.t.Context(), b.leases[2]))
		for i := range 8 {
			b.put(unit.Name(fmt.Sprintf("u@%d.service", i)), 1)
		}
		b.rest()
		b.arrive(2)
		time.Sleep(time.Minute)
		for name, m := range b.places() {
			if m != id(1) {
				t.Errorf("%s moved because a machine came back", name)
			}
		}
		plan, err := desk.Rebalance(b.t.Context())
		b.must(err)
		if len(plan.Moves) != 4 {
			t.Errorf("%d moves: %v", len(plan.Moves), plan.Moves)
		}
		count := map[machine.ID]int{}
		for _, m := range b.places() {
			count[m]++
		}
		if count[id(1)] != 4 || count[id(2)] != 4 {
			t.Error(count)
		}
	})
}

// A write whose answer was lost may arrive much later, when the unit has been placed elsewhere: it must change nothing then.
func TestLateWriteIsFencedOff(t *testing.T) {
	onBed(t, 3, func(b *bed) {
		c, _, _ := b.lead(1)
		b.rest()
		var mu sync.Mutex // guards late
		var late *store.Txn
		c.Before(func(call mem.Call) error {
			mu.Lock()
			defer mu.Unlock()
			if call.Op != "commit" || late != nil || len(call.Txn.Then) != 1 || !strings.HasPrefix(call.Txn.Then[0].Key, b.store.Places.Prefix()) {
				return nil
			}
			late = &call.Txn
			target, _, _ := strings.Cut(strings.TrimPrefix(late.Then[0].Key, b.store.Places.Prefix()), "/")
			for i, lease := range b.leases {
				if string(id(i)) == target {
					b.must(b.mem.Revoke(b.t.Context(), lease)) // so the next plan has another machine
				}
			}
			return fault.New(fault.Unavailable, "no answer")
		})
		b.put("u.service", 1)
		time.Sleep(5 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if late == nil || len(b.places()) != 1 {
			t.Fatalf("late %v, places %v", late, b.places())
		}
		_, _, err := b.mem.Commit(b.t.Context(), *late)
		b.must(err)
		b.places() // fails if there are two
	})
}
