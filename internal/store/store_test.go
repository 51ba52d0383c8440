package store_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

// TestLeadershipEndsInTime cuts a leader off: it must know within its lease, however the store fails.
func TestLeadershipEndsInTime(t *testing.T) {
	const ttl = 6 * time.Second
	for name, outage := range map[string]mem.Outage{"refused": mem.Refused, "hanging": mem.Hanging} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mem.New()
				defer m.Close()
				f := m.Client()
				defer f.Close()
				l, err := store.New(f).Campaign(t.Context(), "m1", ttl)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2*ttl + time.Millisecond) // renewed at 2 s, 4 s, ... 12 s
				cut := time.Now()
				f.Cut(outage)
				<-l.Lost()
				if d := time.Since(cut); d > ttl || d < ttl-ttl/3 {
					t.Errorf("it knew after %v", d)
				}
				synctest.Wait()
				if who, _ := store.New(m).Leader(t.Context(), store.Read{}); who != "" && time.Since(cut) > ttl {
					t.Errorf("%s leads", who)
				}
			})
		})
	}
}

// TestLeadershipSurvivesShortOutage is an election of etcd's: 2 s without an answer.
func TestLeadershipSurvivesShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		defer m.Close()
		f := m.Client()
		defer f.Close()
		ctx, cancel := context.WithCancel(t.Context())
		l, err := store.New(f).Campaign(ctx, "m1", 6*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			for _, o := range []mem.Outage{mem.Hanging, mem.Refused} {
				f.Cut(o)
				time.Sleep(2 * time.Second)
				f.Cut(mem.None)
				time.Sleep(3 * time.Second)
			}
		}
		select {
		case <-l.Lost():
			t.Error("the leadership was lost")
		default:
		}
		cancel()
		<-l.Lost()
	})
}

// TestOutageCostsLittle counts the calls that a campaign and a follower make while nothing, or only the watches, fail.
func TestOutageCostsLittle(t *testing.T) {
	broken := fault.New(fault.Unavailable, "broken")
	for name, fails := range map[string]func(mem.Call) bool{
		"everything":   func(mem.Call) bool { return true },
		"only watches": func(c mem.Call) bool { return c.Op == "watch" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mem.New()
				defer m.Close()
				leader, err := store.New(m).Campaign(t.Context(), "m1", time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				f := m.Client()
				calls := make(chan mem.Call, 100_000)
				f.Before(func(c mem.Call) error {
					calls <- c
					if fails(c) {
						return broken
					}
					return nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- store.Follow(ctx, f, "", nothing{}, nil) }()
				if l, err := store.New(f).Campaign(ctx, "m2", time.Hour); l != nil || err == nil {
					t.Errorf("campaign gives %v, %v", l, err)
				}
				if err := <-done; err != nil {
					t.Errorf("follow gives %v", err)
				}
				if n := len(calls); n > 10*60*8 {
					t.Errorf("%d calls in ten minutes", n)
				}
				leader.Resign(t.Context())
				_ = f.Close()
			})
		})
	}
}

// nothing is a follower that forgets.
type nothing struct{}

func (nothing) Reset([]store.Item, int64) {}
func (nothing) Apply(store.Update)        {}

func TestCheck(t *testing.T) {
	op := store.Op{Key: "k", Value: []byte("v")}
	for name, c := range map[string]struct {
		txn  store.Txn
		want string // in the message; empty: it is well
	}{
		"nothing":        {store.Txn{}, ""},
		"one":            {store.Txn{If: []store.Cond{{Key: "k"}, {Key: "k", Rev: 1}}, Then: []store.Op{op}}, ""},
		"twice":          {store.Txn{Then: []store.Op{op, op}}, `"k" twice`},
		"no key":         {store.Txn{Then: []store.Op{{}}}, "empty key"},
		"no key to test": {store.Txn{If: []store.Cond{{}}}, "empty key"},
		"too many":       {store.Txn{If: make([]store.Cond, store.MaxOps+1)}, "at most 100"},
		"too large":      {store.Txn{Then: []store.Op{{Key: "k", Value: make([]byte, store.MaxBytes)}}}, `"k"`},
	} {
		err := c.txn.Check()
		if c.want == "" && err != nil || c.want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeyspace holds the documented keys.
func TestKeyspace(t *testing.T) {
	m := mem.New()
	defer m.Close()
	s, ctx := store.New(m), t.Context()
	place := store.PlaceKey("m1", "web@1.service")
	for _, err := range []error{
		s.Machines.Create(ctx, "m1", machine.Machine{}),
		s.Alive.Create(ctx, "m1", machine.Presence{}),
		s.Units.Create(ctx, "web.service", unit.Unit{}),
		s.Places.Create(ctx, place, unit.Place{}),
		s.States.Create(ctx, place, unit.State{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	items, _, _ := m.List(ctx, "", store.Read{})
	var keys []string
	for _, it := range items {
		keys = append(keys, it.Key)
	}
	want := "flota/alive/m1 flota/machines/m1 flota/places/m1/web@1.service flota/states/m1/web@1.service flota/units/web.service"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("keys are %s", got)
	}
}
