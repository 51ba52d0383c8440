// Package child is what runs between fork and exec: the same binary under the name flota-exec turns itself into one
// command of a unit, step by step as its Spec says, and then executes it.
//
// The invariant: either every step of the Spec is done when the program starts, or the program does not start and the
// process exits with systemd's code of the step that failed, after telling why on the status pipe.
//
// It runs from this package's init, the only one in the project, and therefore imports the standard library alone and
// little of it: Go initialises packages by import path as soon as their imports are ready, so that this happens before
// the big libraries of the binary (github.com/…, go.etcd.io/…, google.golang.org/…) spend time on themselves. A unit
// start would otherwise cost tens of milliseconds of processor time. One import that sorts late (path/filepath) undoes it:
// launch's cost test tells. It decides nothing, looks up nothing, logs nothing.
//
// Start reading at run.
package child

import (
	"encoding/json"
	"os"
	"runtime"
	"syscall"
)

// Name is argv[0] of the helper.
const Name = "flota-exec"

// The file descriptors of a helper: where its Spec is, where it tells of failure, what it waits for when Gated, and
// the first of the files that Start was given.
const (
	SpecFD   = 3
	StatusFD = 4
	GateFD   = 5
	FileFD   = 6
)

// init becomes the helper when the process was started as one, and never returns then.
//
//nolint:gochecknoinits // argued in the package comment
func init() {
	if len(os.Args) != 1 || os.Args[0] != Name {
		return
	}
	runtime.LockOSThread()
	for _, fd := range []int{SpecFD, StatusFD, GateFD} {
		syscall.CloseOnExec(fd)
	}
	f := run()
	report(f)
	os.Exit(f.Code)
}

// report writes f to the status pipe. It fails in silence when a filter forbids write(2); the exit code stays.
func report(f *Failure) {
	if text, err := json.Marshal(f); err == nil {
		syscall.Write(StatusFD, text)
	}
}

// run does everything in systemd's order and returns only if a step fails.
func run() *Failure {
	spec, err := Receive(SpecFD)
	if err != nil {
		return fail("EXEC", ExitExec, err)
	}
	if spec.Gated {
		var b [1]byte
		if n, err := syscall.Read(GateFD, b[:]); n != 1 {
			return fail("EXEC", ExitExec, fallback(err, syscall.EPIPE))
		}
	}
	for _, step := range []func(*Spec) *Failure{
		streams, join, resources, namespaces, mounts, groups, limits, bounding, become, keyring, workDir, lockDown,
	} {
		if f := step(spec); f != nil {
			return f
		}
	}
	return execute(spec)
}

// execute installs the filters and becomes the program. Between the two, the Go runtime must not need a system call.
func execute(s *Spec) *Failure {
	path, argv, env, err := execArgs(s)
	if err != nil {
		return fail("EXEC", ExitExec, err)
	}
	if err := executable(s.Path); err != nil {
		return fail("EXEC", ExitExec, wrap(s.Path, err))
	}
	if err := resetSignals(s.IgnoreSIGPIPE); err != nil {
		return fail("SIGNAL_MASK", ExitSignalMask, err)
	}
	if f := filters(s); f != nil {
		return f
	}
	return fail("EXEC", ExitExec, wrap(s.Path, execve(path, argv, env)))
}

func fallback(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
