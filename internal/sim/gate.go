package sim

import (
	"context"
	"strings"
	"sync"
	"time"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/unit"
)

// gate stands between the process of a machine and the world: all its calls of the store and the driver go through it. A
// process that is paused stands still in them, one that is dead reaches nothing any more.
type gate struct {
	mu      sync.Mutex // guards the fields below
	dead    bool
	paused  bool
	changed chan struct{}
	crash   int           // dies when so many more writes were made; 0: it does not
	before  bool          // dies before the last of them, not after
	late    time.Duration // the next write arrives so much later, when its writer has given up
	die     func()
	told    func() // told of each change of the above; nil: nobody is
}

// errDead is what a dead process gets; nobody sees it.
var errDead = fault.New(fault.Unavailable, "this process is dead")

func (g *gate) set(f func()) {
	g.mu.Lock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	if g.told != nil {
		g.told()
	}
}

// stands says whether the process does nothing now, for good or for a time.
func (g *gate) stands() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead || g.paused
}

// pass waits while the process is paused, and fails when it is dead.
func (g *gate) pass() error {
	for {
		g.mu.Lock()
		dead, paused, changed := g.dead, g.paused, g.changed
		g.mu.Unlock()
		switch {
		case dead:
			return errDead
		case !paused:
			return nil
		}
		<-changed
	}
}

// isDead says whether the process reaches nothing any more.
func (g *gate) isDead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

// count counts a write, and says whether it is the one to die at.
func (g *gate) count() (dies, before bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.crash == 0 {
		return false, false
	}
	g.crash--
	return g.crash == 0, g.before
}

// through makes a call that is no write.
func (g *gate) through(call func() error) error {
	if err := g.pass(); err != nil {
		return err
	}
	err := call()
	if dead := g.pass(); dead != nil {
		return dead
	}
	return err
}

// write makes a call that changes the store.
func (g *gate) write(call func() error) error {
	if err := g.pass(); err != nil {
		return err
	}
	dies, before := g.count()
	if dies && before {
		g.kill()
		return errDead
	}
	err := call()
	if dies {
		g.kill()
		return errDead
	}
	if dead := g.pass(); dead != nil {
		return dead
	}
	return err
}

// kill makes the process dead from within.
func (g *gate) kill() {
	g.set(func() { g.dead = true })
	go g.die()
}

// gatedKV is a process's way to the store. It also checks that each key is written by its one writer.
type gatedKV struct {
	store.KV
	g    *gate
	node *Node
	role string // agent, leader, steward or local
}

func (k *gatedKV) List(ctx context.Context, prefix string, r store.Read) (items []store.Item, rev int64, err error) {
	err = k.g.through(func() (err error) { items, rev, err = k.KV.List(ctx, prefix, r); return err })
	return items, rev, err
}

func (k *gatedKV) Get(ctx context.Context, key string, r store.Read) (it store.Item, ok bool, err error) {
	err = k.g.through(func() (err error) { it, ok, err = k.KV.Get(ctx, key, r); return err })
	return it, ok, err
}

func (k *gatedKV) Commit(ctx context.Context, t store.Txn) (rev int64, ok bool, err error) {
	k.checkWriter(t)
	k.g.mu.Lock()
	late := k.g.late
	k.g.late = 0
	k.g.mu.Unlock()
	if late > 0 && k.g.pass() == nil {
		c := k.node.c
		c.tell("a write of m%d's %s arrives %s late: %s", k.node.i, k.role, late, t.Then[0].Key)
		c.late.Go(func() {
			time.Sleep(late)
			_, _, _ = c.mem.Commit(context.Background(), t) // it was sent: nothing can stop it
		})
		return 0, false, fault.New(fault.Unavailable, "no answer in time")
	}
	err = k.g.write(func() (err error) { rev, ok, err = k.KV.Commit(ctx, t); return err })
	return rev, ok, err
}

func (k *gatedKV) Grant(ctx context.Context, ttl time.Duration) (id store.LeaseID, err error) {
	err = k.g.write(func() (err error) { id, err = k.KV.Grant(ctx, ttl); return err })
	return id, err
}

func (k *gatedKV) Renew(ctx context.Context, id store.LeaseID) error {
	return k.g.write(func() error { return k.KV.Renew(ctx, id) })
}

func (k *gatedKV) Revoke(ctx context.Context, id store.LeaseID) error {
	return k.g.write(func() error { return k.KV.Revoke(ctx, id) })
}

func (k *gatedKV) Watch(ctx context.Context, prefix string, after int64) <-chan store.Update {
	out := make(chan store.Update)
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for u := range k.KV.Watch(ctx, prefix, after) {
			if k.g.pass() != nil {
				return
			}
			select {
			case out <- u:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// checkWriter holds the transaction against the keyspace: each key has one writer, and the leader's writes have their guard.
func (k *gatedKV) checkWriter(t store.Txn) {
	s, me := k.node.c.truth, string(k.node.id)
	for _, op := range t.Then {
		mine := false
		switch k.role {
		case "agent":
			mine = op.Key == s.Alive.Prefix()+me || strings.HasPrefix(op.Key, s.States.Prefix()+me+"/")
		case "leader":
			_, place := s.Places.Match(op.Key)
			mine = op.Key == store.Prefix+"leader" || place && t.If[0].Created != 0
		case "steward":
			_, vote := s.Voters.Match(op.Key)
			mine = vote && t.If[0].Created != 0
		}
		if !mine {
			k.node.c.fail("m%d's %s writes %s, which is another's or without a guard", k.node.i, k.role, op.Key)
		}
	}
}

// gatedDriver is a process's way to the driver.
type gatedDriver struct {
	driver.Driver
	g *gate
}

func (d *gatedDriver) Load(ctx context.Context, u unit.Unit) error {
	return d.g.through(func() error { return d.Driver.Load(ctx, u) })
}

func (d *gatedDriver) Start(ctx context.Context, name unit.Name, run uint64) error {
	return d.g.through(func() error { return d.Driver.Start(ctx, name, run) })
}

func (d *gatedDriver) Stop(ctx context.Context, name unit.Name) error {
	return d.g.through(func() error { return d.Driver.Stop(ctx, name) })
}

func (d *gatedDriver) Unload(ctx context.Context, name unit.Name) error {
	return d.g.through(func() error { return d.Driver.Unload(ctx, name) })
}

func (d *gatedDriver) Fence(ctx context.Context, left time.Duration) error {
	return d.g.through(func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return d.Driver.Fence(ctx, left)
	})
}

func (d *gatedDriver) Watch(ctx context.Context, f func(states []unit.State, first bool)) error {
	return d.g.through(func() error {
		return d.Driver.Watch(ctx, func(states []unit.State, first bool) {
			if d.g.pass() == nil {
				f(states, first)
			}
		})
	})
}
