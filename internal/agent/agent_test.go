package agent_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/driver/fake"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

const web = unit.Name("web.service")

var exclusive = unit.Option{Section: "X-Flota", Name: "Exclusive", Value: "true"}

func TestUnitLives(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Loaded, 0)
		b.want()
		b.wantState(web, "loaded inactive 0")
		b.place(web, unit.Launched, 1)
		b.want("web.service runs 1")
		b.wantState(web, "loaded active 1")
		b.place(web, unit.Launched, 2, unit.Option{Section: "Service", Name: "ExecStart", Value: "/bin/new"})
		b.want("web.service ends 1", "web.service runs 2")
		b.place(web, unit.Loaded, 2)
		b.want("web.service ends 2")
		b.wantState(web, "loaded inactive 2")
		b.unplace(web)
		b.want()
		b.wantState(web, "")
	})
}

func TestAgentRestartTouchesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(b *bed)
	}{{"killed", (*bed).kill}, {"planned", (*bed).stop}} {
		t.Run(c.name, func(t *testing.T) {
			onBed(t, func(b *bed) {
				b.start()
				b.place(web, unit.Launched, 1)
				b.place("x.service", unit.Launched, 1, exclusive)
				b.fake.Script("job.service", fake.Behaviour{EndAfter: time.Millisecond})
				b.place("job.service", unit.Launched, 1)
				b.rest()
				b.mu.Lock()
				b.history = nil
				b.mu.Unlock()
				for range 3 {
					c.end(b)
					b.start()
					if p, ok := b.presence(); !ok || p.Restarting {
						t.Errorf("presence %+v, %v", p, ok)
					}
				}
				time.Sleep(time.Minute)
				b.want()
				b.wantState(web, "loaded active 1")
				b.wantState("x.service", "loaded active 1")
				b.wantState("job.service", "loaded inactive 1")
			})
		})
	}
}

func TestPlannedRestartIsAnnounced(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Launched, 1)
		b.place("x.service", unit.Launched, 1, exclusive)
		b.rest()
		b.stop()
		time.Sleep(57 * time.Second)
		if p, ok := b.presence(); !ok || !p.Restarting {
			t.Errorf("presence %+v, %v", p, ok)
		}
		b.wantState(web, "loaded active 1")
		b.wantState("x.service", "loaded active 1")
		time.Sleep(5 * time.Second)
		if _, ok := b.presence(); ok || b.state(web) != "" {
			t.Error("the presence outlives its announcement")
		}
		b.want("web.service runs 1", "x.service runs 1", "x.service ends 1")
	})
}

func TestStoreOutageStopsNothing(t *testing.T) {
	for _, o := range []mem.Outage{mem.Refused, mem.Hanging, mem.NoQuorum} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			onBed(t, func(b *bed) {
				b.start()
				b.place(web, unit.Launched, 1)
				b.place("x.service", unit.Launched, 1, exclusive)
				b.want("web.service runs 1", "x.service runs 1")
				b.client.Cut(o)
				time.Sleep(10 * time.Minute)
				b.want("x.service ends 1") // only the exclusive unit may not go on
				if _, ok := b.presence(); ok {
					t.Error("still present")
				}
				b.client.Cut(mem.None)
				time.Sleep(8 * time.Second)
				b.want("x.service runs 1") // its place is still here
				b.wantState(web, "loaded active 1")
				b.wantState("x.service", "loaded active 1")
			})
		})
	}
}

func TestLeaseLostAndBack(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Launched, 1)
		b.place("moved.service", unit.Launched, 1)
		b.place("x.service", unit.Launched, 1, exclusive)
		b.rest()
		b.client.Cut(mem.Hanging)
		time.Sleep(20 * time.Second)
		b.unplace("moved.service") // placed elsewhere meanwhile
		b.unplace("x.service")
		b.mu.Lock()
		b.history = nil
		b.mu.Unlock()
		b.client.Cut(mem.None)
		time.Sleep(8 * time.Second)
		b.want("moved.service ends 1")
		b.wantState(web, "loaded active 1")
	})
}

func TestStuckUnitDelaysNobody(t *testing.T) {
	onBed(t, func(b *bed) {
		b.fake.Script("stuck.service", fake.Behaviour{StopTakes: time.Hour})
		b.start()
		b.place("stuck.service", unit.Launched, 1)
		b.want("stuck.service runs 1")
		b.unplace("stuck.service")
		b.place(web, unit.Launched, 1)
		b.want("web.service runs 1")
		b.wantState("stuck.service", "loaded deactivating 1")
		b.place("stuck.service", unit.Launched, 1) // and back: it is stopped to the end and started anew
		time.Sleep(time.Hour)
		b.want("stuck.service ends 1", "stuck.service runs 1")
	})
}

func TestKilledWhileUnloading(t *testing.T) {
	onBed(t, func(b *bed) {
		b.fake.Script("slow.service", fake.Behaviour{StopTakes: time.Minute})
		b.start()
		b.place("slow.service", unit.Launched, 1)
		b.want("slow.service runs 1")
		b.unplace("slow.service")
		b.rest()
		b.kill()
		b.place("slow.service", unit.Launched, 1)
		b.start()
		time.Sleep(time.Minute)
		b.want("slow.service ends 1", "slow.service runs 1")
	})
}

func TestBadUnitIsToldOnce(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.fake.Script(web, fake.Behaviour{Bad: "Type=dance: unknown type"})
		b.place(web, unit.Launched, 1)
		b.want()
		b.wantState(web, "bad-setting inactive 0")
		rev := b.rev()
		time.Sleep(time.Minute)
		if now := b.rev(); now != rev {
			t.Errorf("%d writes about a unit that cannot start", now-rev)
		}
		b.fake.Script(web, fake.Behaviour{})
		b.place(web, unit.Launched, 2, unit.Option{Section: "Service", Name: "Type", Value: "simple"})
		b.want("web.service runs 2")
	})
}

// rev is the store's revision.
func (b *bed) rev() int64 {
	b.t.Helper()
	_, rev, err := b.mem.List(b.t.Context(), "none", store.Read{})
	b.must(err)
	return rev
}

func TestIdleWritesNothing(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Launched, 1)
		b.rest()
		rev := b.rev()
		time.Sleep(time.Hour)
		if now := b.rev(); now != rev {
			t.Errorf("%d writes in an idle hour", now-rev)
		}
	})
}

func TestCacheStart(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Launched, 1)
		b.place("x.service", unit.Launched, 1, exclusive)
		b.place("gone.service", unit.Launched, 1)
		b.want("gone.service runs 1", "web.service runs 1", "x.service runs 1")
		b.kill()
		b.fake.PowerCut()
		b.fake.PowerOn()
		b.boot++
		b.mu.Lock()
		b.history = nil
		b.mu.Unlock()

		b.client.Cut(mem.Hanging)
		b.start()
		time.Sleep(10 * time.Second)
		b.want("gone.service runs 1", "web.service runs 1")
		if s := b.agent.Status(); s.Source != "cache" {
			t.Errorf("%+v", s)
		}
		b.unplace("gone.service") // and a place that the cache does not know
		b.place("new.service", unit.Launched, 1)
		b.client.Cut(mem.None)
		time.Sleep(8 * time.Second)
		b.mu.Lock()
		story := strings.Join(b.history, ", ")
		b.history = nil
		b.mu.Unlock()
		for _, part := range []string{"gone.service ends 1", "new.service runs 1", "x.service runs 1"} {
			if !strings.Contains(story, part) {
				t.Errorf("%s: %s is missing", story, part)
			}
		}
		if strings.Contains(story, "web") {
			t.Error(story)
		}
	})
}

func TestUnknownMachineChangesNothing(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Launched, 1)
		b.want("web.service runs 1")
		_, err := b.store.Machines.Delete(b.t.Context(), string(id))
		b.must(err)
		b.unplace(web)
		b.place("other.service", unit.Launched, 1)
		time.Sleep(time.Minute)
		b.want()
		if s := b.agent.Status(); !strings.Contains(s.Trouble, "does not know this machine") {
			t.Errorf("%+v", s)
		}
		b.must(b.store.Machines.Put(b.t.Context(), string(id), machine.Machine{ID: id, Name: "m1"}, 0))
		b.rest()
		b.mu.Lock()
		defer b.mu.Unlock()
		if got := strings.Join(b.history, ", "); !strings.Contains(got, "web.service ends 1") || !strings.Contains(got, "other.service runs 1") {
			t.Error(got)
		}
		b.history = nil
	})
}

func TestSecondAgentWithThisID(t *testing.T) {
	onBed(t, func(b *bed) {
		b.place(web, unit.Launched, 1)
		lease, err := b.mem.Grant(b.t.Context(), 5*time.Second)
		b.must(err)
		b.must(b.store.Alive.Put(b.t.Context(), string(id), machine.Presence{ID: id, Name: "twin", BootID: "other"}, lease))
		b.start()
		for range 20 {
			time.Sleep(3 * time.Second)
			b.must(b.mem.Renew(b.t.Context(), lease))
		}
		b.want()
		if s := b.agent.Status(); !strings.Contains(s.Trouble, "another agent runs with this machine id") {
			t.Errorf("%+v", s)
		}
		if p, _ := b.presence(); p.Name != "twin" {
			t.Errorf("%+v", p)
		}
		time.Sleep(6 * time.Second)
		b.want("web.service runs 1")
		if p, _ := b.presence(); p.Name != "m1" {
			t.Errorf("%+v", p)
		}
	})
}

func TestHalt(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		b.place(web, unit.Launched, 1)
		b.place("stays.service", unit.Launched, 1)
		b.rest()
		halted := make(chan error, 1)
		go func() { halted <- b.agent.Halt(b.t.Context()) }()
		b.rest()
		if p, ok := b.presence(); !ok || !p.Leaving {
			t.Errorf("presence %+v, %v", p, ok)
		}
		b.unplace(web)
		time.Sleep(9 * time.Second)
		b.wantState("stays.service", "loaded active 1")
		time.Sleep(2 * time.Second)
		b.must(<-halted)
		<-b.done
		if _, ok := b.presence(); ok || b.state("stays.service") != "" {
			t.Error("still present")
		}
		b.want("stays.service runs 1", "web.service runs 1", "web.service ends 1", "stays.service ends 1")
		if err := b.agent.Halt(b.t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
		b.agent = nil
	})
}

func TestLostAnswers(t *testing.T) {
	onBed(t, func(b *bed) {
		b.start()
		for i := range 30 {
			b.client.LoseNext(2)
			b.place(web, unit.Launched, uint64(i+1))
			time.Sleep(3 * time.Second) // below the start limit
		}
		b.rest()
		b.wantState(web, "loaded active 30")
		b.client.LoseNext(2)
		b.unplace(web)
		time.Sleep(5 * time.Second)
		b.wantState(web, "")
	})
}

func TestFileCacheIsAtomic(t *testing.T) {
	// The directory may be missing or full: the agent goes on without a cache.
	onBed(t, func(b *bed) {
		o := b.options(b.client, b.fake)
		o.Cache, o.DataDir = nil, t.TempDir()+"/missing"
		b.startWith(o)
		b.place(web, unit.Launched, 1)
		b.want("web.service runs 1")
	})
	onBed(t, func(b *bed) {
		o := b.options(b.client, b.fake)
		o.Cache, o.DataDir = nil, t.TempDir()
		b.startWith(o)
		b.place(web, unit.Launched, 1)
		b.want("web.service runs 1")
		b.kill()
		b.client.Down(true)
		b.fake.PowerCut()
		b.fake.PowerOn()
		b.boot++
		b.startWith(o)
		time.Sleep(5 * time.Second)
		b.want("web.service ends 1", "web.service runs 1")
	})
}

// That the cluster does not know a machine is how each one begins, and an error once it was known.
func TestNotJoinedYetIsNoError(t *testing.T) {
	const notYet, lost = `level=INFO msg="this machine has not joined yet"`, `level=ERROR msg="the cluster does not know this machine any more`
	for _, x := range []struct {
		name   string
		cached string
		want   string
	}{
		{"new", "", notYet},
		{"restarted before it joined", `{"places":null,"starts":[]}`, notYet},
		{"had units", `{"places":[{"unit":{"name":"web.service"},"machine":"` + string(id) + `"}],"starts":[]}`, lost},
	} {
		t.Run(x.name, func(t *testing.T) {
			onBed(t, func(b *bed) {
				if x.cached != "" {
					b.must(b.cache.Save([]byte(x.cached)))
				}
				_, err := b.store.Machines.Delete(t.Context(), string(id))
				b.must(err)
				var out lockedText
				o := b.options(b.client, b.fake)
				o.Log = slog.New(slog.NewTextHandler(&out, nil))
				b.startWith(o)
				if got := out.String(); !strings.Contains(got, x.want) || x.want == notYet && strings.Contains(got, "ERROR") {
					t.Errorf("before it joined:\n%s", got)
				}
				b.must(b.store.Machines.Put(t.Context(), string(id), machine.Machine{ID: id, Name: "m1"}, 0))
				b.rest()
				_, err = b.store.Machines.Delete(t.Context(), string(id))
				b.must(err)
				b.rest()
				if got := out.String(); !strings.Contains(got, lost) {
					t.Errorf("after it was removed:\n%s", got)
				}
			})
		})
	}
}

// lockedText is a strings.Builder for several goroutines.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
