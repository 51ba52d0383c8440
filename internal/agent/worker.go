package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/unit"
)

// slotsPerCore is how many loads and starts are under way at once per core: 4. A start is mostly waiting for the driver and the disk, so
// more than one per core keeps a machine busy that boots with a thousand units, and few enough do not starve its renewals.
const slotsPerCore = 4

// slotFor is how long a unit may hold its slot: 2 s, so that starts which hang never keep the others waiting.
const slotFor = 2 * time.Second

// callWait bounds a call of the driver that only takes a request. 30 s: a loaded machine needs seconds, and a driver that
// hangs is to be reported.
const callWait = 30 * time.Second

// worker does the tasks of one unit, one after the other, and ends when there are none. The agent's lock guards again.
type worker struct {
	again bool          // something changed since it looked
	wake  chan struct{} // capacity 1: the wish changed
}

// settleAll looks at every unit. The lock is held.
func (a *Agent) settleAll() {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a.wanted.list)), maps.Keys(a.units))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		a.settle(name)
	}
}

// settle makes sure that somebody does the unit's tasks, if it has any. The lock is held.
func (a *Agent) settle(name unit.Name) {
	if w := a.workers[name]; w != nil {
		w.again = true
		return
	}
	if len(a.tasks(name)) == 0 {
		return
	}
	w := &worker{wake: make(chan struct{}, 1)}
	a.workers[name] = w
	ctx := a.run
	a.busy.Go(func() { a.work(ctx, name, w) })
}

// tasks gives what is to be done with the unit now, and may be. The lock is held.
func (a *Agent) tasks(name unit.Name) []Task {
	if a.frozen || a.other != "" || !a.driven || a.wanted.source == fromNowhere {
		return nil
	}
	w, placed := a.wanted.list[name]
	s, loaded := a.units[name]
	var p *unit.Place
	var st *unit.State
	if placed {
		p = &w.place
	}
	if loaded {
		st = &s
	}
	if gave, ok := a.givenUp[name]; ok && (!placed || !gave.same(w)) {
		delete(a.givenUp, name)
		delete(a.trouble, name)
	}
	all := tasksOf(name, p, w.hash, st)
	if loaded && a.halfway[name] {
		all = []Task{{Unload, name, unit.Unit{Name: name}, "it was being unloaded when the agent stopped"}}
	}
	for i, t := range all {
		if !a.allowed(t, w) {
			return all[:i]
		}
	}
	return all
}

// allowed says whether a task may be done now. The lock is held.
func (a *Agent) allowed(t Task, w wish) bool {
	starts := t.Kind == Load || t.Kind == Start
	if _, gave := a.givenUp[t.Name]; gave && starts {
		return false
	}
	if a.wanted.source == fromCache {
		return starts && !w.exclusive && a.wanted.record != recordMissing
	}
	if a.wanted.record != recordPresent || !a.mine {
		return false
	}
	return t.Kind != Start || !w.exclusive || a.lease.fenced
}

// work does the unit's tasks until there are none. Started by settle; ends with ctx at the latest.
func (a *Agent) work(ctx context.Context, name unit.Name, w *worker) {
	var again backoff
	for {
		a.mu.Lock()
		tasks := a.tasks(name)
		if len(tasks) == 0 || ctx.Err() != nil {
			a.retire(name)
			a.mu.Unlock()
			return
		}
		w.again = false
		a.mu.Unlock()

		last, err := a.doAll(ctx, tasks)

		a.mu.Lock()
		if err == nil && !w.again {
			a.retire(name) // what the driver tells next wakes another worker if need be
			a.mu.Unlock()
			return
		}
		a.note(name, last, err)
		a.mu.Unlock()
		if err != nil && !again.wait(ctx, w.wake) {
			continue // ctx has ended: retire above
		}
	}
}

// retire ends the unit's worker. The lock is held.
func (a *Agent) retire(name unit.Name) {
	delete(a.workers, name)
	if _, gave := a.givenUp[name]; !gave {
		a.note(name, Task{}, nil)
	}
}

// note keeps why the last task did not work, so that the unit's state says it; nil for all is well. The lock is held.
func (a *Agent) note(name unit.Name, t Task, err error) {
	if err == nil {
		if a.trouble[name] != "" {
			delete(a.trouble, name)
			poke(a.report)
		}
		return
	}
	if a.run.Err() != nil {
		return
	}
	message := string(t.Kind) + ": " + err.Error()
	if a.trouble[name] != message {
		a.trouble[name] = message
		poke(a.report)
		a.opts.Log.Warn("a unit's task did not work", "unit", name, "task", t.Kind, "reason", t.Reason, "err", err)
	}
	if fault.Is(err, fault.Invalid) {
		if w, ok := a.wanted.list[name]; ok {
			a.givenUp[name] = w
		}
	}
}

// doAll does the tasks in their order, as long as they are still to be done and work; it gives the last one done.
func (a *Agent) doAll(ctx context.Context, tasks []Task) (last Task, err error) {
	for i, t := range tasks {
		if i > 0 && !a.stillWanted(t) {
			break
		}
		last = t
		if err := a.do(ctx, t); err != nil {
			return t, err
		}
	}
	return last, nil
}

// stillWanted says whether t is still among the unit's tasks.
func (a *Agent) stillWanted(t Task) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, now := range a.tasks(t.Name) {
		if now.Kind == t.Kind && now.Unit.Run == t.Unit.Run {
			return true
		}
	}
	if w := a.workers[t.Name]; w != nil {
		w.again = true
	}
	return false
}

// do does one task. It returns when the driver has taken the request; for unload, when nothing of the unit is left.
func (a *Agent) do(ctx context.Context, t Task) error {
	log := a.opts.Log.With("unit", t.Name, "reason", t.Reason)
	switch t.Kind {
	case Load:
		log.Debug("loading unit")
		return a.slotted(ctx, func(ctx context.Context) error { return a.opts.Driver.Load(ctx, t.Unit) })
	case Start:
		return a.slotted(ctx, func(ctx context.Context) error {
			if err := a.claim(ctx, t); err != nil {
				return err
			}
			log.Info("starting unit", "run", t.Unit.Run)
			err := a.opts.Driver.Start(ctx, t.Name, t.Unit.Run)
			a.started(t, err)
			return err
		})
	case Stop:
		log.Info("stopping unit")
		ctx, cancel := context.WithTimeout(ctx, callWait)
		defer cancel()
		return a.opts.Driver.Stop(ctx, t.Name)
	}
	return a.unload(ctx, t)
}

// unload stops the unit and forgets it, if the store says clearly that it is not to be here.
func (a *Agent) unload(ctx context.Context, t Task) error {
	if err := a.confirmRecord(ctx); err != nil {
		return err
	}
	if !a.stillWanted(t) {
		return nil
	}
	a.opts.Log.Info("unloading unit", "unit", t.Name, "reason", t.Reason)
	a.mu.Lock()
	a.halfway[t.Name] = true
	a.mu.Unlock()
	if err := a.opts.Driver.Unload(ctx, t.Name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.halfway, t.Name)
	delete(a.units, t.Name) // the driver tells it too, a little later
	return nil
}

// slotted calls f when there is a slot for it, and lets the next have the slot after slotFor at the latest.
func (a *Agent) slotted(ctx context.Context, f func(context.Context) error) error {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	free := time.AfterFunc(slotFor, func() { <-a.slots })
	defer func() {
		if free.Stop() {
			<-a.slots
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return f(ctx)
}
