// Package proc looks at single processes of this machine and signals them without ever meeting the wrong one.
//
// The invariant: a process is named by its PID and its start time, so a number that the kernel has given to another process
// is never taken for it; PIDs of 1 and below are never signalled.
// It never starts or reaps a process.
//
// Start reading at Stat and Signal.
package proc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is what the kernel says of a process.
type Stat struct {
	PID    int
	Parent int
	Ticks  uint64 // start time since boot, in the kernel's clock ticks
	Zombie bool   // it has ended and waits to be reaped
}

// Look reads a process's stat; ok is false if there is none.
func Look(pid int) (s Stat, ok bool) {
	if pid <= 0 {
		return Stat{}, false
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, false
	}
	_, rest, ok := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(" ")) // the name may hold anything
	f := strings.Fields(string(rest))
	if !ok || len(f) < 20 {
		return Stat{}, false
	}
	s = Stat{PID: pid, Zombie: f[0] == "Z" || f[0] == "X"}
	s.Parent, _ = strconv.Atoi(f[1])
	s.Ticks, err = strconv.ParseUint(f[19], 10, 64)
	return s, err == nil
}

// There reports whether that very process exists, a zombie included.
func There(pid int, ticks uint64) bool {
	s, ok := Look(pid)
	return ok && s.Ticks == ticks
}

// Alive reports whether that very process runs.
func Alive(pid int, ticks uint64) bool {
	s, ok := Look(pid)
	return ok && s.Ticks == ticks && !s.Zombie
}

// open gives a pidfd of that very process, or -1.
func open(pid int, ticks uint64, flags int) int {
	if pid <= 1 {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, flags)
	if err != nil {
		return -1
	}
	if !There(pid, ticks) { // looked at after the pidfd holds it
		unix.Close(fd)
		return -1
	}
	return fd
}

// Signal sends sig to that very process; it reports whether it was there and could be signalled.
func Signal(pid int, ticks uint64, sig syscall.Signal) bool {
	fd := open(pid, ticks, 0)
	if fd < 0 {
		return false
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// Wait waits until that very process has ended, whosever child it is; nil at once if it is not there. ctx's error if
// ctx ends first. It uses no processor time while it waits.
func Wait(ctx context.Context, pid int, ticks uint64) error {
	fd := open(pid, ticks, unix.PIDFD_NONBLOCK)
	if fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// BootTime is the time since boot, times of sleep included; it cannot be set. All processes of a machine agree on it.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("no CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// BootID names this boot of the machine; empty if the kernel does not say.
func BootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
}
