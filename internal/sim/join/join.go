// Package join is a crowd of machines that join one cluster, on virtual time: real desks (room admit) with real identities (room trust) on five voters,
// over the store in memory, inside a testing/synctest bubble. Stores are slow, away, or lose answers; voters die and come back; the
// machines that join crash at any step and begin again from the same disk. Only tests use it.
//
// What holds after each change of the store is in check.go: names are unique, no token is used more often than it may be, members' keys are
// their own, and who was removed never gets anything again. What holds in the end is in verdict.go: every machine is a member or knows why not,
// and the reason is true.
//
// A seed chooses who comes, when, and what goes wrong: go test ./internal/sim/join -run Crowd -seed N -count 20.
//
// Start reading at World and Tell (crowd.go).
package join

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"flota/internal/admit"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
)

// T is what a story needs of a test.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// World is a cluster of voters and all who want to be in it. Make one with New in a synctest bubble, and End it there.
type World struct {
	t     T
	dir   string // where the machines' disks lie
	mem   *mem.Mem
	store *store.Store // the truth, not through anybody's client
	seats []*seat
	hash  string // of the cluster's authority
	began time.Time
	log   *slog.Logger
	late  sync.WaitGroup // requests whose senders may be dead

	mu       sync.Mutex // guards the fields below
	story    []string
	broken   bool
	keys     map[machine.ID]map[string]bool // hashes of the keys that machines with the ID have made
	removed  map[machine.ID]time.Time       // when each machine was removed
	machines int                            // how many disks were made
	rnd      *rand.Rand                     // of latency

	endWatch func()
	watched  chan struct{}
}

// voters is how many machines hold the authority's key: the most that a cluster has.
const voters = 5

// New founds a cluster and starts its voters, whose clocks differ as seed says. Disks lie in dir.
func New(t T, dir string, seed uint64) *World {
	w := &World{t: t, dir: dir, mem: mem.New(), began: time.Now(), keys: map[machine.ID]map[string]bool{}, removed: map[machine.ID]time.Time{}, rnd: rand.New(rand.NewPCG(seed, 0x100f))}
	w.store = store.New(w.mem)
	w.log = slog.New(slog.NewTextHandler(diary{w}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	w.watch()
	w.found()
	rnd := rand.New(rand.NewPCG(seed, 0x1010))
	for _, s := range w.seats {
		s.off = time.Duration(rnd.IntN(121)-60) * time.Second
		s.boot()
	}
	time.Sleep(time.Second)
	return w
}

// found makes the voters' identities and records: the first founds the cluster, the others join it and get the authority's key.
func (w *World) found() {
	ctx := w.t.Context()
	for n := 1; n <= voters; n++ {
		w.seats = append(w.seats, w.newSeat(n))
	}
	first := w.seats[0]
	i, err := trust.Found(first.trust, first.subject())
	w.must(err)
	w.hash = i.CAHash()
	w.own(first.id, i.KeyHash())
	desk := admit.New(admit.Options{Store: w.store, Identity: i, ID: first.id, Name: first.name, Log: w.log})
	w.must(desk.Found(ctx))
	w.must(first.vote(ctx))
	made, err := desk.CreateToken(ctx, admit.NewToken{Uses: voters})
	w.must(err)
	keys, err := i.Keys()
	w.must(err)
	for _, s := range w.seats[1:] {
		csr, err := trust.Request(s.trust, s.subject())
		w.must(err)
		_, key, err := trust.ReadRequest(csr)
		w.must(err)
		w.own(s.id, key)
		a, err := desk.Admit(ctx, admit.JoinRequest{Token: made.Text, ID: s.id, Name: s.name, Addr: s.addr, Clock: time.Now(), CSR: csr})
		w.must(err)
		own, err := trust.Install(s.trust, a.Grant)
		w.must(err)
		w.must(own.KeepAuthority(keys))
		w.must(s.vote(ctx))
	}
}

// End stops everything. The story is over.
func (w *World) End() {
	for _, s := range w.seats {
		s.kill()
	}
	w.late.Wait()
	w.endWatch()
	<-w.watched
	w.must(w.mem.Close())
}

// disk gives a new machine its directory and its number, which its ID and address follow from.
func (w *World) disk() (dir string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machines++
	return filepath.Join(w.dir, fmt.Sprint("disk", w.machines)), w.machines
}

// idOf is the ID of machine n.
func idOf(n int) machine.ID { return machine.ID(fmt.Sprintf("%04x%s", n, strings.Repeat("0", 28))) }

// addrOf is the address of machine n.
func addrOf(n int) string { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}).String() }

// latency is how long one call of the store takes when all is well: so that the calls of different voters mix.
func (w *World) latency() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(200+w.rnd.IntN(1500)) * time.Microsecond
}

// own notes that a machine with the ID has the key.
func (w *World) own(id machine.ID, key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[id] == nil {
		w.keys[id] = map[string]bool{}
	}
	w.keys[id][key] = true
}

// owns says whether one of the machines with the ID has the key.
func (w *World) owns(id machine.ID, key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[id][key]
}

// diary takes the log of the rooms into the story.
type diary struct{ w *World }

func (d diary) Write(b []byte) (int, error) {
	d.w.tell("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

// keepStory is how much of the story a failure shows.
const keepStory = 200

// tell adds to the story.
func (w *World) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%9.3fs %s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...)))
	if len(w.story) > 4*keepStory {
		w.story = append([]string{}, w.story[len(w.story)-keepStory:]...)
	}
}

// fail reports what must not be, with the last of the story; only the first one of a story is worth reading.
func (w *World) fail(format string, args ...any) {
	w.t.Helper()
	w.mu.Lock()
	first := !w.broken
	w.broken = true
	story := strings.Join(w.story[max(0, len(w.story)-keepStory):], "\n")
	w.mu.Unlock()
	if first {
		w.t.Errorf("%9.3fs %s\nthe story until then:\n%s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...), story)
	}
}

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("the story cannot go on: %v", err)
	}
}
