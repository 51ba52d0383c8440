package sim

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flota/internal/agent"
	"flota/internal/driver/fake"
	"flota/internal/leader"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/store/relay"
	"flota/internal/unit"
	"flota/internal/view"
)

// Node is one machine: its power, its disk, its driver (which stands for the supervisor, too), and its process if one runs.
type Node struct {
	c    *Cluster
	i    int // from 1
	id   machine.ID
	name string
	fake *fake.Driver
	disk disk

	zone    string
	witness bool
	peer    string // where its member of the store would listen
	copy    string // where that member's data lies

	mu      sync.Mutex // guards the fields below
	boots   int
	power   bool
	halted  bool // its units were ended by a clean shutdown, or it was removed
	removed bool
	outage  mem.Outage // what the story does to its network
	epoch   int        // of the cluster, as its disk has it
	holds   bool       // the authority's key
	proc    *process
	runs    map[unit.Name]ran // the last run of each unit here, see checks.go
}

// process is one run of flota up.
type process struct {
	gate   *gate
	client *mem.Faulty
	as     func(role string) *store.Store
	agent  *agent.Agent
	desk   atomic.Pointer[leader.Desk] // nil: it never led
	seat   *seat                       // its part in the store; nil without a council
	had    mem.Outage                  // of the client; guarded by council.reach
	cancel context.CancelFunc
	done   chan struct{} // closed when all of it has ended
}

// disk is an agent.Cache that survives.
type disk struct {
	mu sync.Mutex
	b  []byte
}

func (d *disk) Load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b, nil
}

func (d *disk) Save(b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.b = b
	return nil
}

// idOf is the ID of machine i, up to 15.
func idOf(i int) machine.ID { return machine.ID(strings.Repeat(fmt.Sprintf("%x", i), 32)) }

func newNode(c *Cluster, i int) *Node {
	n := &Node{c: c, i: i, name: fmt.Sprint("m", i), id: idOf(i), runs: map[unit.Name]ran{}}
	n.fake = fake.New(fake.Options{OnRun: n.onRun})
	n.fake.PowerCut()
	return n
}

// boot gives the machine power, and starts its process.
func (n *Node) boot() {
	n.mu.Lock()
	on := n.power
	n.mu.Unlock()
	if n.isGone() {
		return
	}
	if !on {
		n.mu.Lock()
		n.boots++
		n.power, n.halted = true, false
		clear(n.runs)
		n.mu.Unlock()
		n.fake.PowerOn()
	}
	if p := n.current(); p != nil && p.gate.isDead() {
		n.end(p) // it is dying just now
	}
	n.start()
}

// start starts a process if none runs.
func (n *Node) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil || !n.power {
		return
	}
	c := n.c
	ctx, cancel := context.WithCancel(c.t.Context())
	p := &process{client: c.mem.Client(), cancel: cancel, done: make(chan struct{})}
	p.gate = &gate{changed: make(chan struct{}), die: func() { n.end(p) }}
	log := c.log.With("on", n.name)
	var way store.KV = p.client
	if c.council != nil {
		p.had, n.outage = mem.None, mem.None
		p.gate.told = n.reachable
		p.seat = &seat{n: n, p: p, relay: relay.New(log), log: log}
		p.seat.relay.Use(p.client)
		way = p.seat.relay
	}
	p.as = func(role string) *store.Store { return store.New(&gatedKV{way, p.gate, n, role}) }
	p.agent = agent.New(agent.Options{
		ID: n.id, Presence: machine.Presence{Name: n.name, Size: machine.Size{MemBytes: 1 << 30}, Addr: fmt.Sprint("127.7.0.", n.i), BootID: fmt.Sprint("boot", n.boots),
			Peer: n.peer, Labels: map[string]string{"zone": n.zone}},
		Store: p.as("agent"), Driver: &gatedDriver{n.fake, p.gate}, Cache: &n.disk, Log: log,
	})
	n.proc = p
	var hands sync.WaitGroup
	hands.Go(func() { _ = p.agent.Run(ctx) })
	if p.seat != nil {
		hands.Go(func() {
			n.reachable()
			p.seat.run(ctx, p.as("local"))
		})
	} else {
		leads, desk := p.as("leader"), leader.NewDesk()
		p.desk.Store(desk)
		v := view.New(view.Options{Store: leads, Log: log})
		hands.Go(func() { _ = v.Run(ctx) })
		hands.Go(func() {
			_ = leader.Run(ctx, leader.Options{ID: n.id, Store: leads, View: v, Desk: desk, Lease: agent.DefaultTTL, Log: log})
		})
	}
	go func() {
		hands.Wait()
		if p.seat != nil {
			_ = p.seat.relay.Close()
		}
		c.must(p.client.Close())
		close(p.done)
	}()
}

// end ends a process cleanly (or what is left of it, if it is dead) and waits for it.
func (n *Node) end(p *process) {
	p.gate.set(func() { p.gate.paused = false })
	p.cancel()
	<-p.done
	n.mu.Lock()
	if n.proc == p {
		n.proc = nil
	}
	n.mu.Unlock()
}

// current gives the process, nil for none.
func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// kill ends the process as kill -9 does.
func (n *Node) kill() {
	if p := n.current(); p != nil {
		p.gate.set(func() { p.gate.dead = true })
		n.end(p)
	}
}

// powerOff cuts the machine's power.
func (n *Node) powerOff() {
	n.mu.Lock()
	n.power = false
	n.mu.Unlock()
	if p := n.current(); p != nil {
		p.gate.set(func() { p.gate.dead = true })
	}
	n.fake.PowerCut()
	n.kill()
}

// on calls f with the process, if there is one.
func (n *Node) on(f func(p *process)) {
	if p := n.current(); p != nil {
		f(p)
	}
}

// cut makes or ends an outage of the store for this machine.
func (n *Node) cut(o mem.Outage) {
	if n.c.council == nil {
		n.on(func(p *process) { p.client.Cut(o) })
		return
	}
	n.mu.Lock()
	if !n.removed || o != mem.None {
		n.outage = o
	}
	n.mu.Unlock()
	n.reachable()
}

// hears says whether anybody reaches the machine.
func (n *Node) hears() bool {
	n.mu.Lock()
	p, well := n.proc, n.outage == mem.None
	n.mu.Unlock()
	return well && p != nil && !p.gate.stands()
}

// Kill cuts the power of machine i.
func (c *Cluster) Kill(i int) {
	c.tell("--- power cut of m%d", i)
	c.node(i).powerOff()
}

// Boot gives machine i power again, or its process back.
func (c *Cluster) Boot(i int) {
	c.tell("--- m%d boots", i)
	c.node(i).boot()
}

// KillAgent ends machine i's process as kill -9 does; its units are not touched. Boot starts it again.
func (c *Cluster) KillAgent(i int) {
	c.tell("--- kill -9 of m%d's process", i)
	c.node(i).kill()
}

// StopAgent ends machine i's process cleanly, as for an upgrade. Boot starts it again.
func (c *Cluster) StopAgent(i int) {
	c.tell("--- planned stop of m%d's process", i)
	if p := c.node(i).current(); p != nil {
		c.node(i).end(p)
	}
}

// CrashAgent kills machine i's process before or after the n-th write from now.
func (c *Cluster) CrashAgent(i, n int, before bool) {
	c.tell("--- m%d's process will die at write %d (before it: %v)", i, n, before)
	c.node(i).on(func(p *process) { p.gate.set(func() { p.gate.crash, p.gate.before = n, before }) })
}

// Pause makes machine i's process stand still, or go on.
func (c *Cluster) Pause(i int, paused bool) {
	c.tell("--- pause m%d's process: %v", i, paused)
	c.node(i).on(func(p *process) { p.gate.set(func() { p.gate.paused = paused }) })
}

// Cut cuts machine i off the store; mem.None ends it.
func (c *Cluster) Cut(i int, o mem.Outage) {
	c.tell("--- m%d is cut off the store: %d", i, o)
	c.node(i).cut(o)
}

// Delay makes the next write of machine i arrive so much later; its writer gets no answer.
func (c *Cluster) Delay(i int, d time.Duration) {
	c.node(i).on(func(p *process) { p.gate.set(func() { p.gate.late = d }) })
}

// Halt shuts machine i down cleanly.
func (c *Cluster) Halt(i int) {
	n := c.node(i)
	c.tell("--- clean shutdown of m%d", i)
	n.on(func(p *process) {
		n.mu.Lock()
		n.halted = true
		n.mu.Unlock()
		p.gate.set(func() { p.gate.paused = false })
		ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
		defer cancel()
		if err := p.agent.Halt(ctx); err != nil {
			c.tell("halt of m%d: %v", i, err)
		}
		n.end(p)
	})
	n.powerOff()
}

// Heal ends all trouble: everything has power, runs, and reaches the store.
func (c *Cluster) Heal() {
	c.tell("--- all is well again")
	for _, n := range c.all() {
		if n.isGone() {
			n.powerOff()
			continue
		}
		n.cut(mem.None)
		n.on(func(p *process) {
			p.gate.set(func() { p.gate.paused, p.gate.crash, p.gate.late = false, 0, 0 })
			p.client.Lag(0)
			p.client.Repeat(false)
			p.client.FailNext(0)
			p.client.LoseNext(0)
			p.client.Pause(false)
		})
		n.boot()
	}
}
