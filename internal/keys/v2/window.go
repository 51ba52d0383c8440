package v2

import (
	"fmt"
	"sync"
)

// windowSize is how many events are kept for waitIndex. Source: etcd kept the last 1000, and its clients know that.
const windowSize = 1000

// backlog is how many events a stream may be behind before it is ended. Source: etcd.
const backlog = 100

// window is the last events of the store and the watches that wait for the next ones.
type window struct {
	mu       sync.Mutex // guards the fields below
	events   []*Event   // by index; ring with the oldest at first
	first    int
	start    uint64        // the lowest index that can be answered for
	last     uint64        // up to which revision events are known
	moved    chan struct{} // closed when last grows, the window begins or ends
	open     bool          // the store is followed
	watchers map[string]map[*watcher]struct{}
	count    int
	max      int
}

// watcher waits for events of one node.
type watcher struct {
	key       string
	recursive bool
	stream    bool
	since     uint64
	past      []*Event    // those there already were
	next      chan *Event // closed when no more will come
	window    *window
	done      bool // not listed any more; guarded by window.mu
}

func newWindow(limit int) *window {
	return &window{watchers: map[string]map[*watcher]struct{}{}, max: limit, moved: make(chan struct{})}
}

// wake tells who waits for a change of the window. The lock is held.
func (w *window) wake() {
	close(w.moved)
	w.moved = make(chan struct{})
}

// begin empties the window: events from index start on will come. Watches are ended, because what they wait for may have been missed.
func (w *window) begin(start uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endAll()
	w.events, w.first, w.start, w.last, w.open = nil, 0, start, max(start, 1)-1, true
	w.wake()
}

// close ends all watches for good.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endAll()
	w.open = false
	w.wake()
}

func (w *window) endAll() {
	for _, set := range w.watchers {
		for x := range set {
			w.unlist(x)
			close(x.next)
		}
	}
}

// reached tells whether all up to index is known, and gives what is closed when to ask again.
func (w *window) reached(index uint64) (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open && w.last >= index, w.moved
}

// add takes the events of one revision.
func (w *window) add(rev uint64, events []*Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ev := range events {
		if len(w.events) < windowSize {
			w.events = append(w.events, ev)
		} else {
			w.events[w.first] = ev
			w.first = (w.first + 1) % windowSize
			w.start = w.events[w.first].index
		}
		if !ev.refresh {
			w.tell(ev)
		}
	}
	w.last = rev
	w.wake()
}

// tell hands an event to all who wait for it.
func (w *window) tell(ev *Event) {
	for _, p := range ev.gone {
		w.tellAt(p, ev, true)
	}
	w.tellAt("/", ev, false)
	if ev.Node.Key == "" {
		return
	}
	for _, p := range above(ev.Node.Key) {
		w.tellAt(p, ev, false)
	}
	w.tellAt(ev.Node.Key, ev, false)
}

// tellAt hands an event to the watches of one node; gone says that the node went with a directory.
func (w *window) tellAt(at string, ev *Event, gone bool) {
	own := at == ev.Node.Key
	if !own && hidden(at, ev.Node.Key) {
		return
	}
	for x := range w.watchers[at] {
		if !(x.recursive || own || gone) || ev.index < x.since {
			continue
		}
		select {
		case x.next <- ev:
			if !x.stream {
				w.unlist(x)
			}
		default: // too slow: the stream ends, as etcd's does
			w.unlist(x)
			close(x.next)
		}
	}
}

// unlist removes a watcher. The lock is held.
func (w *window) unlist(x *watcher) {
	if x.done {
		return
	}
	x.done = true
	w.count--
	delete(w.watchers[x.key], x)
	if len(w.watchers[x.key]) == 0 {
		delete(w.watchers, x.key)
	}
}

// watch begins to wait for events of key from index since on; now is the store's index.
func (w *window) watch(key string, recursive, stream bool, since, now uint64) (*watcher, *problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since < w.start {
		return nil, refuse(indexCleared, int64(now), fmt.Sprintf("the requested history has been cleared [%d/%d]", w.start, since))
	}
	x := &watcher{key: key, recursive: recursive, stream: stream, since: since, window: w, done: true}
	for i := range w.events {
		ev := w.events[(w.first+i)%len(w.events)]
		if ev.index >= since && x.wants(ev) {
			x.past = append(x.past, ev)
			if !stream {
				return x, nil
			}
		}
	}
	if w.count >= w.max {
		return nil, refuse(internal, int64(now), fmt.Sprintf("this machine has %d watches already", w.count)).with(503)
	}
	x.next = make(chan *Event, map[bool]int{false: 1, true: backlog}[stream])
	if w.watchers[key] == nil {
		w.watchers[key] = map[*watcher]struct{}{}
	}
	w.watchers[key][x], x.done = struct{}{}, false
	w.count++
	return x, nil
}

// wants says whether an event of the past is one for the watcher. The rules are etcd's for its history: hidden nodes are told, and the end of a
// directory is told to all whose name begins with the directory's, whether they were there or not.
func (x *watcher) wants(ev *Event) bool {
	if ev.refresh {
		return false
	}
	if ev.Node.Key == x.key || x.recursive && len(ev.Node.Key) > len(dirKey(x.key)) && ev.Node.Key[:len(dirKey(x.key))] == dirKey(x.key) {
		return true
	}
	ended := ev.Action == actDelete || ev.Action == actExpire
	return ended && ev.PrevNode != nil && ev.PrevNode.Dir && len(x.key) >= len(ev.PrevNode.Key) && x.key[:len(ev.PrevNode.Key)] == ev.PrevNode.Key
}

// stop ends the waiting.
func (x *watcher) stop() {
	x.window.mu.Lock()
	defer x.window.mu.Unlock()
	x.window.unlist(x)
}

// watching gives how many wait now.
func (w *window) watching() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}
