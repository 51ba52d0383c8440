package agent

import (
	"context"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/unit"
)

// partTTL is how long a planned restart of the agent is waited for before its machine counts as lost. Source: DESIGN.md section 5.
const partTTL = 60 * time.Second

// partWait bounds announcing a planned restart, and leaving. 2 s: nobody waits longer for a process to end.
const partWait = 2 * time.Second

// haltPatience is how long a halt waits while no unit leaves this machine. 10 s: with nowhere to go they will not go.
const haltPatience = 10 * time.Second

// haltRequest asks Run to halt.
type haltRequest struct {
	ctx  context.Context
	done chan error
}

// Halt is the clean shutdown of the machine: its units start elsewhere first. It waits until they have left, until none has
// left for 10 s, or until ctx ends, stops those that are still here, and takes the presence out of the store. Then Run returns.
// It returns fault.Unavailable if Run is not running, and the error of a unit that could not be stopped.
func (a *Agent) Halt(ctx context.Context) error {
	a.mu.Lock()
	run := a.run
	a.mu.Unlock()
	if run == nil {
		return errFrozen
	}
	h := &haltRequest{ctx, make(chan error, 1)}
	select {
	case a.halts <- h:
	case <-run.Done():
		return errFrozen
	}
	return <-h.done
}

// halt does what Halt says, but for the presence. Run calls it with its own context, while all hands are at work. ctx is
// how long to wait for units to leave; those that are stopped here get their own time to stop, unless run ends.
func (a *Agent) halt(run, ctx context.Context) error {
	a.opts.Log.Info("this machine shuts down: its units are to start elsewhere first")
	a.mu.Lock()
	a.leaving = true
	poke(a.report)
	a.mu.Unlock()
	a.awaitEmpty(ctx)
	a.freeze()

	a.mu.Lock()
	var names []unit.Name
	for name := range a.units {
		names = append(names, name)
	}
	a.mu.Unlock()
	var (
		mu    sync.Mutex
		first error
		wait  sync.WaitGroup
	)
	for _, name := range names {
		wait.Go(func() {
			a.opts.Log.Info("unloading unit", "unit", name, "reason", "this machine shuts down")
			if err := a.opts.Driver.Unload(run, name); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = fault.Wrap(fault.KindOf(err), err, "stop %s", name)
				}
			}
		})
	}
	wait.Wait()
	return first
}

// awaitEmpty waits until this machine has no units, nothing changes for haltPatience, or ctx ends.
func (a *Agent) awaitEmpty(ctx context.Context) {
	last, since := -1, time.Now()
	for {
		a.mu.Lock()
		left := len(a.wanted.list) + len(a.units)
		a.mu.Unlock()
		if left != last {
			last, since = left, time.Now()
		}
		if left == 0 || time.Since(since) >= haltPatience || !pause(ctx, haltLook, nil) {
			return
		}
	}
}

// haltLook is how often a halt looks whether units have left: 50 ms, of this process's memory only.
const haltLook = 50 * time.Millisecond

// freeze ends all work on units and waits for the workers; what they asked of the driver goes on.
func (a *Agent) freeze() {
	a.mu.Lock()
	a.frozen = true
	a.stop()
	a.mu.Unlock()
	a.busy.Wait()
}

// leave takes this machine's keys out of the store, by ending their lease. Only when nothing else of the agent runs.
func (a *Agent) leave(ctx context.Context) {
	if a.lease.id == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, partWait)
	defer cancel()
	if err := a.opts.Store.KV.Revoke(ctx, a.lease.id); err != nil {
		a.opts.Log.Warn("the presence could not be taken back; it ends by itself", "err", err)
	}
}

// part announces a planned restart: presence and states are put under a lease of 60 s. Only when nothing else of the
// agent runs. If it does not work in time, the presence ends as after a crash.
func (a *Agent) part(ctx context.Context) {
	if !a.lease.confirmed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, partWait)
	defer cancel()
	sent := time.Now()
	id, err := a.opts.Store.KV.Grant(ctx, partTTL)
	if err == nil {
		a.mu.Lock()
		a.parting = true
		a.lease = lease{id: id, sent: sent}
		a.mu.Unlock()
		err = a.publishUnder(ctx, a.lease)
	}
	if err != nil {
		a.opts.Log.Warn("the planned restart could not be announced", "err", err)
		return
	}
	a.fence(ctx, time.Until(sent.Add(partTTL-fenceMargin)))
	a.opts.Log.Info("the agent stops; its units keep running")
}
