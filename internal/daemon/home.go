package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"flota/internal/fault"
	"flota/internal/machine"
)

// maxSocketPath is how long the path of a unix socket may be. Source: sun_path of sockaddr_un is 108 bytes with its NUL.
const maxSocketPath = 107

// home is the data directory, locked for this process.
type home struct {
	dir  string
	id   machine.ID
	lock *os.File // agent.pid, flock'd
}

// openHome makes the data directory if need be, locks it and reads or makes the machine's ID.
func openHome(dir string) (*home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if n := len(filepath.Join(dir, "supervisor.sock")); n > maxSocketPath {
		return nil, fault.WithHint(fault.New(fault.Invalid, "data directory %s: its sockets' paths would have %d bytes, the kernel allows %d",
			dir, n, maxSocketPath), "choose a shorter --data-dir or --dir")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	h := &home{dir: dir}
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	if h.id, err = readID(filepath.Join(dir, "machine-id")); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// path is a file of the data directory.
func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// takeLock writes agent.pid and holds a lock on it for as long as the process lives.
func (h *home) takeLock() error {
	f, err := os.OpenFile(h.path("agent.pid"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		b := make([]byte, 16)
		n, _ := f.Read(b) // only for the message
		return fault.New(fault.Conflict, "another flota (pid %s) runs on %s", strings.TrimSpace(string(b[:n])), h.dir)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("write agent.pid: %w", err)
	}
	h.lock = f
	return nil
}

// close unlocks the directory and removes agent.pid.
func (h *home) close() {
	os.Remove(h.path("agent.pid"))
	h.lock.Close()
}

// readID reads the machine's ID, or makes it: random, so that a copied disk image with one /etc/machine-id gives two machines.
func readID(path string) (machine.ID, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		raw := make([]byte, 16)
		rand.Read(raw)
		id := hex.EncodeToString(raw)
		tmp := path + ".new"
		if err := os.WriteFile(tmp, []byte(id+"\n"), 0o644); err != nil {
			return "", fmt.Errorf("write machine id: %w", err)
		}
		return machine.ID(id), os.Rename(tmp, path)
	}
	if err != nil {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	id, err := machine.ParseID(strings.TrimSpace(string(b)))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return id, nil
}

// hostSize is what this host has.
func hostSize() machine.Size {
	size := machine.Size{CPUMillis: int64(runtime.NumCPU()) * 1000}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		size.MemBytes = int64(si.Totalram) * int64(si.Unit)
	}
	return size
}

// bootID names this boot of the host; empty when the kernel does not tell.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty is a valid answer
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
}
