package join

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/trust"
)

// seat is a voter: its disk, its clock, and its process if one runs.
type seat struct {
	w     *World
	id    machine.ID
	name  string
	addr  string
	trust trust.Options
	off   time.Duration // how far its clock is ahead

	mu  sync.Mutex // guards the field below
	now *process   // nil: none runs
}

// process is one run of flota up on a voter, as far as joining is concerned.
type process struct {
	client *mem.Faulty
	desk   *admit.Desk
	cancel context.CancelFunc
	run    context.Context
	done   sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	dead  bool       // it reaches nothing any more, and nobody hears of it
	crash int        // it dies at so many commits from now; 0: it does not
	first bool       // it dies before the commit, not after
	slow  time.Duration
}

// newSeat makes voter n, which has no identity yet.
func (w *World) newSeat(n int) *seat {
	dir, number := w.disk()
	s := &seat{w: w, id: idOf(number), name: fmt.Sprint("voter", n), addr: addrOf(number)}
	s.trust = trust.Options{Dir: dir, Now: s.clock}
	return s
}

// clock is what its clock shows.
func (s *seat) clock() time.Time { return time.Now().Add(s.off) }

func (s *seat) subject() trust.Subject {
	return trust.Subject{ID: s.id, Name: s.name, IPs: []netip.Addr{netip.MustParseAddr(s.addr)}}
}

func (s *seat) api() string { return s.addr + ":7700" }

// vote writes down that it votes, as the steward does.
func (s *seat) vote(ctx context.Context) error {
	return s.w.store.Voters.Put(ctx, string(s.id), machine.Vote{Machine: s.id, Role: machine.Voter}, 0)
}

// current gives the process, nil for none.
func (s *seat) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// boot starts a process if none runs.
func (s *seat) boot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		return
	}
	i, err := trust.Open(s.trust)
	s.w.must(err)
	p := &process{client: s.w.mem.Client()}
	p.run, p.cancel = context.WithCancel(context.Background())
	p.client.Before(func(c mem.Call) error { return p.before(s, c) })
	p.client.After(func(c mem.Call) error { return p.after(s, c) })
	st := store.New(p.client)
	p.desk = admit.New(admit.Options{Store: st, Identity: i, ID: s.id, Name: s.name, Log: s.w.log.With("on", s.name), Now: s.clock,
		Addrs: func() []string { return []string{s.api()} }})
	p.done.Go(func() { _ = p.desk.Run(p.run) })
	p.done.Go(func() {
		present(p.run, st, machine.Presence{ID: s.id, Name: s.name, API: s.api()}, func() bool { return true })
	})
	s.now = p
}

// kill ends the process as kill -9 does.
func (s *seat) kill() {
	if p := s.current(); p != nil {
		p.set(func() { p.dead = true })
		s.end(p)
	}
}

// end waits for what is left of a dead process.
func (s *seat) end(p *process) {
	p.cancel()
	p.done.Wait()
	_ = p.client.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == p {
		s.now = nil
	}
}

func (p *process) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// outages are the ways in which a voter may lose the store.
var outages = []mem.Outage{mem.Refused, mem.Hanging, mem.NoQuorum}

// well ends all that is wrong with the process.
func (p *process) well() {
	p.set(func() { p.crash, p.slow = 0, 0 })
	p.client.Cut(mem.None)
	p.client.FailNext(0)
	p.client.LoseNext(0)
}

// errDead is what a dead process gets, and who asks it.
var errDead = fault.New(fault.Unavailable, "nobody answers")

// before makes the process wait for a slow store, and die at its time.
func (p *process) before(s *seat, c mem.Call) error {
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	time.Sleep(slow + s.w.latency())
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Op == "commit" && p.crash == 1 && p.first {
		p.die(s)
	}
	if p.dead {
		return errDead
	}
	return nil
}

// after keeps an answer from a process that is dead by now.
func (p *process) after(s *seat, c mem.Call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Op == "commit" && p.crash > 0 {
		if p.crash--; p.crash == 0 {
			p.die(s)
		}
	}
	if p.dead {
		return errDead
	}
	return nil
}

// die makes the process dead from within. The lock is held.
func (p *process) die(s *seat) {
	p.dead, p.crash = true, 0
	s.w.late.Go(func() { s.end(p) })
}

// ask has the voter do something for somebody else. Its answer is lost if it dies meanwhile.
func (s *seat) ask(ctx context.Context, f func(ctx context.Context, d *admit.Desk) error) error {
	p := s.current()
	if p == nil {
		return errDead
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	stop := context.AfterFunc(p.run, cancel)
	defer stop()
	err := f(ctx, p.desk)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	return err
}

// answerWithin is how long a machine waits for one voter's answer.
const answerWithin = 10 * time.Second

// present keeps a machine's presence until ctx ends or it may not any more, as its agent does; it goes 5 s later.
func present(ctx context.Context, st *store.Store, p machine.Presence, may func() bool) {
	var lease store.LeaseID
	for ctx.Err() == nil && may() {
		if lease == 0 || st.KV.Renew(ctx, lease) != nil {
			if id, err := st.KV.Grant(ctx, 5*time.Second); err == nil && st.Alive.Put(ctx, string(p.ID), p, id) == nil {
				lease = id
			}
		}
		wait(ctx, 1500*time.Millisecond)
	}
}

// wait waits for d; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
