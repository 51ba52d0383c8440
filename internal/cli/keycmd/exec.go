package keycmd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"flota/internal/fault"
)

// maxEnv is the largest value that is put into a command's environment. 64 KiB: Linux takes 128 KiB for one variable.
const maxEnv = 64 << 10

// killAfter is how long a command has to end after SIGTERM before it is killed.
const killAfter = 5 * time.Second

// runner runs a command for each change, one after another. Changes that wait are kept by key, the newest only, in the order in which
// their keys came up.
type runner struct {
	k       *keys
	command string
	left    int           // runs to go; negative: no limit
	wake    chan struct{} // something waits
	done    chan struct{} // run has ended

	mu      sync.Mutex // guards the fields below
	waiting map[string]event
	order   []string // keys of waiting
}

// newRunner makes a runner that ends after count runs; 0: never.
func newRunner(k *keys, command string, count int) *runner {
	if count == 0 {
		count = -1
	}
	return &runner{k: k, command: command, left: count, wake: make(chan struct{}, 1), done: make(chan struct{}), waiting: map[string]event{}}
}

// take keeps a change until its turn comes. It never waits.
func (r *runner) take(e event) error {
	r.mu.Lock()
	if _, waits := r.waiting[e.Key]; !waits {
		r.order = append(r.order, e.Key)
	}
	r.waiting[e.Key] = e
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it has been rung already
	}
	return nil
}

// next gives the change whose turn it is.
func (r *runner) next() (event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) == 0 {
		return event{}, false
	}
	e := r.waiting[r.order[0]]
	delete(r.waiting, e.Key)
	r.order = r.order[1:]
	return e, true
}

// run runs commands until ctx ends or enough were run, and then ends the watch by end. Started by watch.
func (r *runner) run(ctx context.Context, end context.CancelCauseFunc) {
	defer close(r.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for e, ok := r.next(); ok && ctx.Err() == nil; e, ok = r.next() {
			code, err := r.once(ctx, e)
			if r.left--; r.left == 0 {
				switch {
				case err != nil && code < 0:
					end(err)
				case code != 0:
					end(r.k.Exit(code))
				default:
					end(errEnough)
				}
				return
			}
			if err != nil && ctx.Err() == nil {
				r.k.note("%s: the command: %v", e.Key, err)
			}
		}
	}
}

// wait waits until run has ended, so that no command outlives the program.
func (r *runner) wait() { <-r.done }

// once runs the command for one change and gives its exit code; -1 if it could not be run.
func (r *runner) once(ctx context.Context, e event) (int, error) {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", r.command)
	c.Stdout, c.Stderr, c.Stdin = r.k.Out, r.k.Err, bytes.NewReader(e.raw)
	c.Env = append(os.Environ(), "FLOTA_KEY="+e.Key, "FLOTA_ACTION="+e.Action, "FLOTA_REVISION="+strconv.FormatInt(e.Revision, 10))
	if len(e.raw) <= maxEnv && !bytes.ContainsRune(e.raw, 0) {
		c.Env = append(c.Env, "FLOTA_VALUE="+string(e.raw))
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what the shell starts ends with it
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = killAfter
	err := c.Run()
	return exitCode(err), err
}

// exitCode is what a shell would say of a command: 128 and the signal if one ended it; -1 if it did not run.
func exitCode(err error) int {
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &e):
		if errors.Is(err, exec.ErrWaitDelay) {
			return 0 // it ended, and left something behind that holds its output
		}
		return -1
	}
	if st, ok := e.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal())
	}
	return e.ExitCode()
}

// notRun is the error of a command that could not be started. 127 and 126 are what shells say.
func notRun(k *keys, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		k.note("flota: %v", err)
		return k.Exit(127)
	}
	if errors.Is(err, os.ErrPermission) {
		k.note("flota: %v", err)
		return k.Exit(126)
	}
	return fault.Wrap(fault.Failed, err, "run the command")
}
