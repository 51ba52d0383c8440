package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"flota/internal/driver/launch"
	"flota/internal/service"
)

// dirSet is one of the five kinds of directories that a unit can ask for.
type dirSet struct {
	base     string
	variable string // of the environment, with all paths
	set      service.DirSet
	step     string // systemd's word for a failure, and its exit code
	code     int
	keep     bool // left alone at stop, and not given to the unit's user (configuration)
	private  bool // belongs under base/private with DynamicUser=
}

// dirSets gives the directories of the running content.
func (r Run) dirSets() []dirSet {
	d, h := &r.Svc.Dirs, r.Host
	return []dirSet{
		{h.RuntimeDir, "RUNTIME_DIRECTORY", d.Runtime, "RUNTIME_DIRECTORY", 233, false, false},
		{h.StateDir, "STATE_DIRECTORY", d.State, "STATE_DIRECTORY", 238, false, true},
		{h.CacheDir, "CACHE_DIRECTORY", d.Cache, "CACHE_DIRECTORY", 239, false, true},
		{h.LogsDir, "LOGS_DIRECTORY", d.Logs, "LOGS_DIRECTORY", 240, false, true},
		{h.ConfigDir, "CONFIGURATION_DIRECTORY", d.Config, "CONFIGURATION_DIRECTORY", 241, true, false},
	}
}

// paths gives the absolute paths of a set.
func (d dirSet) paths() (out []string) {
	for _, dir := range d.set.Dirs {
		out = append(out, filepath.Join(d.base, dir.Path))
	}
	return out
}

// MakeDirs makes the unit's directories with their owners. Errors are *launch.Failure.
func (r Run) MakeDirs() error {
	dynamic := r.Svc.Identity.Dynamic
	for _, set := range r.dirSets() {
		for _, dir := range set.set.Dirs {
			path := filepath.Join(set.base, dir.Path)
			real := path
			if dynamic && set.private {
				real = filepath.Join(set.base, "private", dir.Path)
			}
			err := r.makeDir(real, set)
			if err == nil && real != path {
				err = link(real, path)
			}
			for _, l := range dir.Links {
				if err == nil {
					err = link(path, filepath.Join(set.base, l))
				}
			}
			if err != nil {
				return &launch.Failure{Step: set.step, Code: set.code, Message: err.Error()}
			}
		}
	}
	return nil
}

// makeDir makes one directory with the mode and owner that the unit wants; what is in it follows if the owner was another.
func (r Run) makeDir(path string, set dirSet) error {
	if filepath.Base(filepath.Dir(path)) == "private" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !set.keep && r.Who.Switch {
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != r.Who.UID || int(st.Gid) != r.Who.GID {
			if err := chownAll(path, r.Who.UID, r.Who.GID); err != nil {
				return err
			}
		}
	}
	return os.Chmod(path, fs.FileMode(set.set.Mode&0o777)|special(set.set.Mode))
}

// special turns the upper bits of a mode into Go's.
func special(mode uint32) (m fs.FileMode) {
	if mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// chownAll gives a tree to somebody. It stays inside the tree: links are not followed.
func chownAll(dir string, uid, gid int) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = root.Lchown(path, uid, gid)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went away meanwhile
		}
		return err
	})
}

// link makes a symbolic link to target, unless it stands there already.
func link(target, at string) error {
	if now, err := os.Readlink(at); err == nil && now == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(target, at); err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	return nil
}

// RemoveRuntime takes away what RuntimeDirectory= made.
func (r Run) RemoveRuntime() error {
	var errs []error
	for _, p := range r.dirSets()[0].paths() {
		errs = append(errs, os.RemoveAll(p))
	}
	return errors.Join(errs...)
}

// Writable gives the directories that a read-only file system must leave writable.
func (r Run) Writable() (out []string) {
	for _, set := range r.dirSets() {
		if !set.keep {
			out = append(out, set.paths()...)
		}
	}
	return out
}
