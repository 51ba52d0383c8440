package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// directory is who is in the cluster and where, as this machine last heard: what it needs to find the store. It is followed in the store and
// remembered on disk, so that a machine finds its cluster after days, whoever votes by then.
type directory struct {
	path string // voters.json
	self machine.ID
	log  *slog.Logger
	// told is called, from one goroutine, after each change.
	told func(*directory)

	mu      sync.Mutex // guards the fields below
	voters  []string   // API addresses of the machines that hold the store, this one left out
	others  []string   // of other machines
	alive   map[machine.ID]machine.Presence
	votes   map[machine.ID]machine.Vote
	changed chan struct{} // capacity 1
}

// remembered is the form of voters.json.
type remembered struct {
	Voters []string `json:"voters"`
	Others []string `json:"others,omitempty"`
}

// maxOthers bounds how many machines without the store are remembered: enough to find one that knows the voters when all of those were replaced.
const maxOthers = 32

// openDirectory reads what was remembered; nothing on a first start.
func openDirectory(path string, self machine.ID, log *slog.Logger, told func(*directory)) *directory {
	d := &directory{
		path: path, self: self, log: log, told: told, changed: make(chan struct{}, 1),
		alive: map[machine.ID]machine.Presence{}, votes: map[machine.ID]machine.Vote{},
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d
	}
	var r remembered
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil { // it is a memory aid: without it the flags of flota up, or a newer one, must do
		log.Warn("the addresses of the voters that were remembered cannot be read", "file", path, "err", err)
		return d
	}
	d.voters, d.others = r.Voters, r.Others
	return d
}

// Voters gives the API addresses of the machines that hold the store, as last heard; this machine is left out.
func (d *directory) Voters() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.voters)
}

// All gives the voters first, then other machines.
func (d *directory) All() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Concat(d.voters, d.others)
}

// Learn takes over what another machine said of the voters.
func (d *directory) Learn(voters []string) {
	if len(voters) == 0 {
		return
	}
	d.mu.Lock()
	same := slices.Equal(d.voters, voters)
	d.voters = slices.Clone(voters)
	d.mu.Unlock()
	if !same {
		d.wake()
	}
}

func (d *directory) wake() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Run follows the store and remembers, until ctx ends.
func (d *directory) Run(ctx context.Context, st *store.Store) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		_ = store.Follow(ctx, st.KV, st.Alive.Prefix(), &follower[machine.Presence]{table: st.Alive, d: d, into: d.alive}, nil)
	})
	all.Go(func() {
		_ = store.Follow(ctx, st.KV, st.Voters.Prefix(), &follower[machine.Vote]{table: st.Voters, d: d, into: d.votes}, nil)
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
			if err := d.remember(); err != nil {
				d.log.Warn("remember who holds the store", "err", err)
			}
			d.told(d)
		}
	}
}

// remember writes voters.json.
func (d *directory) remember() error {
	d.mu.Lock()
	b, err := json.Marshal(remembered{d.voters, d.others})
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", d.path, err)
	}
	return os.Rename(d.path+".new", d.path)
}

// settle works the addresses out of what was followed. A voter that is away keeps the place it has in memory, since it may be back; without
// any voter what was known stays. d.mu is held.
func (d *directory) settle() {
	voters, others := map[string]bool{}, map[string]bool{}
	for id, p := range d.alive {
		switch {
		case id == d.self || p.API == "":
		case d.votes[id].Role == machine.Voter:
			voters[p.API] = true
		default:
			others[p.API] = true
		}
	}
	if len(voters) > 0 {
		d.voters = slices.Sorted(maps.Keys(voters))
	}
	list := slices.Sorted(maps.Keys(others))
	d.others = list[:min(len(list), maxOthers)]
}

// follower keeps one map of a directory.
type follower[T any] struct {
	table store.Table[T]
	d     *directory
	into  map[machine.ID]T
}

// Reset implements store.Follower.
func (f *follower[T]) Reset(items []store.Item, _ int64) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	clear(f.into)
	for _, it := range items {
		f.put(it)
	}
	f.d.settle()
	f.d.wake()
}

// Apply implements store.Follower.
func (f *follower[T]) Apply(u store.Update) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	for _, e := range u.Events {
		if e.Deleted {
			key, _ := f.table.Match(e.Key)
			delete(f.into, machine.ID(key))
			continue
		}
		f.put(e.Item)
	}
	f.d.settle()
	f.d.wake()
}

// put takes one item over; what cannot be read stays what it was.
func (f *follower[T]) put(it store.Item) {
	e, err := f.table.Decode(it)
	if err != nil {
		f.d.log.Warn("a record cannot be read", "err", err)
		return
	}
	f.into[machine.ID(e.Key)] = e.Value
}

// errNobody says that no machine is known that could be asked.
var errNobody = fault.WithHint(fault.New(fault.Unavailable, "this machine knows no other machine of its cluster"),
	"start it with --join ADDRESS:PORT of a machine that runs")
