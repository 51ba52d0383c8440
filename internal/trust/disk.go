package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// The files of an identity.
const (
	bundleFile  = "ca.crt"
	ringFile    = "ca.key"
	leafFile    = "machine.crt"
	keyFile     = "machine.key"
	clusterFile = "cluster.json"
	membersFile = "members.json"
)

// maxFile is how many bytes of a file are read. 1 MiB: an authority takes 0.6 KB, a removed machine 60 bytes.
const maxFile = 1 << 20

// disk replaces the files of one directory, each in one step that survives the loss of power.
type disk struct {
	dir   string
	fault func(step, file string) error // nil: none; see Options.fault
}

// at asks fault.
func (d disk) at(step, file string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(step, file)
}

// path is a file of the directory.
func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

// make makes the directory, and closes it to others if it was open.
func (d disk) make() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", d.dir, err)
	}
	if err := os.Chmod(d.dir, 0o700); err != nil {
		return fmt.Errorf("close %s to others: %w", d.dir, err)
	}
	return nil
}

// seal closes files to others that are open to them, as after being copied by hand.
func (d disk) seal(log *slog.Logger, names ...string) error {
	for _, name := range names {
		info, err := os.Stat(d.path(name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Perm()&0o077 == 0 {
			continue
		}
		if err == nil {
			log.Warn("a private key could be read by others; closing it to them", "file", d.path(name), "mode", info.Mode().Perm())
			err = os.Chmod(d.path(name), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read gives a file's content; fs.ErrNotExist if there is none.
func (d disk) read(name string) ([]byte, error) {
	info, err := os.Stat(d.path(name))
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", d.path(name), info.Size(), maxFile)
	}
	return os.ReadFile(d.path(name))
}

// has says whether a file is there.
func (d disk) has(name string) (bool, error) {
	_, err := os.Stat(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// write replaces a file: whoever reads it, also after a loss of power, finds the old content or the new one.
func (d disk) write(name string, content []byte, mode fs.FileMode) error {
	if err := d.replace(name, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", d.path(name), err)
	}
	return nil
}

// replace does it, by way of NAME.new.
func (d disk) replace(name string, content []byte, mode fs.FileMode) error {
	if err := d.at("create", name); err != nil {
		return err
	}
	tmp := d.path(name + ".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // left by a process that died; it may have another mode
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if err = d.at("write", name); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = d.at("sync", name)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.at("rename", name)
	}
	if err == nil {
		err = os.Rename(tmp, d.path(name))
	}
	if err == nil {
		err = d.at("syncdir", name)
	}
	if err != nil {
		return err
	}
	return d.sync()
}

// remove deletes a file, if it is there.
func (d disk) remove(name string) error {
	err := d.at("remove", name)
	if err == nil {
		err = os.Remove(d.path(name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", d.path(name), err)
	}
	return nil
}

// sync makes the directory's entries survive a loss of power.
func (d disk) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
