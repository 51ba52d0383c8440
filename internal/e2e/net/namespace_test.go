package netbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name: it lives as long as this process holds it or any process runs in it.
type namespace struct{ file *os.File }

// newNamespace makes one, with its loopback up.
func newNamespace() (*namespace, error) {
	n := &namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := n.ip("link set dev lo up"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// onThread runs f on a thread of its own, in whose network namespace it may do as it likes.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back) // and the thread ends with this goroutine, since it stays locked
		} else {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// do runs f in the namespace: what it dials, listens on and starts belongs there, for good. f must do so on its own goroutine.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		raw, err := n.file.SyscallConn() // holds the file while it is used: another goroutine may close it
		if err != nil {
			return err
		}
		var in error
		if err := raw.Control(func(fd uintptr) { in = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil || in != nil {
			return fmt.Errorf("enter the network namespace: %w", errors.Join(err, in))
		}
		return f()
	})
}

// path is how other programs find the namespace.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

func (n *namespace) close() { n.file.Close() }

// ip runs commands of ip(8) in the namespace, all or up to the first that fails.
func (n *namespace) ip(commands ...string) error {
	var out bytes.Buffer
	err := n.do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, out.Bytes())
	}
	return nil
}

// possible says whether this host lets us make beds.
var possible = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("there is no program ip (Debian: iproute2)")
	}
	n, err := newNamespace()
	if err != nil {
		return err
	}
	defer n.close()
	return n.ip("link add name b type bridge", "link add name v type veth peer name w")
})

// need skips the test on a host without network namespaces.
func need(t *testing.T) {
	t.Helper()
	if err := possible(); err != nil {
		t.Skip("no beds of machines here: ", err)
	}
}
