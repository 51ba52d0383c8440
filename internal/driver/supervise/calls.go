package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"flota/internal/driver"
	"flota/internal/driver/journal"
	"flota/internal/driver/lifecycle"
	"flota/internal/driver/wire"
	"flota/internal/fault"
	"flota/internal/unit"
)

// load makes a unit known, or replaces its content.
func (s *supervisor) load(ctx context.Context, l wire.Loading) error {
	if _, err := unit.ParseName(string(l.Unit.Name)); err != nil {
		return err
	}
	d := s.define(l.Unit)
	if bad := d.strict(); l.Strict && len(bad) > 0 {
		return fault.New(fault.Invalid, "unit %q would be less isolated here than it asks for: %s", l.Unit.Name, strings.Join(bad, "; "))
	}
	for {
		a, made, err := s.open(l.Unit.Name, d)
		if err != nil {
			return err
		}
		err = a.ask(ctx, func() error {
			a.loaded = d
			s.bind(d)
			if a.rec.Resting() {
				a.running = d
				a.m.Svc = &d.svc
			}
			if err := a.store(); err != nil {
				return err
			}
			a.settle()
			return nil
		})
		if made || !fault.Is(err, fault.NotFound) {
			return err
		}
		select { // it is being unloaded: wait for the end of that
		case <-a.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// open gives the actor of a unit, made if need be.
func (s *supervisor) open(name unit.Name, d *definition) (a *actor, made bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		return nil, false, fault.New(fault.Unavailable, "the supervisor is being replaced")
	}
	if a = s.actors[name]; a != nil {
		return a, false, nil
	}
	if a, err = s.newActor(name, d); err != nil {
		return nil, false, err
	}
	s.actors[name] = a
	a.start()
	return a, true, nil
}

// askStart asks for a run. The actor's goroutine calls it.
func (a *actor) askStart(run uint64) error {
	r := &a.rec
	if run != 0 && (run == r.Pending || r.Pending == 0 && run == r.Run) {
		return nil
	}
	if a.loaded.bad != "" {
		return fault.New(fault.Invalid, "unit %q cannot start: %s", a.name, a.loaded.bad)
	}
	if a.loaded.svc.Flota.Exclusive {
		if !a.s.fence.Open() {
			return fault.New(fault.Conflict, "exclusive unit %q cannot start: the fence has run out", a.name)
		}
		if err := a.s.fence.Keep(); err != nil {
			return fault.Wrap(fault.Internal, err, "write the fence's deadline")
		}
	}
	if a.adoptRun(run) {
		return nil
	}
	c := newCause(a.name)
	if a.up() {
		by := a.name
		a.takeAlong(func(other *actor) { other.restartFor(by, c) })
	}
	a.cause, a.again = c, nil
	a.handle(lifecycle.StartAsked{Run: run})
	return nil
}

// askStop asks for the end. The actor's goroutine calls it.
func (a *actor) askStop() error {
	a.again = nil
	if by := a.name; !a.rec.Resting() {
		a.takeAlong(func(other *actor) { other.stopFor(by) })
	}
	a.handle(lifecycle.StopAsked{})
	return nil
}

// askReset forgets a failure. The actor's goroutine calls it.
func (a *actor) askReset() error {
	a.handle(lifecycle.ResetAsked{})
	return nil
}

// reload runs ExecReload= and waits for its end.
func (a *actor) reload(ctx context.Context) error {
	c := make(chan string, 1)
	if err := a.ask(ctx, func() error {
		switch {
		case a.rec.Phase != lifecycle.Running && a.rec.Phase != lifecycle.Exited && a.rec.Phase != lifecycle.Reload:
			return fault.New(fault.Conflict, "unit %q is not active", a.name)
		case len(a.running.svc.ExecReload) == 0:
			return fault.New(fault.Conflict, "unit %q has no ExecReload=", a.name)
		}
		a.reloads = append(a.reloads, c)
		a.handle(lifecycle.ReloadAsked{})
		return nil
	}); err != nil {
		return err
	}
	select {
	case why := <-c:
		if why != "" {
			return fault.New(fault.Failed, "reload of %q: %s", a.name, why)
		}
		return nil
	case <-a.gone:
		return fault.New(fault.Unavailable, "the supervisor is being replaced")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unload ends a unit and forgets it.
func (s *supervisor) unload(ctx context.Context, name unit.Name) error {
	a, err := s.find(name)
	if err != nil {
		return nil // not loaded is what was asked for
	}
	if err := a.ask(ctx, a.askStop); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := a.atRest(ctx); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	err = a.ask(ctx, func() error {
		if !a.rec.Resting() {
			return fault.New(fault.Conflict, "unit %q was started again while it was being unloaded", name)
		}
		if err := a.remove(ctx); err != nil {
			return err
		}
		// From here on a new supervisor does not know the unit any more.
		if err := os.RemoveAll(a.dir); err != nil {
			return err
		}
		a.closed = true
		s.mu.Lock()
		delete(s.actors, name)
		delete(s.bonds, name)
		s.mu.Unlock()
		s.board.Remove(name)
		return nil
	})
	if fault.Is(err, fault.NotFound) {
		err = nil // somebody else unloaded it
	}
	if err == nil {
		<-a.gone
		return os.RemoveAll(a.dir) // what the journal wrote last
	}
	return err
}

// stats asks the control groups of all running units.
func (s *supervisor) stats(ctx context.Context) ([]driver.Stats, error) {
	var mu sync.Mutex
	out := []driver.Stats{}
	for _, a := range s.all() {
		_ = a.ask(ctx, func() error { // a unit that went away uses nothing
			if a.rec.Resting() || a.group == nil {
				return nil
			}
			st, err := a.group.Stat()
			if err != nil || st.Tasks == 0 && a.rec.Main.PID == 0 {
				return nil
			}
			st.Tasks = max(1, st.Tasks) // a process that has just been forked is not in its group yet
			mu.Lock()
			defer mu.Unlock()
			out = append(out, driver.Stats{Unit: a.name, MemBytes: st.MemBytes, CPUMicros: st.CPUMicros, Tasks: st.Tasks})
			return nil
		})
	}
	return out, ctx.Err()
}

// extendFence moves the moment at which exclusive units are ended.
func (s *supervisor) extendFence(at, until time.Duration) error {
	keep := false
	for _, st := range s.board.All() {
		if a, err := s.find(st.Unit); err == nil && st.Active != "inactive" && a.exclusive() {
			keep = true
		}
	}
	return s.fence.Extend(at, until, keep)
}

// exclusive asks the actor whether what it runs may run once in the cluster only.
func (a *actor) exclusive() (yes bool) {
	_ = a.ask(context.Background(), func() error { yes = a.running.svc.Flota.Exclusive; return nil })
	return yes
}

// fenceOut ends all exclusive units, at once and side by side.
func (s *supervisor) fenceOut() {
	for _, a := range s.all() {
		a.post(func() {
			if a.running.svc.Flota.Exclusive && !s.fence.Open() {
				a.handle(lifecycle.FenceOut{})
			}
		})
	}
}

// hello tells who this supervisor is.
func (s *supervisor) hello() wire.Alive {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Alive{PID: os.Getpid(), Binary: s.finger, Units: len(s.actors), Fresh: s.next == ""}
}

// askReexec takes the request; the answer leaves before the process changes.
func (s *supervisor) askReexec(exe string) error {
	if exe != "" {
		if _, err := os.Stat(exe); err != nil {
			return fault.Wrap(fault.Invalid, err, "re-execute")
		}
	}
	s.reexec(exe)
	return nil
}

// shutdown stops all units cleanly, then ends the supervisor.
func (s *supervisor) shutdown(ctx context.Context) error {
	s.closing.Store(true)
	var wg sync.WaitGroup
	all := s.all()
	errs := make(chan error, len(all))
	for _, a := range all {
		wg.Go(func() {
			err := a.ask(ctx, a.askStop)
			if err == nil {
				err = a.atRest(ctx)
			}
			if err != nil && !fault.Is(err, fault.NotFound) {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		s.closing.Store(false)
		return err
	}
	s.end()
	return nil
}

// logs streams a unit's journal.
func (s *supervisor) logs(w http.ResponseWriter, r *http.Request) {
	var c wire.Call
	a := (*actor)(nil)
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, wire.MaxBody)).Decode(&c)
	if err == nil {
		a, err = s.find(c.Unit)
	}
	w.Header().Set(wire.BinaryHeader, s.finger)
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		json.NewEncoder(w).Encode(problem(err))
		return
	}
	a.out.Drain() // what the unit has printed by now is part of the answer
	out, control := json.NewEncoder(w), http.NewResponseController(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	go func() {
		select {
		case <-a.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	err = journal.Read(ctx, a.dir, c.Lines, c.Follow, func(l journal.Line) error {
		if err := out.Encode(wire.Logged{Time: l.Time, Stream: l.Stream, Text: l.Text}); err != nil {
			return err
		}
		if c.Follow {
			return control.Flush()
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		p := problem(err)
		out.Encode(wire.Logged{Problem: &p})
	case s.ctx.Err() == nil:
		out.Encode(wire.Logged{End: true})
	}
}
