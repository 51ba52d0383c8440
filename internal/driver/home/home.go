// Package home is where the files of one machine's supervisor are: paths, the lock's holder, and JSON files that are never half written.
//
// The invariant: a path depends on the data directory alone, so that the next supervisor, a client and a power cut find the same.
// It starts and stops nothing.
//
// Start reading at Home.
package home

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"flota/internal/fault"
	"flota/internal/unit"
)

// MaxSocketPath is the longest path that a unix socket may have. Source: unix(7), sun_path has 108 bytes with the final 0.
const MaxSocketPath = 107

// Home is where the files of one supervisor are. Make one with At.
type Home struct{ Dir string }

// At checks a data directory. fault.Invalid if it is too long for a unix socket in it.
func At(dir string) (Home, error) {
	if !filepath.IsAbs(dir) {
		return Home{}, fault.New(fault.Invalid, "data directory %q is not an absolute path", dir)
	}
	p := Home{filepath.Clean(dir)}
	if n := len(p.Socket()); n > MaxSocketPath {
		return Home{}, fault.WithHint(fault.New(fault.Invalid, "the path %s has %d bytes, and a unix socket's may have %d", p.Socket(), n, MaxSocketPath),
			"choose a shorter --data-dir")
	}
	return p, nil
}

// Socket is what the supervisor listens on, for root or its own user only.
func (p Home) Socket() string { return filepath.Join(p.Dir, "supervisor.sock") }

// Lock holds the supervisor's PID and is locked while one lives.
func (p Home) Lock() string { return filepath.Join(p.Dir, "supervisor.pid") }

// Units holds one directory per unit.
func (p Home) Units() string { return filepath.Join(p.Dir, "units") }

// Unit is one unit's directory. Names too long for one, and none else, are shortened and made unique by a hash.
func (p Home) Unit(name unit.Name) string {
	base := string(name)
	if len(base) > 200 { // NAME_MAX is 255
		base = base[:150] + "+" + Hash(base)[:16]
	}
	return filepath.Join(p.Units(), base)
}

// Key tells this data directory's control groups and sockets from those of others.
func (p Home) Key() string {
	real, err := filepath.EvalSymlinks(p.Dir)
	if err != nil {
		real = p.Dir
	}
	return Hash(real)[:12]
}

// Sockets is the directory of the units' notification sockets. As root it is below /run, because a unit's user can reach
// that and not the data directory, which is root's alone, and because PrivateTmp=, ProtectHome= and ProtectSystem= leave /run in
// sight wherever the data directory is. An abstract socket would be lost to units with PrivateNetwork=. The name
// depends on the data directory alone, so the next supervisor binds the same.
func (p Home) Sockets() string {
	if os.Geteuid() == 0 {
		return filepath.Join("/run/flota", p.Key())
	}
	return filepath.Join(p.Dir, "n")
}

// Hash gives hex digits that stand for s.
func Hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Fingerprint tells one build of the program from another by its file's size and time; empty if it cannot be read.
func Fingerprint(exe string) string {
	info, err := os.Stat(exe)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x-%x", info.Size(), info.ModTime().UnixNano())
}

// PID reads the PID of the supervisor that holds the directory now; 0 if none does.
func (p Home) PID() int {
	f, err := os.OpenFile(p.Lock(), os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return 0 // nobody holds the lock; closing gives it back
	}
	var pid int
	if _, err := fmt.Fscan(f, &pid); err != nil {
		return 0
	}
	return pid
}

// Save writes v as JSON so that a reader sees the old or the new, never a part.
func Save(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Read reads what Save wrote.
func Read(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
