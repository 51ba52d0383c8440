package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"flota/internal/fault"
	"flota/internal/unit"
)

// Cache keeps bytes over restarts of the agent and the machine.
type Cache interface {
	Load() ([]byte, error) // nil without an error when nothing was ever saved
	Save([]byte) error     // all or nothing, even when the machine loses power
}

// remembered is what an agent leaves to the next one on its machine.
type remembered struct {
	// Places are those known last. They are saved before anything is done about them: a unit that the driver has and
	// that is not among them was being unloaded.
	Places []unit.Place `json:"places"`
	// Starts tell the presence that an earlier agent of this machine left from that of another machine with the same ID.
	Starts []start `json:"starts"`
}

// start is one start of an agent.
type start struct {
	BootID  string    `json:"bootID"`
	Started time.Time `json:"started"`
}

// keepStarts is how many starts are remembered. 8: an agent that crashes again and again before it could write
// its presence still knows the presence of the one before.
const keepStarts = 8

// openCache reads what the last agent left, and writes down that this one has started. nil when there is nothing.
func (a *Agent) openCache() *remembered {
	var old remembered
	found := false
	b, err := a.cache.Load()
	if err == nil && b != nil {
		if err = json.Unmarshal(b, &old); err == nil {
			found = true
		}
	}
	if err != nil {
		a.opts.Log.Error("the cached places cannot be read; going on without them", "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	me := start{a.opts.Presence.BootID, a.opts.Presence.Started}
	a.starts = append(old.Starts, me)
	a.starts = a.starts[max(0, len(a.starts)-keepStarts):]
	a.wanted.left = old.Places
	a.wanted.hadLeft = found
	a.wanted.member = len(old.Places) > 0
	a.save(old.Places)
	if !found {
		return nil
	}
	return &old
}

// save writes the cache. The lock is held.
func (a *Agent) save(places []unit.Place) {
	b, err := json.Marshal(remembered{Places: places, Starts: a.starts})
	if err == nil {
		err = a.cache.Save(b)
	}
	if err != nil {
		a.opts.Log.Error("the places cannot be cached; a restart without the store will not know them", "err", err)
	}
}

// fileCache is places.json in a directory.
type fileCache string

// FileCache keeps places.json in dir, which must exist.
func FileCache(dir string) Cache { return fileCache(filepath.Join(dir, "places.json")) }

// Load implements Cache.
func (f fileCache) Load() ([]byte, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Save implements Cache: a new file beside it, on the disk, and then in its place.
func (f fileCache) Save(b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(string(f)), ".places-*")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "save the places")
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), string(f))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return fault.Wrap(fault.Internal, err, "save the places")
}
