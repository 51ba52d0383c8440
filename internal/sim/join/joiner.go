package join

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// joiner is a machine that wants to be in, with what its operator typed and what lies on its disk.
type joiner struct {
	w       *World
	kind    string // what it is an example of; see crowd.go
	id      machine.ID
	name    string
	addr    string
	token   string // the text that its operator typed
	trust   trust.Options
	off     time.Duration // how far its clock is ahead
	witness bool
	rnd     *rand.Rand

	start   time.Duration // when it comes
	crashes int           // how often it still dies at some step
	stays   bool          // it shows signs of life once it is in
	end     func()        // ends it, whatever it does

	mu  sync.Mutex        // guards the fields below
	q   admit.JoinRequest // its last request
	in  *trust.Identity
	out error // why it was refused; nil with in nil: nobody knows yet
}

// newJoiner makes a machine with an empty disk.
func (w *World) newJoiner(kind, token string, rnd *rand.Rand) *joiner {
	dir, n := w.disk()
	j := &joiner{w: w, kind: kind, id: idOf(n), name: fmt.Sprintf("%s-%d", kind, n), addr: addrOf(n), token: token, rnd: rnd}
	j.trust = trust.Options{Dir: dir, Now: j.clock}
	return j
}

func (j *joiner) clock() time.Time { return time.Now().Add(j.off) }

// step is a place where the machine may die. Whoever gets errCrash stops as a dead process does.
func (j *joiner) step(name string) error {
	if j.crashes > 0 && j.rnd.IntN(3) == 0 {
		j.crashes--
		j.w.tell("%s dies: %s", j.name, name)
		return errCrash
	}
	return nil
}

var errCrash = errors.New("this machine's process is dead")

// patience is how long a process tries addresses at which nobody answers, as daemon has it. Its service manager then starts another one.
const patience = 2 * time.Minute

// run is all of the machine's lives, until it is in or refused.
func (j *joiner) run(ctx context.Context) {
	for ctx.Err() == nil {
		i, err := j.live(ctx)
		k := fault.KindOf(err)
		switch {
		case err == nil:
			j.mu.Lock()
			j.in = i
			j.mu.Unlock()
			return
		case errors.Is(err, errCrash):
			wait(ctx, time.Duration(j.rnd.IntN(5000))*time.Millisecond)
		case k == fault.Unavailable || k == fault.TimedOut:
			wait(ctx, time.Second)
		default:
			j.w.tell("%s is refused: %v", j.name, err)
			j.mu.Lock()
			j.out = err
			j.mu.Unlock()
			return
		}
	}
}

// live is one start of flota up, from the disk to the cluster's records.
func (j *joiner) live(ctx context.Context) (*trust.Identity, error) {
	i, err := trust.Open(j.trust)
	if fault.Is(err, fault.NotFound) {
		if err := j.enter(ctx); err != nil {
			return nil, err
		}
		i, err = trust.Open(j.trust)
	}
	if err != nil {
		return nil, err
	}
	if err := j.step("before it registers"); err != nil {
		return nil, err
	}
	return i, j.register(ctx, i)
}

// enter asks to be let in until somebody answers, and keeps the answer.
func (j *joiner) enter(ctx context.Context) error {
	if err := j.step("before it has a key"); err != nil {
		return err
	}
	who := trust.Subject{ID: j.id, Name: j.name, IPs: []netip.Addr{netip.MustParseAddr(j.addr)}}
	csr, err := trust.Request(j.trust, who)
	if err != nil {
		return err
	}
	_, key, err := trust.ReadRequest(csr)
	if err != nil {
		return err
	}
	j.w.own(j.id, key)
	if err := j.step("before it asks"); err != nil {
		return err
	}
	give, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	q := admit.JoinRequest{Token: j.token, ID: j.id, Name: j.name, Addr: j.addr, Witness: j.witness, CSR: csr}
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		a, err := j.ask(give, q)
		if err == nil {
			return j.keep(a)
		}
		if k := fault.KindOf(err); errors.Is(err, errCrash) || k != fault.Unavailable && k != fault.TimedOut {
			return err
		}
		if !wait(give, pause) {
			return err
		}
	}
}

// ask sends the request to the voters in turn; the first answer counts, be it a refusal.
func (j *joiner) ask(ctx context.Context, q admit.JoinRequest) (a admit.JoinAnswer, err error) {
	for _, n := range j.rnd.Perm(len(j.w.seats)) {
		q.Clock = j.clock()
		j.mu.Lock()
		j.q = q
		j.mu.Unlock()
		if a, err = j.send(ctx, j.w.seats[n], q); errors.Is(err, errCrash) {
			return a, err
		}
		if k := fault.KindOf(err); err == nil || k != fault.Unavailable && k != fault.TimedOut {
			return a, err
		}
	}
	return a, err
}

// send sends one request. If the machine dies meanwhile, the voter may go on with it, and nobody hears the answer.
func (j *joiner) send(ctx context.Context, s *seat, q admit.JoinRequest) (admit.JoinAnswer, error) {
	type reply struct {
		a   admit.JoinAnswer
		err error
	}
	got := make(chan reply, 1)
	request, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	asked := time.Now()
	j.w.late.Go(func() {
		defer hangUp()
		var r reply
		r.err = s.ask(request, func(ctx context.Context, d *admit.Desk) (err error) { r.a, err = d.Admit(ctx, q); return err })
		j.w.checkAnswer(j, s, asked, q, r.a, r.err)
		got <- r
	})
	died := j.step("with a request on its way")
	select {
	case r := <-got:
		if died == nil {
			died = j.step("with an answer that it has not stored")
		}
		if died != nil {
			return r.a, died
		}
		return r.a, r.err
	case <-ctx.Done():
		return admit.JoinAnswer{}, fault.Wrap(fault.Unavailable, ctx.Err(), "join")
	case <-after(died, j.rnd):
		if j.rnd.IntN(2) == 0 {
			hangUp()
		}
		return admit.JoinAnswer{}, died
	}
}

// after fires soon if the machine is about to die.
func after(died error, rnd *rand.Rand) <-chan time.Time {
	if died == nil {
		return nil
	}
	return time.After(time.Duration(rnd.IntN(20)) * time.Millisecond)
}

// keep stores what was granted. A power cut in the middle leaves some of the files: those that a dead Install may leave.
func (j *joiner) keep(a admit.JoinAnswer) error {
	if err := j.step("while it stores what it was granted"); err != nil {
		return errors.Join(err, j.keepHalf(a.Grant))
	}
	i, err := trust.Install(j.trust, a.Grant)
	if err != nil {
		return err
	}
	j.w.checkIdentity(j, i)
	return j.step("with a new identity")
}

// keepHalf stores the grant beside the disk, and brings over some of it: never machine.crt, which comes last.
func (j *joiner) keepHalf(g trust.Grant) error {
	scratch := j.trust
	scratch.Dir += ".half"
	defer os.RemoveAll(scratch.Dir)
	err := os.CopyFS(scratch.Dir, os.DirFS(j.trust.Dir))
	if err != nil {
		return err
	}
	if _, err := trust.Install(scratch, g); err != nil {
		return err
	}
	for _, name := range []string{"cluster.json", "ca.crt"} {
		if j.rnd.IntN(3) == 0 {
			return nil
		}
		if err := os.Rename(filepath.Join(scratch.Dir, name), filepath.Join(j.trust.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// register is what a member does each time it starts, through any voter.
func (j *joiner) register(ctx context.Context, i *trust.Identity) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := j.through(func(st *store.Store) error {
			d := admit.New(admit.Options{Store: st, Identity: i, ID: j.id, Name: j.name, Witness: j.witness, Now: j.clock})
			_, err := d.Register(ctx)
			return err
		})
		if k := fault.KindOf(err); err == nil || k != fault.Unavailable && k != fault.TimedOut {
			return err
		}
		if !wait(ctx, pause) {
			return err
		}
	}
}

// through lets the machine use the store as a client does: by one of the voters.
func (j *joiner) through(f func(*store.Store) error) error {
	p := j.w.seats[j.rnd.IntN(len(j.w.seats))].current()
	if p == nil {
		return errDead
	}
	return f(store.New(p.client))
}

// member gives the machine's identity, nil while it has none, and why it was refused.
func (j *joiner) member() (*trust.Identity, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.in, j.out
}
