package child

import (
	"os"
	"syscall"
	"unsafe"
)

// streams puts the three standard streams in place and marks every other descriptor to be closed by exec. Files are
// opened with the rights of the manager, as systemd does: a log file belongs to root.
func streams(s *Spec) *Failure {
	syscall.Umask(0o022)
	defer syscall.Umask(int(s.Umask))
	fds, f := Streams(s)
	if f != nil {
		return f
	}
	for to, from := range fds {
		if err := dup(from, to); err != nil {
			return fail("FDS", ExitFDs, wrap("dup", err))
		}
	}
	if s.Stdin.Kind == TTY {
		const tiocsctty = 0x540E
		call(syscall.SYS_IOCTL, 0, tiocsctty, 0) // without it the terminal is just not the controlling one
	}
	return fail("FDS", ExitFDs, wrap("close_range", closeOnExec(3)))
}

// Streams opens the standard streams of s and gives their descriptors, none of them below 3. One of kind FD is the
// one that a helper has it under.
func Streams(s *Spec) (fds [3]int, f *Failure) {
	var err error
	if fds[0], err = open(s.Stdin, os.O_RDONLY, -1); err != nil {
		return fds, fail("STDIN", ExitStdin, err)
	}
	if fds[1], err = open(s.Stdout, os.O_WRONLY, fds[0]); err != nil {
		return fds, fail("STDOUT", ExitStdout, err)
	}
	if fds[2], err = open(s.Stderr, os.O_WRONLY, fds[1]); err != nil {
		return fds, fail("STDERR", ExitStderr, err)
	}
	return fds, nil
}

// open gives a descriptor above 2 for a stream; same is the one that "same" stands for.
func open(s Stdio, flags, same int) (int, error) {
	const mode = 0o644 // systemd's
	path := s.Path
	switch s.Kind {
	case Null:
		path = os.DevNull
	case FD:
		return FileFD + s.File, nil
	case Same:
		return same, nil
	case Data:
		return memory(s.Data)
	case TTY:
		flags = os.O_RDWR
	case Append:
		flags |= os.O_CREATE | os.O_APPEND
	case Truncate:
		flags |= os.O_CREATE | os.O_TRUNC
	case File:
		if flags != os.O_RDONLY {
			flags |= os.O_CREATE
		}
	}
	fd, err := syscall.Open(path, flags|syscall.O_NOCTTY|syscall.O_CLOEXEC, mode)
	if err != nil {
		return -1, wrap("open "+path, err)
	}
	return above(fd)
}

// above gives a copy of fd that is not one of the standard streams, or fd itself.
func above(fd int) (int, error) {
	if fd > 2 {
		return fd, nil
	}
	up, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return -1, errno
	}
	return int(up), nil
}

// memory gives a file without a name that holds data, to be read from its beginning.
func memory(data []byte) (int, error) {
	name, _ := syscall.BytePtrFromString("stdin")
	const cloexec = 1
	fd, err := call(sysMemfdCreate, uintptr(unsafe.Pointer(name)), cloexec)
	if err != nil {
		return -1, wrap("memfd_create", err)
	}
	for at := 0; at < len(data); {
		n, err := syscall.Pwrite(int(fd), data[at:], int64(at))
		if err != nil {
			return -1, wrap("write standard input", err)
		}
		at += n
	}
	return above(int(fd))
}

// dup makes to a copy of from without close-on-exec.
func dup(from, to int) error {
	return syscall.Dup3(from, to, 0)
}
