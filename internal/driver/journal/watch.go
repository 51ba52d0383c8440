package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errEnded ends a reader that follows when its ctx has ended; Read gives nil for it.
var errEnded = errors.New("ended")

// watch tells when something changed in a directory, by inotify.
type watch struct {
	file *os.File
}

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init", err)
	}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	return &watch{os.NewFile(uintptr(fd), "inotify")}, nil
}

func (w *watch) close() { w.file.Close() }

// wait blocks until something changed (true), or ctx ended or the directory is gone (false).
func (w *watch) wait(ctx context.Context) (on bool, err error) {
	stop := context.AfterFunc(ctx, func() { w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [4096]byte
	n, err := w.file.Read(buf[:])
	if ctx.Err() != nil {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("wait for journal: %w", err)
	}
	for at := 0; at+unix.SizeofInotifyEvent <= n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
		if e.Mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED) != 0 {
			return false, nil
		}
		at += unix.SizeofInotifyEvent + int(e.Len)
	}
	return true, nil
}
