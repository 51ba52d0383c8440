// Package sim is the whole cluster in one process on virtual time: machines with view, leader and agent over the store in memory and fake
// drivers, inside a testing/synctest bubble. A story does to it what operators, users, networks and power supplies do, and the
// promises of the design are checked all the while. Only tests use it.
//
// The invariants that it checks are in checks.go; what can go wrong with a machine is in gate.go and node.go; chaos_test.go tells
// random stories. A seed chooses the story; the order of goroutines is the runtime's, so a rare failure may need the same
// seed several times: go test ./internal/sim -run Seeds -seed N -count 20.
//
// A cluster may have voters (NewVoters): then the store answers while a majority of them lives (room sim/engine), and the real steward keeps
// them as they should be; council.go is what can be done to it, seat.go what a machine's process does for it.
//
// It never looks into a room: it uses what daemon uses.
// Start reading at Cluster and its verbs; they read as a story: c := sim.New(t, 5); c.Start("web", 3); c.Kill(2); c.Settle(); c.Want("web", 3).
package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"flota/internal/driver/fake"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

// T is what a story needs of a test.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
	Cleanup(func())
}

// Cluster is a number of machines with their store. Make one with New in a synctest bubble, and End it there.
type Cluster struct {
	t       T
	mem     *mem.Mem
	truth   *store.Store // what the store holds, whoever can read it
	store   *store.Store // what the api of a machine in good health would write through
	council *council     // nil: all machines lead, and the store needs no majority
	began   time.Time
	log     *slog.Logger
	late    sync.WaitGroup // writes that are still on their way

	mu      sync.Mutex // guards the fields below
	nodes   []*Node    // machine 1 is nodes[0]
	story   []string   // what happened, for failures
	broken  bool       // a check failed; the rest of the story tells nothing
	running map[unit.Name]map[int]uint64

	endWatch func()
	watched  chan struct{}
}

// New makes n machines that are known to the cluster, and starts them.
func New(t T, n int) *Cluster {
	c := newCluster(t)
	c.watchStore(c.truth.Places.Prefix())
	for i := 1; i <= n; i++ {
		node := newNode(c, i)
		c.nodes = append(c.nodes, node)
		c.must(c.store.Machines.Put(t.Context(), string(node.id), machine.Machine{ID: node.id, Name: node.name}, 0))
	}
	for _, node := range c.nodes {
		node.boot()
	}
	time.Sleep(500 * time.Millisecond)
	return c
}

// newCluster makes one without machines.
func newCluster(t T) *Cluster {
	c := &Cluster{t: t, mem: mem.New(), began: time.Now(), running: map[unit.Name]map[int]uint64{}}
	c.truth = store.New(c.mem)
	c.store = c.truth
	c.log = slog.New(slog.NewTextHandler(diary{c}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return c
}

// End stops everything. The story is over.
func (c *Cluster) End() {
	for _, n := range c.all() {
		n.powerOff()
	}
	if c.council != nil {
		c.council.acts.Wait()
		c.council.end()
		c.council.ended.Wait()
		_ = c.council.face.Close()
	}
	c.late.Wait()
	c.endWatch()
	<-c.watched
	c.must(c.mem.Close())
}

// diary takes the log of the rooms into the story.
type diary struct{ c *Cluster }

func (d diary) Write(b []byte) (int, error) {
	d.c.tell("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

var _ io.Writer = diary{}

// keepStory is how much of the story a failure shows.
const keepStory = 150

// tell adds to the story.
func (c *Cluster) tell(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.story = append(c.story, fmt.Sprintf("%9.3fs %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...)))
	if len(c.story) > 4*keepStory {
		c.story = append([]string{}, c.story[len(c.story)-keepStory:]...)
	}
}

// fail reports a broken promise with the last of the story; only the first one of a story is worth reading.
func (c *Cluster) fail(format string, args ...any) {
	c.t.Helper()
	c.mu.Lock()
	first := !c.broken
	c.broken = true
	story := strings.Join(c.story[max(0, len(c.story)-keepStory):], "\n")
	c.mu.Unlock()
	if first {
		c.t.Errorf("%9.3fs %s\nthe story until then:\n%s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...), story)
	}
}

// Broken says whether a check has failed.
func (c *Cluster) Broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// Elapsed is the simulated time.
func (c *Cluster) Elapsed() time.Duration { return time.Since(c.began) }

// asked is must for what an operator asked for: it may have been asked while the store was away.
func (c *Cluster) asked(err error) {
	c.t.Helper()
	if c.council != nil && (fault.Is(err, fault.Unavailable) || fault.Is(err, fault.NotFound)) {
		c.tell("the cluster refuses: %v", err)
		return
	}
	c.must(err)
}

func (c *Cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("the story cannot go on: %v", err)
	}
}

// Pass lets time pass.
func (c *Cluster) Pass(d time.Duration) { time.Sleep(d) }

// options gives a unit file of "Section Key=Value" lines that does b on the fake driver.
func options(b fake.Behaviour, lines ...string) []unit.Option {
	text, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	all := []unit.Option{{Section: "X-Fake", Name: fake.BehaviourKey, Value: string(text)}}
	for _, l := range lines {
		section, rest, _ := strings.Cut(l, " ")
		key, value, _ := strings.Cut(rest, "=")
		all = append(all, unit.Option{Section: section, Name: key, Value: value})
	}
	return all
}

// Submit stores a unit with the lines "Section Key=Value", inactive; what is there already is left alone.
func (c *Cluster) Submit(name unit.Name, b fake.Behaviour, lines ...string) {
	c.tell("--- submit %s %s", name, strings.Join(lines, "; "))
	_ = c.store.Units.Create(c.t.Context(), string(name), unit.Unit{Name: name, Options: options(b, lines...), Target: unit.Inactive, Created: time.Now(), Changed: time.Now()})
}

// change changes a unit if it is there, as the api does.
func (c *Cluster) change(word string, name unit.Name, f func(u *unit.Unit)) {
	c.tell("--- %s %s", word, name)
	_, _ = c.store.Units.Update(c.t.Context(), string(name), func(u *unit.Unit) error {
		f(u)
		u.Changed = time.Now()
		return nil
	})
}

// Start submits and launches count instances of name, or the unit of that name if count is 0.
func (c *Cluster) Start(name string, count int, lines ...string) {
	for _, n := range names(name, count) {
		c.Submit(n, fake.Behaviour{}, lines...)
		c.Launch(n)
	}
}

// names gives "web@1.service" and so on for web and a count, "web.service" for 0.
func names(name string, count int) []unit.Name {
	if count == 0 {
		return []unit.Name{unit.Name(name + ".service")}
	}
	var all []unit.Name
	for i := 1; i <= count; i++ {
		all = append(all, unit.Name(fmt.Sprintf("%s@%d.service", name, i)))
	}
	return all
}

// Launch wants the unit started.
func (c *Cluster) Launch(n unit.Name) {
	c.change("start", n, func(u *unit.Unit) {
		if u.Target != unit.Launched {
			u.Target = unit.Launched
			u.Run++
		}
	})
}

// Stop wants the unit loaded, Unload inactive, Restart started anew, Replace with another content.
func (c *Cluster) Stop(n unit.Name) {
	c.change("stop", n, func(u *unit.Unit) { u.Target = unit.Loaded })
}

// Unload wants the unit on no machine.
func (c *Cluster) Unload(n unit.Name) {
	c.change("unload", n, func(u *unit.Unit) { u.Target = unit.Inactive })
}

// Restart wants the unit started anew.
func (c *Cluster) Restart(n unit.Name) {
	c.change("restart", n, func(u *unit.Unit) { u.Target = unit.Launched; u.Run++ })
}

// Replace gives the unit another content, and starts it anew with it if it is launched.
func (c *Cluster) Replace(n unit.Name, mark string) {
	c.change("replace", n, func(u *unit.Unit) {
		u.Options = append(u.Options[:len(u.Options):len(u.Options)], unit.Option{Section: "Service", Name: "Environment", Value: mark})
		if len(u.Options) > 12 { // so that a long story does not make long files
			u.Options = append(u.Options[:8:8], u.Options[len(u.Options)-1])
		}
		if u.Target == unit.Launched {
			u.Run++
		}
	})
}

// Destroy deletes the unit.
func (c *Cluster) Destroy(n unit.Name) {
	c.tell("--- destroy %s", n)
	_, err := c.store.Units.Delete(c.t.Context(), string(n))
	c.asked(err)
}

// Drain takes machine i's units away, or lets it have some again.
func (c *Cluster) Drain(i int, drained bool) {
	c.tell("--- drain m%d: %v", i, drained)
	_, err := c.store.Machines.Update(c.t.Context(), string(c.node(i).id), func(m *machine.Machine) error { m.Drained = drained; return nil })
	c.asked(err)
}

// Label gives machine i a label.
func (c *Cluster) Label(i int, key, value string) {
	c.tell("--- label m%d %s=%s", i, key, value)
	_, err := c.store.Machines.Update(c.t.Context(), string(c.node(i).id), func(m *machine.Machine) error {
		labels := map[string]string{key: value}
		for k, v := range m.Labels {
			if k != key {
				labels[k] = v
			}
		}
		m.Labels = labels
		return nil
	})
	c.asked(err)
}

// node gives machine i, from 1.
func (c *Cluster) node(i int) *Node { return c.all()[i-1] }

// all gives the machines so far, removed ones too.
func (c *Cluster) all() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[:len(c.nodes):len(c.nodes)]
}

// Blackout takes the store away from all machines for d.
func (c *Cluster) Blackout(o mem.Outage, d time.Duration) {
	c.tell("--- the store is away for %s (%d)", d, o)
	for _, n := range c.all() {
		n.cut(o)
	}
	time.Sleep(d)
	for _, n := range c.all() {
		n.cut(mem.None)
	}
	c.tell("--- the store is back")
}
