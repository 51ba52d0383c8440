package child

import (
	"os"
	"syscall"
	"unsafe"
)

// Numbers that package syscall lacks; all are the same on every architecture that Linux has had since 5.0.
// Source: include/uapi of Linux 6.1.
const (
	sysOpenTree     = 428
	sysMoveMount    = 429
	sysFsopen       = 430
	sysFsconfig     = 431
	sysFsmount      = 432
	sysCloseRange   = 436
	sysMountSetattr = 442

	closeRangeCloexec = 4

	prSetKeepCaps   = 8
	prSetSeccomp    = 22
	prCapbsetRead   = 23
	prCapbsetDrop   = 24
	prSetSecureBits = 28
	prSetNoNewPrivs = 38
	prCapAmbient    = 47

	capAmbientRaise    = 2
	capAmbientClearAll = 4
)

// call does one system call on this thread alone. All rights are per thread in the kernel; the helper keeps to one.
// Pointers in args stay where they are until it returns.
//
//go:uintptrescapes
func call(nr uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

//go:uintptrescapes
func prctl(args ...uintptr) error {
	_, err := call(syscall.SYS_PRCTL, args...)
	return err
}

// executable checks that path is a file that the process may execute as who it is now, so that the failure can
// still be told before a filter forbids to.
func executable(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return syscall.EACCES
	}
	return syscall.Access(path, 1)
}

// execArgs makes what execve(2) takes.
func execArgs(s *Spec) (path *byte, argv, env []*byte, err error) {
	if path, err = syscall.BytePtrFromString(s.Path); err != nil {
		return
	}
	if argv, err = syscall.SlicePtrFromStrings(s.Args); err != nil {
		return
	}
	env, err = syscall.SlicePtrFromStrings(s.Env)
	return
}

func execve(path *byte, argv, env []*byte) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
	return errno
}

// closeOnExec marks every descriptor from first up.
func closeOnExec(first int) error {
	if _, err := call(sysCloseRange, uintptr(first), ^uintptr(0)>>32, closeRangeCloexec); err == nil {
		return nil
	}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, n := range names {
		fd := 0
		for _, c := range n.Name() {
			fd = fd*10 + int(c-'0')
		}
		if fd >= first {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// sigaction is the kernel's struct; a zeroed one is SIG_DFL on every architecture.
type sigaction struct{ words [4]uint64 }

// resetSignals gives every signal its default action and blocks none; SIGPIPE is ignored if asked for.
func resetSignals(ignorePipe bool) error {
	const sigIgnore, setSize = 1, 8
	for sig := uintptr(1); sig <= 64; sig++ {
		if sig == uintptr(syscall.SIGKILL) || sig == uintptr(syscall.SIGSTOP) {
			continue
		}
		var act sigaction
		if ignorePipe && sig == uintptr(syscall.SIGPIPE) {
			act.words[0] = sigIgnore
		}
		if _, err := call(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, setSize); err != nil {
			return wrap("sigaction", err)
		}
	}
	var none uint64
	const sigSetMask = 2
	_, err := call(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(&none)), 0, setSize)
	return wrap("sigprocmask", err)
}
