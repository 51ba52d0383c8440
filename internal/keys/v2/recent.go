package v2

import (
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// What recent remembers at most: two generations of recentBytes, of values that most configuration has. 1 MiB each: some thousands of keys.
const (
	recentBytes = 1 << 20
	recentValue = 4 << 10
	recentCost  = 400 // of an entry beside its key and values: two key values and their places in maps
)

// contended is how long nothing is remembered of a file that another machine changed when this one was about to.
const contended = time.Second

// recent remembers what files were when this machine saw them last, so that a write can be planned without looking, and a read need not ask for the
// file's detail. It may be old: a guard on the file's revision, or its comparison with what is read, decides. A detail never changes while its file's
// revision stays.
type recent struct {
	mu         sync.Mutex // guards the fields below
	young, old map[string]*sighting
	bytes      int // of young
}

// sighting is a file as it was seen.
type sighting struct {
	file, side *mvccpb.KeyValue // side: its detail; nil: it had none. A file of nil is not known
	busy       bool             // a write that was planned with it is under way
	rest       time.Time        // not used for writes before
}

func newRecent() *recent { return &recent{young: map[string]*sighting{}} }

// find gives the entry of a file; nil when nothing is known. The lock is held.
func (r *recent) find(key string) *sighting {
	if s := r.young[key]; s != nil {
		return s
	}
	s := r.old[key]
	if s != nil {
		delete(r.old, key)
		r.keep(key, s)
	}
	return s
}

// keep puts an entry among the young. The lock is held.
func (r *recent) keep(key string, s *sighting) {
	if r.bytes > recentBytes {
		r.old, r.young, r.bytes = r.young, map[string]*sighting{}, 0
	}
	r.young[key] = s
	r.bytes += recentCost + len(key) + len(s.file.GetValue()) + len(s.side.GetValue())
}

// saw notes what a file is, unless something newer is known. nil: it is no more, or nothing is known of it.
func (r *recent) saw(key string, file, side *mvccpb.KeyValue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(key)
	switch {
	case file == nil || len(file.Value) > recentValue:
		if s != nil {
			s.file, s.side = nil, nil
		}
	case s == nil:
		r.keep(key, &sighting{file: file, side: side})
	case s.file.GetModRevision() < file.ModRevision:
		r.bytes += len(file.Value) - len(s.file.GetValue())
		s.file, s.side = file, side
	}
}

// detail gives the detail of a file as it is at a revision of its own, and whether that is known.
func (r *recent) detail(key string, file *mvccpb.KeyValue) (side *mvccpb.KeyValue, ok bool) {
	if file.Version == 1 && file.Lease == 0 {
		return nil, true // it was never updated and does not expire: there is nothing to say
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(key)
	if s == nil || s.file.GetModRevision() != file.ModRevision {
		return nil, false
	}
	return s.side, true
}

// borrow gives what is known of a file, to plan a write with; false when that is nothing, or others write it now. give must be called after the write.
func (r *recent) borrow(key string, now time.Time) (file, side *mvccpb.KeyValue, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(key)
	if s == nil || s.file == nil || s.busy || now.Before(s.rest) {
		return nil, nil, false
	}
	s.busy = true
	return s.file, s.side, true
}

// give ends what borrow began. wrong says that the file was not what it was thought to be.
func (r *recent) give(key string, wrong bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(key)
	if s == nil { // forgotten meanwhile
		return
	}
	s.busy = false
	if wrong {
		s.rest = now.Add(contended)
	}
}
