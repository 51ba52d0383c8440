// Package reap takes the ends of all children of the process, the orphans of units included, and hands those that somebody waits
// for to them.
//
// The invariant: each end is handed over once, to whoever owned the process then; none is lost between a fork and its Own, if
// Forking is held for reading meanwhile.
// It starts and signals nothing.
//
// Start reading at Reaper.
package reap

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
)

// Reaper is the one that waits. The zero value is ready. Safe for concurrent use.
type Reaper struct {
	// Forking is held for reading from before a fork until the child has an owner, so that no end is taken before.
	Forking sync.RWMutex

	following sync.WaitGroup // goroutines of Follow

	mu     sync.Mutex // guards the fields below
	owners map[int]func(lifecycle.Exit)
}

// Own has f called with the end of child pid.
func (r *Reaper) Own(pid int, f func(lifecycle.Exit)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owners == nil {
		r.owners = map[int]func(lifecycle.Exit){}
	}
	r.owners[pid] = f
}

// Disown forgets a process that is nobody's main or control process any more; it reports whether it had an owner.
func (r *Reaper) Disown(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, had := r.owners[pid]
	delete(r.owners, pid)
	return had
}

// Run reaps until ctx ends, and waits for all that Follow began under the same ctx.
func (r *Reaper) Run(ctx context.Context) {
	ends := make(chan os.Signal, 1) // one is enough: each means "look at all"
	signal.Notify(ends, syscall.SIGCHLD)
	defer signal.Stop(ends)
	defer r.following.Wait()
	for {
		r.reap()
		select {
		case <-ctx.Done():
			return
		case <-ends:
		}
	}
}

// reap takes all ends that there are now.
func (r *Reaper) reap() {
	r.Forking.Lock()
	defer r.Forking.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if !ws.Exited() && !ws.Signaled() {
			continue
		}
		r.mu.Lock()
		f := r.owners[pid]
		delete(r.owners, pid)
		r.mu.Unlock()
		if f != nil {
			f(exitOf(ws))
		}
	}
}

// exitOf turns a wait status into words of room lifecycle.
func exitOf(ws syscall.WaitStatus) lifecycle.Exit {
	if ws.Signaled() {
		return lifecycle.Exit{Signal: int(ws.Signal()), Core: ws.CoreDump()}
	}
	return lifecycle.Exit{Code: ws.ExitStatus()}
}

// Follow has f called with the end of a process of a unit, our child or not; of one that is not, the status is unknown.
func (r *Reaper) Follow(ctx context.Context, p lifecycle.Proc, f func(lifecycle.Exit)) {
	r.Own(p.PID, f)
	if child(p) {
		return // its end comes by SIGCHLD
	}
	r.following.Go(func() {
		if err := proc.Wait(ctx, p.PID, p.Ticks); err != nil {
			return // the supervisor ends
		}
		r.Forking.RLock() // not between being reaped and being handed over
		defer r.Forking.RUnlock()
		if child(p) {
			return // it became our child on the way: SIGCHLD tells more
		}
		if r.Disown(p.PID) { // or else it was reaped, and f knows
			f(lifecycle.Exit{Unknown: true})
		}
	})
}

// child reports whether that very process is our child now.
func child(p lifecycle.Proc) bool {
	st, ok := proc.Look(p.PID)
	return ok && st.Ticks == p.Ticks && st.Parent == os.Getpid()
}
