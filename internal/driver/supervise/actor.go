package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"time"

	"flota/internal/driver/cgroup"
	"flota/internal/driver/condition"
	"flota/internal/driver/ear"
	"flota/internal/driver/home"
	"flota/internal/driver/journal"
	"flota/internal/driver/launch"
	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
	"flota/internal/fault"
	"flota/internal/unit"
)

// actor is one unit and the goroutine that does everything for it. Others talk to it by post and ask only.
type actor struct {
	s    *supervisor
	name unit.Name
	dir  string

	// The fields below belong to the goroutine.
	rec     lifecycle.Record
	loaded  *definition // what the next start runs
	running *definition // what the present run was started with
	m       lifecycle.Machine
	group   *cgroup.Group
	out     *journal.Writer
	identity
	ear      *ear.Ear // notification socket, while the unit wants one
	timer    *time.Timer
	emptier  context.CancelFunc // ends the wait for an empty group
	reloads  []chan string      // who waits for a reload
	resting  []chan struct{}    // who waits for the end
	closed   bool
	cause    *cause // of the present run; nil until it is needed
	again    *cause // to start for when the stop is done; nil for not
	againFor unit.Name
	endOut   context.CancelFunc // ends the journal's reader

	mu   sync.Mutex // guards the fields below
	box  []func()
	wake chan struct{} // capacity 1
	gone chan struct{} // closed when the goroutine has ended
	dead bool          // takes no more messages
}

// identity is who the commands of the present run are.
type identity struct {
	who  launch.Identity
	tmp  string // private directory for PrivateTmp=
	from string // the invocation it was looked up for
}

// newActor makes a unit's actor; its goroutine begins with start.
func (s *supervisor) newActor(name unit.Name, d *definition) (*actor, error) {
	a := &actor{s: s, name: name, dir: s.home.Unit(name), loaded: d, running: d,
		wake: make(chan struct{}, 1), gone: make(chan struct{})}
	a.rec = lifecycle.Record{Unit: name, Phase: lifecycle.Dead, Since: time.Now()}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of %s: %w", name, err)
	}
	var err error
	if a.out, err = journal.Open(a.dir, s.o.Journal); err != nil {
		return nil, fmt.Errorf("open journal of %s: %w", name, err)
	}
	a.timer = time.NewTimer(time.Hour)
	a.timer.Stop()
	a.m = lifecycle.Machine{Rec: &a.rec, Svc: &d.svc, Left: func() bool { return a.left() }}
	return a, nil
}

// start begins the goroutines. The actor's fields belong to them from here on.
func (a *actor) start() {
	ctx, cancel := context.WithCancel(context.Background()) // the journal is drained after all else has ended
	a.endOut = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.out.Run(ctx); err != nil {
			a.s.log.Error("output of a unit is not kept", "unit", a.name, "err", err)
		}
	}()
	a.s.wg.Go(func() {
		defer close(a.gone)
		a.loop()
		a.out.Drain()
		cancel()
		<-done
		a.out.Close()
	})
}

// loop works off messages and the timer until close.
func (a *actor) loop() {
	for !a.closed {
		select {
		case <-a.wake:
			for _, f := range a.take() {
				if f(); a.closed {
					break
				}
			}
		case <-a.timer.C:
			a.handle(lifecycle.Due{})
		}
	}
	a.mu.Lock()
	a.dead, a.box = true, nil
	a.mu.Unlock()
	a.timer.Stop()
	a.stopEar(false)
	if a.emptier != nil {
		a.emptier()
	}
}

// post has f called by the actor's goroutine; false if it has ended. It never blocks.
func (a *actor) post(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead {
		return false
	}
	a.box = append(a.box, f)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return true
}

// ask has f called by the actor and waits for its answer. fault.NotFound if the unit is unloaded meanwhile.
func (a *actor) ask(ctx context.Context, f func() error) error {
	answer := make(chan error, 1)
	if a.post(func() { answer <- f() }) {
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-a.gone:
			select {
			case err := <-answer:
				return err
			default:
			}
		}
	}
	if a.s.ctx.Err() != nil {
		return fault.New(fault.Unavailable, "the supervisor is being replaced")
	}
	return fault.New(fault.NotFound, "unit %q is not loaded here", a.name)
}

// take empties the mailbox.
func (a *actor) take() []func() {
	a.mu.Lock()
	defer a.mu.Unlock()
	box := a.box
	a.box = nil
	return box
}

// freeze waits until the actor stands between two events, where it stays.
func (a *actor) freeze() {
	if a.post(func() { a.closed = true }) {
		<-a.gone
	}
}

// handle puts an event to the machine, and carries out what it says, answers included.
func (a *actor) handle(ev lifecycle.Event) {
	events, worked := []lifecycle.Event{ev}, !a.rec.Resting()
	for len(events) > 0 {
		next := events[0]
		events = events[1:]
		before := a.rec.Phase
		actions := a.m.Handle(time.Now(), next)
		if before != a.rec.Phase {
			a.s.log.Debug("unit", "unit", a.name, "from", before, "to", a.rec.Phase, "event", fmt.Sprintf("%T", next))
			a.turned(before)
		}
		worked = worked || !a.rec.Resting()
		for _, action := range actions {
			if answer := a.carryOut(action); answer != nil {
				events = append(events, answer)
			}
		}
	}
	a.settle()
	if worked && a.rec.Resting() {
		a.release(time.Time{})
	}
}

// settle writes the record, tells watchers and sets the timer.
func (a *actor) settle() {
	a.write()
	a.publish()
	a.timer.Stop()
	if due := a.rec.Due(); !due.IsZero() {
		a.timer.Reset(max(0, time.Until(due)) + time.Millisecond)
	}
	if a.rec.Resting() {
		if a.emptier != nil {
			a.emptier()
			a.emptier = nil
		}
		for _, c := range a.resting {
			close(c)
		}
		a.resting = nil
	}
	a.onceMore()
}

// write puts the record on disk.
func (a *actor) write() {
	if err := home.Save(filepath.Join(a.dir, "record.json"), lifecycle.Stored{Record: a.rec, Boot: proc.BootID()}); err != nil {
		a.s.log.Error("record of a unit not written; a new supervisor may not find its processes", "unit", a.name, "err", err)
	}
}

// publish puts the unit's state on the board if it changed.
func (a *actor) publish() {
	st := a.state()
	if old, ok := a.s.board.Get(a.name); !ok || !reflect.DeepEqual(old, st) {
		a.s.board.Set(st)
	}
}

// carryOut does one action and gives the answer to it, if it has one.
func (a *actor) carryOut(action lifecycle.Action) lifecycle.Event {
	switch do := action.(type) {
	case lifecycle.Test:
		return a.test()
	case lifecycle.Run:
		return a.run(do)
	case lifecycle.Kill:
		return a.kill(do)
	case lifecycle.KillControl:
		proc.Signal(do.Proc.PID, do.Proc.Ticks, syscall.SIGKILL)
	case lifecycle.KillAll:
		return a.killAll()
	case lifecycle.WaitEmpty:
		a.waitEmpty()
	case lifecycle.ReadPIDFile:
		return a.pidFile()
	case lifecycle.GuessMain:
		return lifecycle.Guessed{Proc: a.guess()}
	case lifecycle.Finish:
		a.finish(do.Keep)
	case lifecycle.Say:
		a.out.Say(do.Text)
	case lifecycle.Reloaded:
		for _, c := range a.reloads {
			c <- do.Why
		}
		a.reloads = nil
	}
	return nil
}

// test checks fence and conditions of the content that is about to run.
func (a *actor) test() lifecycle.Event {
	a.running = a.loaded
	a.m.Svc = &a.running.svc
	if err := home.Save(filepath.Join(a.dir, "running.json"), a.running.Unit); err != nil {
		return lifecycle.Tested{Unmet: "its directory can be written: " + err.Error(), Assert: true}
	}
	if a.running.svc.Flota.Exclusive && !a.s.fence.Open() {
		return lifecycle.Tested{Fenced: true}
	}
	unmet, assert := condition.Check(a.running.svc.Conditions)
	return lifecycle.Tested{Unmet: unmet, Assert: assert}
}

// kill signals as KillMode= says and tells whether anybody is left.
func (a *actor) kill(k lifecycle.Kill) lifecycle.Event {
	if k.Nobody {
		return lifecycle.Killed{}
	}
	signals := []syscall.Signal{k.Signal}
	if k.HUP {
		signals = append(signals, syscall.SIGHUP)
	}
	if k.Signal != syscall.SIGKILL && k.Signal != syscall.SIGCONT {
		signals = append(signals, syscall.SIGCONT) // a stopped process would not see the others
	}
	// Until their ends have been handled the two are waited for, reaped or not.
	left := a.rec.Main.PID != 0 || a.rec.Control.PID != 0
	for _, sig := range signals {
		proc.Signal(a.rec.Main.PID, a.rec.Main.Ticks, sig)
		proc.Signal(a.rec.Control.PID, a.rec.Control.Ticks, sig)
		if k.Group && a.signalOthers(sig) {
			left = true
		}
	}
	return lifecycle.Killed{Left: left}
}

// signalOthers signals each process of the unit once, those included that are forked meanwhile, but the main and the
// control process: a second SIGTERM makes some daemons drop everything. It reports whether there were any.
func (a *actor) signalOthers(sig syscall.Signal) (any bool) {
	if a.group == nil {
		return false
	}
	seen := map[int]bool{a.rec.Main.PID: true, a.rec.Control.PID: true}
	for more := true; more; {
		pids, err := a.group.Procs()
		if err != nil {
			a.s.log.Warn("a unit's processes cannot be listed", "unit", a.name, "err", err)
			return any
		}
		more = false
		for _, pid := range pids {
			if st, ok := proc.Look(pid); ok && !seen[pid] {
				seen[pid] = true
				if proc.Signal(pid, st.Ticks, sig) {
					more, any = true, true
				}
			}
		}
	}
	return any
}

// left reports whether any process of the unit exists.
func (a *actor) left() bool {
	if a.group == nil {
		return false
	}
	procs, err := a.group.Procs()
	return err == nil && len(procs) > 0
}

// killPatience is how long KillAll waits; what SIGKILL has not ended by then hangs in the kernel.
const killPatience = 10 * time.Second

// killAll ends every process of the unit by force.
func (a *actor) killAll() lifecycle.Event {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	for _, p := range []lifecycle.Proc{a.rec.Main, a.rec.Control} {
		proc.Signal(p.PID, p.Ticks, syscall.SIGKILL)
	}
	if a.group != nil {
		if err := a.group.KillAll(ctx); err != nil {
			a.s.log.Error("processes of a unit cannot be killed; trying again", "unit", a.name, "err", err)
			a.s.later(time.Second, func() {
				a.post(func() {
					if a.rec.Result == lifecycle.Fenced && !a.rec.Resting() {
						a.handle(a.killAll())
					}
				})
			})
			return nil
		}
	}
	return lifecycle.Gone{}
}

// waitEmpty tells the machine when the unit's group is empty. One wait at a time.
func (a *actor) waitEmpty() {
	if a.emptier != nil || a.group == nil {
		return
	}
	ctx, cancel := context.WithCancel(a.s.ctx)
	a.emptier = cancel
	group := a.group
	a.s.wg.Go(func() {
		err := group.WaitEmpty(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			a.s.log.Warn("cannot wait for the end of a unit's processes", "unit", a.name, "err", err)
			return
		}
		a.post(func() {
			if ctx.Err() == nil {
				cancel()
				a.emptier = nil
				a.handle(lifecycle.Emptied{})
			}
		})
	})
}

// atRest waits until the unit is dead or failed.
func (a *actor) atRest(ctx context.Context) error {
	c := make(chan struct{})
	if err := a.ask(ctx, func() error {
		if a.rec.Resting() {
			close(c)
		} else {
			a.resting = append(a.resting, c)
		}
		return nil
	}); err != nil {
		return err
	}
	select {
	case <-c:
		return nil
	case <-a.gone:
		return fault.New(fault.Unavailable, "the supervisor is being replaced")
	case <-ctx.Done():
		return ctx.Err()
	}
}
