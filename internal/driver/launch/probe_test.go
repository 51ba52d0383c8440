package launch

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe tries one thing and gives "ok" or the errno's name.
func probe(what string, args []string) string {
	f, ok := map[string]func([]string) error{
		"write":    func(a []string) error { return os.WriteFile(a[0], []byte("x"), 0o644) },
		"read":     func(a []string) error { _, err := os.ReadFile(a[0]); return err },
		"list":     func(a []string) error { _, err := os.ReadDir(a[0]); return err },
		"socket":   func([]string) error { return socket(unix.AF_INET) },
		"unix":     func([]string) error { return socket(unix.AF_UNIX) },
		"packet":   func([]string) error { return socket(unix.AF_PACKET) },
		"unshare":  func([]string) error { return unix.Unshare(unix.CLONE_NEWUTS) },
		"wx":       writeExec,
		"fifo":     func([]string) error { return scheduler(unix.SCHED_FIFO) },
		"suid":     func(a []string) error { return os.Chmod(a[0], 0o755|os.ModeSetuid) },
		"persona":  func([]string) error { _, _, e := unix.Syscall(unix.SYS_PERSONALITY, 0x0040000, 0, 0); return no(e) },
		"hostname": func([]string) error { return unix.Sethostname([]byte("probe")) },
		"clock":    func([]string) error { return unix.Settimeofday(&unix.Timeval{}) },
		"syslog":   func([]string) error { _, err := unix.Klogctl(10, nil); return err },
		"module":   func([]string) error { return unix.DeleteModule("no_such_module", 0) },
		"mkdir":    func(a []string) error { return os.Mkdir(a[0], 0o755) },
		"x32":      func([]string) error { _, _, e := unix.RawSyscall(0x40000000|39, 0, 0, 0); return no(e) },
		"exec":     func(a []string) error { return unix.Access(a[0], unix.X_OK) },
		"ids": func([]string) error {
			g, _ := os.Getgroups()
			return fmt.Errorf("%d %d %v", os.Getuid(), os.Getgid(), g)
		},
	}[what]
	if !ok {
		return "no such probe"
	}
	err := f(args)
	if err == nil {
		return "ok"
	}
	for e := syscall.Errno(1); e < 200; e++ {
		if strings.HasSuffix(err.Error(), e.Error()) {
			return unix.ErrnoName(e)
		}
	}
	return err.Error()
}

func no(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func socket(family int) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func writeExec([]string) error {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		unix.Munmap(m)
	}
	return err
}

func scheduler(policy int) error {
	param := int32(1)
	_, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(policy), uintptr(unsafe.Pointer(&param)))
	return no(e)
}
