package mem

import (
	"context"
	"slices"
	"sync"

	"flota/internal/fault"
	"flota/internal/store"
)

// watcher holds what one watch has not taken yet. Its queue has no bound: a slow reader holds up nobody.
type watcher struct {
	prefix string
	after  int64
	wake   chan struct{} // holds one token while queue may have something

	mu    sync.Mutex // guards queue; taken inside Mem's lock
	queue []store.Update
}

// offer queues what of u concerns the watcher.
func (w *watcher) offer(u store.Update) {
	if u.Rev <= w.after {
		return
	}
	if u.Events = within(u, w.prefix); len(u.Events) > 0 {
		w.push(u)
	}
}

func (w *watcher) push(u store.Update) {
	w.mu.Lock()
	w.queue = append(w.queue, u)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (w *watcher) take() []store.Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q
}

// Watch implements store.KV.
func (m *Mem) Watch(ctx context.Context, prefix string, after int64) <-chan store.Update {
	out := make(chan store.Update)
	w := &watcher{prefix: prefix, after: max(after, 0), wake: make(chan struct{}, 1)}
	if err := m.enter(ctx); err != nil {
		return failed(ctx, err)
	}
	defer m.mu.Unlock()
	if w.after+1 < m.compacted {
		return failed(ctx, store.ErrCompacted)
	}
	w.push(store.Update{Rev: w.after})
	first := m.rev - int64(len(m.history)) + 1
	for _, u := range m.history[min(max(w.after+1-first, 0), int64(len(m.history))):] {
		w.offer(u)
	}
	m.watchers = append(m.watchers, w)
	m.pump.Add(1)
	go m.serve(ctx, w, out)
	return out
}

// failed is a stream that holds only an error.
func failed(ctx context.Context, err error) <-chan store.Update {
	out := make(chan store.Update, 1)
	if ctx.Err() == nil {
		out <- store.Update{Err: err}
	}
	close(out)
	return out
}

// serve sends what w holds until ctx ends or the store is closed. Started by Watch.
func (m *Mem) serve(ctx context.Context, w *watcher, out chan<- store.Update) {
	defer m.pump.Done()
	defer close(out)
	defer m.leave(w)
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.quit:
			select {
			case out <- store.Update{Err: fault.New(fault.Unavailable, "the store is closed")}:
			default: // nobody is reading: closing the channel says it too
			}
			return
		case <-w.wake:
		}
		for _, u := range w.take() {
			select {
			case out <- u:
			case <-ctx.Done():
				return
			case <-m.quit:
				return
			}
		}
	}
}

// leave takes w out of those that are told of changes.
func (m *Mem) leave(w *watcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.watchers, w); i >= 0 {
		m.watchers = slices.Delete(m.watchers, i, i+1)
	}
}
