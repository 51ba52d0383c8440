package launch

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"flota/internal/driver/launch/child"
)

// helperEnv is the environment of the helper, not of the unit. Nothing may disturb its one thread between the seccomp
// filters and exec: no preemption signals, no collector.
var helperEnv = []string{"GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMAXPROCS=1"}

// Start forks and gives the process at once, in a session of its own; what goes wrong before the program runs is told
// by Child.Exec, and by the exit status. A step that is done before the fork (Spec.NewUser alone) may fail here already, as *Failure.
//
// files are those that Stdio of kind FD names by index; they become blocking, and stay the caller's to close.
// The caller closes the Child and reaps the process.
func Start(spec Spec, files []*os.File) (*Child, error) {
	if spec.NewUser == nil {
		return fork(&spec, rawFDs(files), nil)
	}
	type result struct {
		child *Child
		err   error
	}
	done := make(chan result, 1)
	go func() {
		// The thread takes on the unit's namespaces and ends with this goroutine, never unlocked.
		runtime.LockOSThread()
		c, err := startMapped(spec, rawFDs(files))
		done <- result{c, err}
	}()
	r := <-done
	return r.child, r.err
}

// startMapped starts a process in a new user namespace. Only clone(2) can make that for a process with threads, and
// inside it the process may no longer do what needs the host's rights; so all that is done here,
// on a thread that is thrown away and, to the gated process, from outside.
func startMapped(spec Spec, files []uintptr) (*Child, error) {
	fds, f := child.Streams(&spec)
	if f != nil {
		return nil, f
	}
	for i, stream := range []*Stdio{&spec.Stdin, &spec.Stdout, &spec.Stderr} {
		if stream.Kind != child.FD && stream.Kind != child.Same {
			defer syscall.Close(fds[i])
			files = append(files, uintptr(fds[i]))
			*stream = Stdio{Kind: child.FD, File: len(files) - 1}
		}
	}
	if f := child.Namespaces(&spec); f != nil {
		return nil, f
	}
	if f := child.Mounts(&spec); f != nil {
		return nil, f
	}
	var gate [2]int
	if err := syscall.Pipe2(gate[:], syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make gate: %w", err)
	}
	defer syscall.Close(gate[0])
	defer syscall.Close(gate[1])
	inner := spec
	inner.Gated = true
	inner.CgroupProcs, inner.Mounts, inner.OOMScoreAdj, inner.Nice, inner.Sched, inner.CPUs, inner.IOPrio = nil, nil, nil, nil, nil, nil, nil
	inner.NewMount, inner.NewNet, inner.NewIPC, inner.NewUTS, inner.JoinNet = false, false, false, false, ""
	c, err := fork(&inner, files, &gate[0])
	if err != nil {
		return nil, err
	}
	if f := fromOutside(c.PID, &spec); f != nil {
		c.early = f // the closed gate ends the process
		return c, nil
	}
	syscall.Write(gate[1], []byte{1})
	return c, nil
}

// fromOutside does to the gated process what needs the host's view of the file system: the calling thread has the unit's
// mounts already, in which control groups may be read-only, so another one does it.
func fromOutside(pid int, spec *Spec) *Failure {
	done := make(chan *Failure)
	go func() {
		f := child.Join(pid, spec)
		if f == nil {
			f = child.Resources(pid, spec)
		}
		child.RaiseLimits(pid, spec)
		done <- f
	}()
	return <-done
}

// fork starts the helper with its Spec.
func fork(spec *Spec, files []uintptr, gate *int) (*Child, error) {
	in, err := specFile(spec)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var status [2]int
	if err := syscall.Pipe2(status[:], syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make status pipe: %w", err)
	}
	defer syscall.Close(status[1])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		syscall.Close(status[0])
		return nil, err
	}
	defer null.Close()
	gated := null.Fd()
	if gate != nil {
		gated = uintptr(*gate)
	}
	sys := &syscall.SysProcAttr{Setsid: true}
	if m := spec.NewUser; m != nil {
		sys.Cloneflags = syscall.CLONE_NEWUSER
		sys.UidMappings, sys.GidMappings = identity(m.UIDs), identity(m.GIDs)
		sys.GidMappingsEnableSetgroups = true
	}
	all := append([]uintptr{null.Fd(), null.Fd(), null.Fd(), in.Fd(), uintptr(status[1]), gated}, files...)
	pid, err := syscall.ForkExec("/proc/self/exe", []string{child.Name}, &syscall.ProcAttr{Env: helperEnv, Files: all, Sys: sys})
	if err != nil {
		syscall.Close(status[0])
		return nil, &Failure{Step: "EXEC", Code: child.ExitExec, Message: "fork: " + err.Error()}
	}
	syscall.SetNonblock(status[0], true)
	return &Child{PID: pid, status: os.NewFile(uintptr(status[0]), "status")}, nil
}

// specFile writes spec into a file without a name, so that its size never blocks anybody.
func specFile(spec *Spec) (*os.File, error) {
	fd, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make spec file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	if err := child.Send(f, spec); err != nil {
		f.Close()
		return nil, fmt.Errorf("write spec: %w", err)
	}
	return f, nil
}

func rawFDs(files []*os.File) []uintptr {
	out := make([]uintptr, len(files))
	for i, f := range files {
		out[i] = f.Fd()
	}
	return out
}

// identity maps each id to itself.
func identity(ids []int) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, id := range ids {
		out = append(out, syscall.SysProcIDMap{ContainerID: id, HostID: id, Size: 1})
	}
	return out
}
