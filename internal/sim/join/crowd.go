package join

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"flota/internal/admit"
	"flota/internal/store"
	"flota/internal/trust/token"
)

// crowd is a story: who comes, and what goes wrong meanwhile. A seed chooses both; the order of goroutines is the runtime's.
type crowd struct {
	*World
	rnd     *rand.Rand
	joiners []*joiner
	groups  []group
	revoked string    // id of the token that an operator revokes
	took    []*joiner // removed by an operator
	ops     *rand.Rand
}

// group is machines of which only some can come in.
type group struct {
	members []*joiner
	most    int  // so many may
	all     bool // and so many must
}

// sizes of a crowd of 200: how many machines of each kind come. The rest are plain.
const (
	twins    = 6 // pairs with one name, and pairs with one machine ID
	scarce   = 12
	late     = 12
	liars    = 4 // with half a token, and with another cluster's
	revoked  = 8
	skewed   = 8
	leavers  = 6
	removals = 10
)

// arriveWithin is how long it takes until all have come.
const arriveWithin = 90 * time.Second

// Tell lets n machines come, as seed says, and checks what became of them. It gives how many became members and how many were refused.
func Tell(w *World, seed uint64, n int) (members, refused int) {
	c := &crowd{World: w, rnd: rand.New(rand.NewPCG(seed, 0x1011)), ops: rand.New(rand.NewPCG(seed, 0x1012))}
	c.invite(n)
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	var all, hands, operator sync.WaitGroup
	for _, j := range c.joiners {
		life, cancel := context.WithCancel(ctx)
		defer cancel()
		j.end = cancel
		all.Go(func() {
			if wait(life, j.start) {
				j.run(life)
			}
		})
		hands.Go(func() { j.belong(life) })
	}
	trouble, well := context.WithCancel(ctx)
	operator.Go(func() { c.operate(trouble) })
	c.trouble(arriveWithin + 30*time.Second)
	well()
	c.heal()
	operator.Wait()
	c.settle(&all)
	cancel()
	hands.Wait()
	return c.verdict()
}

// invite makes the tokens and the machines.
func (c *crowd) invite(n int) {
	common := c.makeToken(admit.NewToken{Uses: n, TTL: 3 * time.Hour, Labels: map[string]string{"zone": "a"}})
	other := c.makeToken(admit.NewToken{Uses: n, TTL: 3 * time.Hour}) // so that nothing but the name or the ID is common to twins
	pair := func(kind string, same func(a, b *joiner)) {
		for range twins {
			a, b := c.add(kind, common), c.add(kind, other)
			same(a, b)
			b.start, a.crashes, b.crashes = a.start, 0, 0 // at once, at different voters
			c.groups = append(c.groups, group{[]*joiner{a, b}, 1, true})
		}
	}
	pair("twin-name", func(a, b *joiner) { b.name = a.name })
	pair("twin-id", func(a, b *joiner) { b.id = a.id })

	few := c.makeToken(admit.NewToken{Uses: scarce / 2})
	c.groups = append(c.groups, group{c.several("scarce", few, scarce), scarce / 2, true})
	short := c.makeToken(admit.NewToken{Uses: late, TTL: arriveWithin / 3})
	c.groups = append(c.groups, group{c.several("late", short, late), late, false})
	gone := c.makeToken(admit.NewToken{Uses: revoked})
	c.groups = append(c.groups, group{c.several("revoked", gone, revoked), revoked, false})
	secret, err := token.Parse(gone)
	c.must(err)
	c.revoked = secret.ID
	c.groups = append(c.groups, group{c.several("half", common[:len(common)-4]+"0000", liars), 0, false})
	c.groups = append(c.groups, group{c.several("other", strange(), liars), 0, false})
	wrong := c.several("skewed", common, skewed)
	for _, j := range wrong {
		j.off = time.Duration(7+c.rnd.IntN(2000)) * time.Minute
		if c.rnd.IntN(2) == 0 {
			j.off = -j.off
		}
	}
	c.groups = append(c.groups, group{wrong, 0, false})
	c.took = c.several("removed", common, removals)
	for _, j := range append(c.several("leaver", common, leavers), c.took...) {
		j.stays = c.rnd.IntN(2) == 0
	}
	for len(c.joiners) < n {
		j := c.add("plain", common)
		j.stays = len(c.joiners)%4 == 0
		j.witness = len(c.joiners)%16 == 0
	}
}

// strange is a token of another cluster.
func strange() string {
	_, text := token.Make([token.IDBytes]byte{1, 2, 3}, [token.SecretBytes]byte{4, 5, 6})
	return text
}

// makeToken has a token made by a voter, before anything goes wrong.
func (c *crowd) makeToken(n admit.NewToken) string {
	made, err := c.seats[0].current().desk.CreateToken(c.t.Context(), n)
	c.must(err)
	return made.Text
}

// several adds n machines of a kind.
func (c *crowd) several(kind, token string, n int) (out []*joiner) {
	for range n {
		out = append(out, c.add(kind, token))
	}
	return out
}

// add adds a machine that may die some times, with a clock that is nearly right.
func (c *crowd) add(kind, token string) *joiner {
	j := c.newJoiner(kind, token, rand.New(rand.NewPCG(c.rnd.Uint64(), 1)))
	j.start = time.Duration(c.rnd.Int64N(int64(arriveWithin)))
	j.crashes = max(0, c.rnd.IntN(7)-2)
	j.off = time.Duration(c.rnd.IntN(361)-180) * time.Second
	c.joiners = append(c.joiners, j)
	return j
}

// trouble lets things go wrong for d.
func (c *crowd) trouble(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(c.rnd.IntN(1500)) * time.Millisecond) {
		c.mishap(c.seats[c.rnd.IntN(len(c.seats))])
	}
}

// mishap lets one thing happen to a voter.
func (c *crowd) mishap(s *seat) {
	p := s.current()
	d := c.rnd.IntN(16)
	switch {
	case p == nil && d < 8:
		c.tell("--- %s boots", s.name)
		s.boot()
		return
	case p == nil:
		return
	}
	switch d {
	case 0, 1:
		c.tell("--- kill -9 of %s", s.name)
		s.kill()
	case 2, 3, 4:
		n, first := 1+c.rnd.IntN(5), c.rnd.IntN(2) == 0
		c.tell("--- %s will die at commit %d (before it: %v)", s.name, n, first)
		p.set(func() { p.crash, p.first = n, first })
	case 5, 6:
		p.client.LoseNext(1 + c.rnd.IntN(4))
	case 7:
		p.client.FailNext(1 + c.rnd.IntN(6))
	case 8, 9:
		slow := time.Duration(c.rnd.IntN(400)) * time.Millisecond
		c.tell("--- the store is slow for %s: %s", s.name, slow)
		p.set(func() { p.slow = slow })
	case 10:
		p.set(func() { p.slow = 0 })
	case 11, 12, 13:
		how := outages[c.rnd.IntN(len(outages))]
		c.tell("--- %s is cut off the store: %d", s.name, how)
		p.client.Cut(how)
	default:
		c.tell("--- %s is well", s.name)
		p.well()
	}
}

// operate does what operators do meanwhile: they remove machines, and revoke a token.
func (c *crowd) operate(ctx context.Context) {
	wait(ctx, arriveWithin/2)
	for ctx.Err() == nil && c.anySeat().ask(ctx, func(ctx context.Context, d *admit.Desk) error { return d.Revoke(ctx, c.revoked) }) != nil {
		if e, ok, err := c.store.Joins.Get(ctx, c.revoked, store.Read{}); err == nil && !ok {
			break // its answer was lost
		} else if err == nil {
			c.tell("token %s is not revoked yet, %d used it", c.revoked, len(e.Value.Used))
		}
		wait(ctx, time.Second)
	}
	for _, j := range c.took {
		wait(ctx, 2*time.Second)
		c.remove(ctx, j)
	}
}

// remove has a machine removed, again and again until it is.
func (c *crowd) remove(ctx context.Context, j *joiner) {
	for ctx.Err() == nil {
		if _, out, err := c.store.Removed.Get(ctx, string(j.id), store.Read{}); err != nil || out {
			return
		}
		err := c.anySeat().ask(ctx, func(ctx context.Context, d *admit.Desk) error {
			return d.Remove(ctx, string(j.id), admit.RemoveOptions{Reason: "the story says so"})
		})
		c.tell("--- an operator removes %s: %v", j.name, err)
		wait(ctx, time.Second)
	}
}

// anySeat is the voter that an operator speaks to.
func (c *crowd) anySeat() *seat { return c.seats[c.ops.IntN(len(c.seats))] }

// heal ends all trouble.
func (c *crowd) heal() {
	c.tell("--- all is well again")
	for _, s := range c.seats {
		if p := s.current(); p != nil {
			p.mu.Lock()
			dead := p.dead
			p.mu.Unlock()
			if dead {
				s.end(p)
			} else {
				p.well()
			}
		}
		s.boot()
	}
}

// settleWithin bounds how long the last machine needs when all is well: a crash or two, its pauses, and those of the desks.
const settleWithin = 2 * time.Minute

// settle waits until everybody knows, and until the removals are over.
func (c *crowd) settle(all *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(settleWithin):
		for _, j := range c.joiners {
			if i, out := j.member(); i == nil && out == nil {
				c.fail("%s has tried in vain for %s with all well", j.name, settleWithin)
			}
			j.end()
		}
		<-done
	}
	for _, j := range c.took {
		c.remove(c.t.Context(), j)
	}
	time.Sleep(2 * time.Minute) // leavers leave, voters finish what was begun, presences end
}
