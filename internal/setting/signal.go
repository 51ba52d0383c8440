package setting

import (
	"strconv"
	"strings"
	"syscall"

	"flota/internal/fault"
)

// The real-time signals that "SIGRTMIN+n" and "SIGRTMAX-n" count from. Source: glibc on Linux.
const (
	rtMin syscall.Signal = 34
	rtMax syscall.Signal = 64
)

// signalNames are the signals below the real-time ones, without SIG. Source: signal(7), x86 and arm numbers.
var signalNames = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "ILL": syscall.SIGILL,
	"TRAP": syscall.SIGTRAP, "ABRT": syscall.SIGABRT, "BUS": syscall.SIGBUS, "FPE": syscall.SIGFPE,
	"KILL": syscall.SIGKILL, "USR1": syscall.SIGUSR1, "SEGV": syscall.SIGSEGV, "USR2": syscall.SIGUSR2,
	"PIPE": syscall.SIGPIPE, "ALRM": syscall.SIGALRM, "TERM": syscall.SIGTERM, "STKFLT": syscall.SIGSTKFLT,
	"CHLD": syscall.SIGCHLD, "CONT": syscall.SIGCONT, "STOP": syscall.SIGSTOP, "TSTP": syscall.SIGTSTP,
	"TTIN": syscall.SIGTTIN, "TTOU": syscall.SIGTTOU, "URG": syscall.SIGURG, "XCPU": syscall.SIGXCPU,
	"XFSZ": syscall.SIGXFSZ, "VTALRM": syscall.SIGVTALRM, "PROF": syscall.SIGPROF, "WINCH": syscall.SIGWINCH,
	"IO": syscall.SIGIO, "PWR": syscall.SIGPWR, "SYS": syscall.SIGSYS,
}

// Signal reads a signal: a name with or without SIG in upper case, SIGRTMIN+n, SIGRTMAX-n, or a number from 1
// to 64. Errors are fault.Invalid.
func Signal(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(s, "SIG")
	if sig, ok := signalNames[name]; ok {
		return sig, nil
	}
	base, step := syscall.Signal(0), name
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, step = rtMin, strings.TrimPrefix(name, "RTMIN")
	case strings.HasPrefix(name, "RTMAX"):
		base, step = rtMax, strings.TrimPrefix(name, "RTMAX")
	case name != s:
		return 0, fault.New(fault.Invalid, "%q is not a signal", s)
	}
	if base != 0 && step == "" {
		return base, nil
	}
	n, err := Int(step)
	sig := base + syscall.Signal(n)
	switch {
	case err != nil || n > 64 || n < -64:
	case base == rtMin && step[0] == '+' && sig <= rtMax,
		base == rtMax && step[0] == '-' && sig >= rtMin,
		base == 0 && sig >= 1 && sig <= rtMax:
		return sig, nil
	}
	return 0, fault.New(fault.Invalid, "%q is not a signal", s)
}

// SignalName gives the name that Signal reads: SIGTERM, SIGRTMIN+1, or the number for what has no name.
func SignalName(sig syscall.Signal) string {
	for name, s := range signalNames {
		if s == sig {
			return "SIG" + name
		}
	}
	switch {
	case sig >= rtMin && sig <= rtMax:
		return "SIGRTMIN+" + strconv.Itoa(int(sig-rtMin))
	}
	return strconv.Itoa(int(sig))
}
