// Package ear hears what a unit says of itself: the socket of sd_notify(3), one per unit, so that no unit can speak for another or
// fill another's queue.
//
// The invariant: each message comes with the sender that the kernel vouches for; whether that sender may speak is not decided here.
//
// Start reading at Open.
package ear

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flota/internal/driver/home"
	"flota/internal/driver/lifecycle"
)

// Ear is one unit's notification socket.
type Ear struct {
	Path string // the value of $NOTIFY_SOCKET
	conn *net.UnixConn
}

// Message is what was heard. Done must be called when it has been obeyed: who sent BARRIER=1 waits for that.
type Message struct {
	Sender syscall.Ucred
	Note   lifecycle.Note // but for Note.Main, which wants a look at the process
	Main   int            // MAINPID=, 0 for none
	fds    []int
}

// Done gives the file descriptors back that came with the message: of FDSTORE=, or of BARRIER=1.
func (m Message) Done() {
	for _, fd := range m.fds {
		syscall.Close(fd)
	}
}

// Open binds path, which every user may send to; what stood there before is replaced.
func Open(path string) (*Ear, error) {
	if len(path) > home.MaxSocketPath {
		return nil, fmt.Errorf("path of notification socket %s is too long: choose a shorter --data-dir", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make directory of notification sockets: %w", err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("replace notification socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("bind notification socket: %w", err)
	}
	if err := prepare(conn, path); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prepare notification socket: %w", err)
	}
	return &Ear{Path: path, conn: conn}, nil
}

// Close ends Listen. The socket's path stays, so that who sends between two supervisors is refused and may send again.
func (e *Ear) Close() { e.conn.Close() }

// Listen calls f with each message until Close. Messages without a sender, and ones too long to be whole, are left out.
func (e *Ear) Listen(f func(Message)) {
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, no, flags, _, err := e.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		cred, fds := controlMessages(oob[:no])
		m := Message{fds: fds}
		if cred == nil || flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
			m.Done()
			continue
		}
		m.Sender = *cred
		m.Note, m.Main = parse(string(buf[:n]))
		f(m)
	}
}

// prepare lets every user send, and has the kernel say who did.
func prepare(conn *net.UnixConn, path string) error {
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
	}); err != nil {
		return err
	}
	return set
}

// controlMessages gives the sender and the file descriptors that came along.
func controlMessages(oob []byte) (cred *syscall.Ucred, fds []int) {
	all, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, nil
	}
	for _, m := range all {
		if more, err := syscall.ParseUnixRights(&m); err == nil {
			fds = append(fds, more...)
		} else if c, err := syscall.ParseUnixCredentials(&m); err == nil {
			cred = c
		}
	}
	return cred, fds
}

// parse reads the assignments of a notification. Source: sd_notify(3).
func parse(text string) (n lifecycle.Note, main int) {
	micros := func(v string) time.Duration {
		us, err := strconv.ParseUint(v, 10, 63)
		if err != nil || us > uint64(1<<62)/1000 {
			return 0
		}
		return time.Duration(us) * time.Microsecond
	}
	for line := range strings.SplitSeq(text, "\n") {
		key, v, _ := strings.Cut(line, "=")
		switch key {
		case "READY":
			n.Ready = v == "1"
		case "RELOADING":
			n.Reloading = v == "1"
		case "STOPPING":
			n.Stopping = v == "1"
		case "WATCHDOG":
			n.Watchdog, n.WatchdogTrigger = v == "1", v == "trigger"
		case "STATUS":
			v = strings.ToValidUTF8(v, "?")
			n.Status = &v
		case "MAINPID":
			main, _ = strconv.Atoi(v)
		case "EXTEND_TIMEOUT_USEC":
			n.Extend = micros(v)
		case "WATCHDOG_USEC":
			n.Every = micros(v)
		}
	}
	return n, main
}
