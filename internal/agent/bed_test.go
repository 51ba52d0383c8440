package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"flota/internal/agent"
	"flota/internal/driver"
	"flota/internal/driver/fake"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = machine.ID("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

// memory is a Cache.
type memory struct {
	mu sync.Mutex
	b  []byte
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b, nil
}

func (m *memory) Save(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.b = b
	return nil
}

// bed is a machine with a store, on virtual time. Make one with onBed.
type bed struct {
	t      *testing.T
	mem    *mem.Mem
	client *mem.Faulty // the agent's
	store  *store.Store
	fake   *fake.Driver
	cache  *memory
	log    *strings.Builder
	boot   int

	mu      sync.Mutex
	history []string // what began and ended to run
	agent   *agent.Agent
	end     context.CancelFunc
	done    chan struct{}
}

// onBed runs f with a machine whose record is in the store, and ends what is left.
func onBed(t *testing.T, f func(b *bed)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, mem: mem.New(), cache: &memory{}, log: &strings.Builder{}}
		b.client, b.store = b.mem.Client(), store.New(b.mem)
		b.fake = fake.New(fake.Options{OnRun: func(name unit.Name, run uint64, started bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			word := "ends"
			if started {
				word = "runs"
			}
			b.history = append(b.history, fmt.Sprintf("%s %s %d", name, word, run))
		}})
		b.must(b.store.Machines.Put(t.Context(), string(id), machine.Machine{ID: id, Name: "m1"}, 0))
		f(b)
		b.kill()
		b.must(b.client.Close())
		b.must(b.mem.Close())
		b.fake.PowerCut()
	})
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// options are those of the next agent.
func (b *bed) options(client store.KV, d driver.Driver) agent.Options {
	return agent.Options{ID: id, Presence: machine.Presence{Name: "m1", Addr: "127.7.0.1", BootID: fmt.Sprint("boot", b.boot)}, Store: store.New(client),
		Driver: d, Cache: b.cache, Log: slog.New(slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

// start starts an agent and lets it come to rest.
func (b *bed) start() {
	b.t.Helper()
	b.startWith(b.options(b.client, b.fake))
}

func (b *bed) startWith(o agent.Options) {
	b.t.Helper()
	time.Sleep(time.Millisecond) // so that no two agents start at the same time
	b.agent = agent.New(o)
	ctx, end := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	b.end, b.done = end, done
	a := b.agent
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			b.t.Error(err)
		}
	}()
	b.rest()
}

// stop is a planned restart's first half.
func (b *bed) stop() {
	b.end()
	<-b.done
	b.agent = nil
}

// kill ends the agent without a word to the store.
func (b *bed) kill() {
	if b.agent == nil {
		return
	}
	b.client.Down(true)
	b.stop()
	b.client.Down(false)
}

// rest lets everything that is under way come to rest.
func (b *bed) rest() { time.Sleep(400 * time.Millisecond); synctest.Wait() }

func (b *bed) place(name unit.Name, target unit.Target, run uint64, options ...unit.Option) {
	b.t.Helper()
	p := unit.Place{Machine: id, Unit: unit.Unit{Name: name, Target: target, Run: run, Options: options}, Since: time.Now(), Reason: "a test wants it"}
	b.must(b.store.Places.Put(b.t.Context(), store.PlaceKey(id, name), p, 0))
}

func (b *bed) unplace(name unit.Name) {
	b.t.Helper()
	_, err := b.store.Places.Delete(b.t.Context(), store.PlaceKey(id, name))
	b.must(err)
}

// state gives what the store says of the unit, as "load active run message".
func (b *bed) state(name unit.Name) string {
	b.t.Helper()
	e, ok, err := b.store.States.Get(b.t.Context(), store.PlaceKey(id, name), store.Read{})
	b.must(err)
	if !ok {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %d", e.Value.Load, e.Value.Active, e.Value.Run))
}

// presence gives this machine's presence; ok is false for none.
func (b *bed) presence() (machine.Presence, bool) {
	b.t.Helper()
	e, ok, err := b.store.Alive.Get(b.t.Context(), string(id), store.Read{})
	b.must(err)
	return e.Value, ok
}

// want compares what ran since the last want, in no order.
func (b *bed) want(story ...string) {
	b.t.Helper()
	b.rest()
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.history) // units start side by side
	slices.Sort(story)
	if got, want := strings.Join(b.history, ", "), strings.Join(story, ", "); got != want {
		b.t.Errorf("ran: %s\nwant: %s", got, want)
	}
	b.history = nil
}

func (b *bed) wantState(name unit.Name, want string) {
	b.t.Helper()
	if got := b.state(name); got != want {
		b.t.Errorf("state of %s: %q, want %q", name, got, want)
	}
}
