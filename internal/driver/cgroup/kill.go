package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"flota/internal/fault"
)

// Kill sends a signal to every process of the group, those included that are forked while it works.
func (g *Group) Kill(sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		if path := g.in("", "cgroup.kill"); path != "" {
			err := write(path, "1")
			if err == nil || gone(err) && !exists(g.Path()) {
				return nil
			}
			if !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("kill %s: %w", g.name, err)
			}
		}
	}
	_, err := g.signal(sig)
	return err
}

// signal sends sig to each process once, until a look finds no new one.
func (g *Group) signal(sig syscall.Signal) (n int, err error) {
	seen := map[int]bool{}
	for {
		pids, err := g.Procs()
		if err != nil {
			return len(seen), err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return seen[pid] })
		if len(pids) == 0 {
			return len(seen), nil
		}
		for _, pid := range pids {
			seen[pid] = true
			if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
				return len(seen), fmt.Errorf("signal process %d of %s: %w", pid, g.name, err)
			}
		}
	}
}

// KillAll kills every process of the group, and returns nil when none is left, however fast they fork. Processes that the
// kernel cannot end now (waiting for a dead disk) make it last until ctx ends: fault.TimedOut. A group that is not there is no error.
func (g *Group) KillAll(ctx context.Context) error {
	for {
		if err := g.killFrozen(); err != nil {
			return err
		}
		empty, err := g.waitRound(ctx)
		if empty || err != nil {
			return err
		}
	}
}

// killFrozen kills all that are there, by the best means of the machine: the v2 kernel's own, v1's freezer, or stopping all
// before killing all.
func (g *Group) killFrozen() error {
	if path := g.in("", "cgroup.kill"); path != "" && exists(path) {
		return g.Kill(syscall.SIGKILL)
	}
	state := g.in("freezer", "freezer.state")
	if state == "" || !exists(state) {
		if _, err := g.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		_, err := g.signal(syscall.SIGKILL)
		return err
	}
	if err := write(state, "FROZEN"); err != nil && !gone(err) {
		return fmt.Errorf("freeze %s: %w", g.name, err)
	}
	_, err := g.signal(syscall.SIGKILL)
	if err := write(state, "THAWED"); err != nil && !gone(err) {
		return fmt.Errorf("thaw %s: %w", g.name, err)
	}
	return err
}

func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) }

// WaitEmpty waits until no process is in the group. ctx's end is fault.TimedOut.
func (g *Group) WaitEmpty(ctx context.Context) error {
	for {
		empty, err := g.waitRound(ctx)
		if empty || err != nil {
			return err
		}
	}
}

// waitRound waits until the group is empty, or at least those are gone that are in it now.
func (g *Group) waitRound(ctx context.Context) (empty bool, err error) {
	if path := g.in("", "cgroup.events"); path != "" {
		if !exists(path) {
			return true, nil
		}
		return g.waitEvents(ctx, path)
	}
	pids, err := g.Procs()
	if err != nil || len(pids) == 0 {
		return err == nil, err
	}
	for _, pid := range pids {
		if err := waitExit(ctx, pid); err != nil {
			return false, g.late(err)
		}
	}
	return false, nil
}

func (g *Group) late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fault.Wrap(fault.TimedOut, err, "processes of %s do not end", g.name)
	}
	return err
}

// waitEvents waits until cgroup.events says that the group is not populated.
func (g *Group) waitEvents(ctx context.Context, path string) (bool, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return false, os.NewSyscallError("inotify_init", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
		if err == unix.ENOENT {
			return true, nil
		}
		return false, os.NewSyscallError("inotify_add_watch", err)
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [1024]byte
	for {
		if !exists(path) || g.field("", "cgroup.events", "populated") == 0 {
			return true, nil
		}
		if _, err := f.Read(buf[:]); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return false, g.late(err)
		}
	}
}

// waitExit waits until a process has ended, by pidfd. One that is not there has.
func waitExit(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		one := uint64(1)
		unix.Write(wake, unsafe.Slice((*byte)(unsafe.Pointer(&one)), 8))
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // wake is not closed while it is written to
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case fds[0].Revents != 0:
			return nil
		case fds[1].Revents != 0:
			return ctx.Err()
		}
	}
}
