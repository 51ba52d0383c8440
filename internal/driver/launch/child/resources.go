package child

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// join enters the control groups.
func join(s *Spec) *Failure { return Join(0, s) }

// Join puts process pid (0: this one) into the control groups of s.
func Join(pid int, s *Spec) *Failure {
	for _, path := range s.CgroupProcs {
		// 0 is the writer itself, with all its threads.
		if err := write(path, strconv.Itoa(pid)); err != nil {
			return fail("CGROUP", ExitCgroup, err)
		}
	}
	return nil
}

// write writes text to a file of the kernel that exists.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

func resources(s *Spec) *Failure { return Resources(0, s) }

// Resources sets what is neither limit nor right for process pid (0: this one): OOM score, scheduling, affinity.
func Resources(pid int, s *Spec) *Failure {
	if s.OOMScoreAdj != nil {
		if err := oomScore(pid, *s.OOMScoreAdj); err != nil {
			return fail("OOM_ADJUST", ExitOOMAdjust, err)
		}
	}
	if s.Nice != nil {
		if _, err := call(syscall.SYS_SETPRIORITY, 0, uintptr(pid), uintptr(*s.Nice)); err != nil {
			return fail("NICE", ExitNice, wrap("setpriority", err))
		}
	}
	if s.Sched != nil {
		const resetOnFork = 0x40000000
		policy, param := s.Sched.Policy, int32(s.Sched.Priority)
		if s.Sched.ResetOnFork {
			policy |= resetOnFork
		}
		_, err := call(syscall.SYS_SCHED_SETSCHEDULER, uintptr(pid), uintptr(policy), uintptr(unsafe.Pointer(&param)))
		if err != nil {
			return fail("SETSCHEDULER", ExitScheduler, wrap("sched_setscheduler", err))
		}
	}
	if len(s.CPUs) > 0 {
		var mask [128]uint64 // 8192 processors, the most that Linux knows
		for _, n := range s.CPUs {
			if n >= 0 && n < len(mask)*64 {
				mask[n/64] |= 1 << (n % 64)
			}
		}
		_, err := call(syscall.SYS_SCHED_SETAFFINITY, uintptr(pid), unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
		if err != nil {
			return fail("CPUAFFINITY", ExitAffinity, wrap("sched_setaffinity", err))
		}
	}
	if s.IOPrio != nil {
		const whoProcess = 1
		if _, err := call(syscall.SYS_IOPRIO_SET, whoProcess, uintptr(pid), uintptr(*s.IOPrio)); err != nil {
			return fail("IOPRIO", ExitIOPrio, wrap("ioprio_set", err))
		}
	}
	return nil
}

// oomScore sets the score. Where it may not be lowered it stays, as systemd has it in containers; launch.Plan has noted it.
func oomScore(pid, score int) error {
	who := "self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	err := write("/proc/"+who+"/oom_score_adj", strconv.Itoa(score))
	if os.IsPermission(err) {
		return nil
	}
	return err
}

// nofile is RLIMIT_NOFILE.
const nofile = 7

// defaultNofile is the soft limit of open files when the unit sets none: select(2) cannot watch more.
// Source: systemd's DefaultLimitNOFILE=1024:524288; the hard limit stays what the manager has.
const defaultNofile = 1024

// limits sets the resource limits.
func limits(s *Spec) *Failure {
	all := s.Rlimits
	own := false
	for _, l := range all {
		own = own || l.Resource == nofile
	}
	if !own {
		var now Rlimit
		if err := prlimit(0, nofile, nil, &now); err != nil {
			return fail("LIMITS", ExitLimits, err)
		}
		all = append(all[:len(all):len(all)], Rlimit{nofile, min(defaultNofile, now.Hard), now.Hard})
	}
	for _, l := range all {
		if err := closest(l); err != nil {
			return fail("LIMITS", ExitLimits, err)
		}
	}
	return nil
}

// RaiseLimits gives process pid the hard limits of s that are above its own, which it may not do itself in another
// user namespace. What is forbidden stays as it is.
func RaiseLimits(pid int, s *Spec) {
	for _, l := range s.Rlimits {
		var now Rlimit
		if prlimit(pid, l.Resource, nil, &now) == nil && l.Hard > now.Hard {
			prlimit(pid, l.Resource, &Rlimit{Soft: now.Soft, Hard: l.Hard}, nil)
		}
	}
}

// closest sets a limit, or what comes nearest to it without raising the hard limit where that is forbidden.
func closest(l Rlimit) error {
	err := prlimit(0, l.Resource, &l, nil)
	if err != syscall.EPERM {
		return wrap("prlimit", err)
	}
	var now Rlimit
	if err := prlimit(0, l.Resource, nil, &now); err != nil {
		return wrap("prlimit", err)
	}
	l.Hard = min(l.Hard, now.Hard)
	l.Soft = min(l.Soft, l.Hard)
	return wrap("prlimit", prlimit(0, l.Resource, &l, nil))
}

// prlimit sets and reads a limit; set and get may be nil.
func prlimit(pid, resource int, set, get *Rlimit) error {
	var in, out [2]uint64
	var pin, pout unsafe.Pointer
	if set != nil {
		in = [2]uint64{set.Soft, set.Hard}
		pin = unsafe.Pointer(&in)
	}
	if get != nil {
		pout = unsafe.Pointer(&out)
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), uintptr(resource), uintptr(pin), uintptr(pout), 0, 0)
	if errno != 0 {
		return errno
	}
	if get != nil {
		get.Soft, get.Hard = out[0], out[1]
	}
	return nil
}
