package voter

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/machine"
	"flota/internal/store"
)

// leaderKey is where store.Campaign keeps the leading machine's ID.
const leaderKey = store.Prefix + "leader"

// unseen is how long a machine that this process never saw is not counted as lost. 10 s, as room view has it: machines that boot together find
// each other first.
const unseen = 10 * time.Second

// sight follows what a plan may depend on: it tells that something has changed, and remembers since when machines are away, by this
// machine's own clock. What a plan is made of is read anew, linearizably.
type sight struct {
	store *store.Store

	mu      sync.Mutex // guards the fields below
	changed chan struct{}
	began   time.Time
	alive   map[machine.ID]bool
	lost    map[machine.ID]time.Time // when a presence that was seen went
	back    map[machine.ID]time.Time // of machines that are there again: since when
	leader  machine.ID
}

func newSight(s *store.Store) *sight {
	return &sight{store: s, changed: make(chan struct{}), alive: map[machine.ID]bool{}, lost: map[machine.ID]time.Time{}, back: map[machine.ID]time.Time{}}
}

// run follows the tables until ctx ends.
func (s *sight) run(ctx context.Context) error {
	s.mu.Lock()
	s.began = time.Now()
	s.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	for prefix, put := range map[string]func(key string, it *store.Item){
		s.store.Machines.Prefix(): func(string, *store.Item) {},
		s.store.Voters.Prefix():   func(string, *store.Item) {},
		s.store.Alive.Prefix():    s.presence,
		leaderKey:                 s.leads,
	} {
		g.Go(func() error {
			return store.Follow(ctx, s.store.KV, prefix, &follower{prefix: prefix, put: put, sight: s, keys: map[string]bool{}}, nil)
		})
	}
	return g.Wait()
}

// presence notes that a machine is there (it not nil) or gone. The lock is held.
func (s *sight) presence(key string, it *store.Item) {
	id := machine.ID(key)
	switch now := time.Now(); {
	case it == nil && s.alive[id]:
		delete(s.alive, id)
		s.lost[id] = now
	case it != nil && !s.alive[id]:
		s.alive[id] = true
		if _, ok := s.lost[id]; ok {
			s.back[id] = now
			delete(s.lost, id)
		}
	}
}

// leads notes who leads. The lock is held.
func (s *sight) leads(key string, it *store.Item) {
	if key != "" {
		return // a key that only begins alike
	}
	s.leader = ""
	if it != nil {
		s.leader = machine.ID(it.Value)
	}
}

// look gives who leads, and a channel that is closed at the next change.
func (s *sight) look() (machine.ID, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader, s.changed
}

// since gives when a machine that is not there was lost, and since when one that was away is there again.
func (s *sight) since(id machine.ID) (lost, back time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost, ok := s.lost[id]
	if !ok {
		lost = s.began.Add(unseen)
	}
	return lost, s.back[id]
}

// follower is one table's store.Follower.
type follower struct {
	prefix string
	put    func(key string, it *store.Item)
	sight  *sight
	keys   map[string]bool
}

// Reset implements store.Follower.
func (f *follower) Reset(items []store.Item, _ int64) {
	f.sight.mu.Lock()
	defer f.sight.mu.Unlock()
	there := map[string]bool{}
	for i := range items {
		key := items[i].Key[len(f.prefix):]
		there[key] = true
		f.put(key, &items[i])
	}
	for key := range f.keys {
		if !there[key] {
			f.put(key, nil)
		}
	}
	f.keys = there
	f.sight.tell()
}

// Apply implements store.Follower.
func (f *follower) Apply(u store.Update) {
	f.sight.mu.Lock()
	defer f.sight.mu.Unlock()
	for _, e := range u.Events {
		key := e.Key[len(f.prefix):]
		if e.Deleted {
			delete(f.keys, key)
			f.put(key, nil)
		} else {
			f.keys[key] = true
			f.put(key, &e.Item)
		}
	}
	f.sight.tell()
}

// tell wakes who waits for a change. The lock is held.
func (s *sight) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}
