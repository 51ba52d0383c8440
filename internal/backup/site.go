package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"flota/internal/fault"
)

// site is where a data directory is built: beside its place, locked against another restore.
type site struct {
	target string // where it will be
	dir    string // where it is built
	lock   *os.File
	done   bool
}

// openSite refuses a target that holds something (fault.Exists), or that cannot be replaced in one step (fault.Invalid), and makes an empty
// directory beside it. What a restore that crashed left there is removed.
func openSite(target string) (*site, error) {
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "restore")
	}
	if err := checkEmpty(target); err != nil {
		return nil, err
	}
	parent := filepath.Dir(target)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "restore")
	}
	s := &site{target: target, dir: filepath.Join(parent, "."+filepath.Base(target)+".restore")}
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.Wrap(fault.Internal, err, "restore")
	}
	if s.lock, err = os.Open(s.dir); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "restore")
	}
	if err := s.take(); err != nil {
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// take locks the directory and empties it.
func (s *site) take() error {
	busy := fault.New(fault.Conflict, "another restore to %s is at work", s.target)
	if unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return busy
	}
	mine, err := s.lock.Stat()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "restore")
	}
	// The other may have ended, and its directory be in place or gone, since it was opened here.
	if there, err := os.Lstat(s.dir); err != nil || !os.SameFile(mine, there) {
		return busy
	}
	old, err := os.ReadDir(s.dir)
	for _, e := range old {
		if err == nil {
			err = os.RemoveAll(filepath.Join(s.dir, e.Name()))
		}
	}
	return fault.Wrap(fault.Internal, err, "restore: remove what an earlier one left")
}

// checkEmpty refuses a target that holds something, or is a mount point.
func checkEmpty(target string) error {
	in, err := os.ReadDir(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTDIR):
		return fault.New(fault.Exists, "restore: %s is not a directory", target)
	case err != nil:
		return fault.Wrap(fault.Internal, err, "restore")
	case len(in) > 0:
		return fault.WithHint(fault.New(fault.Exists, "restore: %s is not empty: it holds %q", target, in[0].Name()),
			"stop flota there and move the directory aside, mv %s %s.old, or restore into another one with --data-dir", target, target)
	}
	var here, above unix.Stat_t
	if err := errors.Join(unix.Lstat(target, &here), unix.Stat(filepath.Dir(target), &above)); err != nil {
		return fault.Wrap(fault.Internal, err, "restore")
	}
	if here.Dev != above.Dev || here.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fault.WithHint(fault.New(fault.Invalid, "restore: %s is a mount point or a link: it cannot be put in place in one step", target),
			"restore into a directory below it: --data-dir %s", filepath.Join(target, "data"))
	}
	return nil
}

// finish puts the directory in its place, for good.
func (s *site) finish() error {
	if err := syncTree(s.dir); err != nil {
		return fault.Wrap(fault.Internal, err, "restore: write to the disk")
	}
	err := os.Rename(s.dir, s.target)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return fault.New(fault.Exists, "restore: %s is not empty any more", s.target)
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "restore: put in place")
	}
	s.done = true
	return fault.Wrap(fault.Internal, syncFile(filepath.Dir(s.target)), "restore: write to the disk")
}

// close removes what is not finished, and unlocks.
func (s *site) close() (err error) {
	if !s.done {
		err = os.RemoveAll(s.dir)
	}
	s.lock.Close()
	return fault.Wrap(fault.Internal, err, "restore: clean up")
}
