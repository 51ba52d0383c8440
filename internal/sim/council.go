package sim

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/sim/engine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
)

// council is what a cluster has in which machines become voters and stop being voters: the store answers while their majority lives. Without one
// (New) every machine leads, and the store is always there.
type council struct {
	engine   *engine.Engine
	dir      string // where the machines' copies of the store lie
	settings quorum.Settings
	desk     *admit.Desk // removes machines
	face     *mem.Faulty // an operator's way to the store: by any machine that is well
	acts     sync.WaitGroup
	end      context.CancelFunc // of what the desk does by itself
	ended    sync.WaitGroup

	reach sync.Mutex // one at a time finds out who reaches the store
}

// Voters says how a cluster with voters begins.
type Voters struct {
	Dir      string // for the machines' disks
	Machines int
	Witness  int // which machine runs no units and only votes; 0: none
	Settings quorum.Settings
}

// NewVoters makes machines of which the first founds the cluster, and waits until the voters are as they should be.
func NewVoters(t T, v Voters) *Cluster {
	c := newCluster(t)
	c.council = &council{engine: engine.New(), dir: v.Dir, settings: v.Settings, face: c.mem.Client()}
	c.engine().Changed, c.engine().Broken = c.reach, c.fail
	c.store = store.New(c.council.face)
	c.watchStore(store.Prefix)
	c.must(c.truth.Cluster.Put(t.Context(), store.ThisCluster, machine.Cluster{ID: "c", Epoch: 1}, 0))
	who := trust.Options{Dir: filepath.Join(v.Dir, "operator")}
	i, err := trust.Found(who, trust.Subject{ID: idOf(15), Name: "operator", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.99")}})
	c.must(err)
	c.council.desk = admit.New(admit.Options{Store: c.store, Identity: i, ID: idOf(15), Name: "operator", Log: c.log})
	run, end := context.WithCancel(context.Background())
	c.council.end = end
	c.council.ended.Go(func() { _ = c.council.desk.Run(run) }) // it finishes removals that broke off
	for n := 1; n <= v.Machines; n++ {
		c.join(fmt.Sprint("zone", n%3), n == v.Witness)
	}
	c.Council(2 * time.Minute)
	return c
}

func (c *Cluster) engine() *engine.Engine { return c.council.engine }

// join adds a machine to the table and starts it.
func (c *Cluster) join(zone string, witness bool) *Node {
	c.mu.Lock()
	n := newNode(c, len(c.nodes)+1)
	n.zone, n.witness, n.peer, n.epoch = zone, witness, fmt.Sprintf("10.0.0.%d:7701", n.i), 1
	n.copy = filepath.Join(c.council.dir, n.name, "store")
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	c.tell("--- %s joins, %s, witness: %v", n.name, zone, witness)
	m := machine.Machine{ID: n.id, Name: n.name, Joined: time.Now(), Witness: witness, Key: "of " + n.name}
	c.must(c.truth.Machines.Put(c.t.Context(), string(n.id), m, 0))
	n.boot()
	return n
}

// Join lets a new machine in. There are never more than 14, whose IDs are told apart by one digit.
func (c *Cluster) Join(zone string, witness bool) int { return c.join(zone, witness).i }

// Remove has an operator remove machine i, for which it waits at most 3 min; done is called with what became of it.
func (c *Cluster) Remove(i int, force bool, done func(error)) {
	n := c.node(i)
	c.tell("--- remove %s, by force: %v", n.name, force)
	c.council.acts.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		err := c.council.desk.Remove(ctx, string(n.id), admit.RemoveOptions{Force: force, Tell: func(s string) { c.tell("%s", s) }})
		c.tell("--- removed %s: %v", n.name, err)
		done(err)
	})
}

// Recover has machine i make its copy of the store the only one.
func (c *Cluster) Recover(i int) error {
	c.tell("--- recover on m%d", i)
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	err := fault.New(fault.NotFound, "m%d does not run", i)
	c.node(i).on(func(p *process) {
		if l := p.seat.opened(); l != nil {
			err = l.Recover(ctx)
		}
	})
	return err
}

// Isolate cuts machine i off all others, or ends that.
func (c *Cluster) Isolate(i int, isolated bool) {
	if isolated {
		c.Cut(i, mem.NoQuorum)
	} else {
		c.Cut(i, mem.None)
	}
}

// gone notes that the machine was removed: from now on nobody hears it. Every second one hears of it before.
func (n *Node) gone() {
	n.mu.Lock()
	n.removed, n.halted = true, true
	n.mu.Unlock()
	if n.i%2 == 1 {
		n.cut(mem.Refused)
		return
	}
	n.c.late.Go(func() {
		time.Sleep(time.Second)
		n.cut(mem.Refused)
	})
}

// evicted is what a machine does that hears that it was removed: its units end there, and it stays off.
func (n *Node) evicted(p *process) {
	n.c.tell("%s hears that it was removed", n.name)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = p.agent.Halt(ctx)
	n.end(p)
	n.powerOff()
}

// isGone says whether the machine was removed.
func (n *Node) isGone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.removed
}

// reach finds out what each machine gets of the store, after the members or the network have changed.
func (c *Cluster) reach() {
	k := c.council
	k.reach.Lock()
	defer k.reach.Unlock()
	any := mem.Refused
	for _, n := range c.all() {
		n.mu.Lock()
		p, how := n.proc, n.outage
		n.mu.Unlock()
		if all, stale := c.engine().Reach(n.peer); how == mem.None && !all {
			how = mem.Refused
			if stale {
				how = mem.NoQuorum
			}
		}
		if how == mem.None {
			any = mem.None
		}
		if p != nil && p.had != how {
			p.had = how
			p.client.Cut(how)
		}
	}
	k.face.Cut(any)
}

// reachable tells the engine whether the machine can take part.
func (n *Node) reachable() {
	n.mu.Lock()
	p, out := n.proc, n.outage != mem.None
	n.mu.Unlock()
	if p != nil {
		out = out || p.gate.stands()
	}
	n.c.engine().Cut(n.peer, out)
	n.c.reach()
}
