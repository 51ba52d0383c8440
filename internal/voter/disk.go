package voter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flota/internal/fault"
)

// keepOld is how many old copies of the store stay on a machine, the newest: one for a mistake, one for the mistake after it.
const keepOld = 2

// note is what stands beside a member's data, in its directory, so that it is moved with it. Written before the data it speaks of.
type note struct {
	Member string `json:"member,omitempty"` // the engine's ID, hex; "" until it is known
	Epoch  int    `json:"epoch"`            // of the cluster that the data is of
	// Recovering: this copy is being made the only one, see Local.Recover; done again at each start until it is through.
	Recovering bool `json:"recovering,omitempty"`
}

// disk is where a member's data lies.
type disk struct{ dir string }

func (d disk) notePath() string { return filepath.Join(d.dir, "flota.json") }

// holds says whether there is a member's data: its log. Whatever else is there is what a start that never got so far has left.
func (d disk) holds() bool {
	logs, err := filepath.Glob(filepath.Join(d.dir, "member", "wal", "*.wal"))
	return err == nil && len(logs) > 0
}

// read gives the note; ok is false when there is none.
func (d disk) read() (n note, ok bool, err error) {
	b, err := os.ReadFile(d.notePath())
	if errors.Is(err, fs.ErrNotExist) {
		return n, false, nil
	}
	if err != nil {
		return n, false, fault.Wrap(fault.Internal, err, "read what this machine's copy of the store is")
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, false, fault.WithHint(fault.Wrap(fault.Internal, err, "read %s", d.notePath()),
			"move %s away: the machine then takes part as a new one", d.dir)
	}
	return n, true, nil
}

// write stores the note, through a power cut too.
func (d disk) write(n note) error {
	b, err := json.Marshal(n)
	if err == nil {
		err = os.MkdirAll(d.dir, 0o700)
	}
	if err == nil {
		err = replace(d.notePath(), b)
	}
	return fault.Wrap(fault.Internal, err, "note what this machine's copy of the store is")
}

// replace writes a file whole or not at all.
func replace(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames in a directory survive a power cut.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// oldMark stands between the directory's name and the time in the name of an old copy.
const oldMark = ".old-"

// aside renames the data, so that no member starts from it again, and deletes all old copies but the newest. Nothing to do is no error.
func (d disk) aside(now time.Time) (to string, err error) {
	if !d.holds() {
		return "", d.clear()
	}
	to = d.dir + oldMark + now.UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(d.dir, to); err != nil {
		return "", fault.Wrap(fault.Internal, err, "set the old copy of the store aside")
	}
	if err := syncDir(filepath.Dir(d.dir)); err != nil {
		return to, fault.Wrap(fault.Internal, err, "set the old copy of the store aside")
	}
	return to, d.prune()
}

// clear deletes what is there, which is no member's data.
func (d disk) clear() error {
	if d.holds() {
		return fault.New(fault.Internal, "%s holds a copy of the store: it is not deleted", d.dir)
	}
	return fault.Wrap(fault.Internal, os.RemoveAll(d.dir), "delete what a start of the store has left")
}

// old gives the paths of the old copies, the oldest first.
func (d disk) old() (paths []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(d.dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Internal, err, "look for old copies of the store")
	}
	for _, e := range entries { // sorted by name
		if strings.HasPrefix(e.Name(), filepath.Base(d.dir)+oldMark) {
			paths = append(paths, filepath.Join(filepath.Dir(d.dir), e.Name()))
		}
	}
	return paths, nil
}

// had says whether the data of the engine's member was set aside on this machine.
func (d disk) had(member string) bool {
	paths, _ := d.old()
	for _, p := range paths {
		if n, ok, err := (disk{p}).read(); err == nil && ok && n.Member == member {
			return true
		}
	}
	return false
}

// prune deletes all old copies but the newest.
func (d disk) prune() error {
	paths, err := d.old()
	if err != nil {
		return err
	}
	for _, p := range paths[:max(len(paths)-keepOld, 0)] {
		if err := os.RemoveAll(p); err != nil {
			return fault.Wrap(fault.Internal, err, "delete old copies of the store")
		}
	}
	return nil
}

func (d disk) foundedPath() string { return d.dir + ".founded" }

// founded says whether this machine has founded its cluster.
func (d disk) founded() bool {
	_, err := os.Stat(d.foundedPath())
	return err == nil
}

// found remembers that it has. Called when the first member's data is there, and not before.
func (d disk) found() error {
	if d.founded() {
		return nil
	}
	return fault.Wrap(fault.Internal, replace(d.foundedPath(), fmt.Appendln(nil, "the first member of the store was started here")), "note that the store has been founded")
}
