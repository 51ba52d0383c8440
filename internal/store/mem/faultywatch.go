package mem

import (
	"context"
	"time"

	"flota/internal/store"
)

// repeats is how many updates are sent again when Repeat is on.
const repeats = 3

// Watch implements store.KV.
func (f *Faulty) Watch(ctx context.Context, prefix string, after int64) <-chan store.Update {
	f.mu.Lock()
	cuts, closed := f.cuts, f.closed
	if !closed {
		f.pump.Add(1)
	}
	f.mu.Unlock()
	if closed {
		return failed(ctx, broken("watch", "the client is closed"))
	}
	out := make(chan store.Update)
	go func() {
		defer f.pump.Done()
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if err := f.admit(ctx, Call{Op: "watch", Key: prefix}, false); err != nil {
			send(ctx, f.quit, out, store.Update{Err: err})
			return
		}
		s := &stream{f: f, in: f.kv.Watch(ctx, prefix, after), out: out, cuts: cuts}
		s.run(ctx)
	}()
	return out
}

// send gives u to the reader; false when the watch is over.
func send(ctx context.Context, quit <-chan struct{}, out chan<- store.Update, u store.Update) bool {
	select {
	case out <- u:
		return true
	case <-ctx.Done():
	case <-quit:
	}
	return false
}

// late is an update with the time it came in.
type late struct {
	store.Update
	at time.Time
}

// stream carries the updates of one watch from the store to the reader, under the switches.
type stream struct {
	f     *Faulty
	in    <-chan store.Update
	out   chan<- store.Update
	cuts  int
	queue []late
	sent  []store.Update // the last few, for Repeat
	ended bool           // in is closed
}

// run ends when the reader goes, the watch is cut, or all of an ended watch is delivered.
func (s *stream) run(ctx context.Context) {
	for {
		faults, changed, err := s.look()
		if err != nil {
			send(ctx, s.f.quit, s.out, store.Update{Err: err})
			return
		}
		out, timer, next := s.ready(faults)
		in := s.in
		if s.ended {
			if len(s.queue) == 0 {
				stop(timer)
				return
			}
			in = nil
		}
		var due <-chan time.Time
		if timer != nil {
			due = timer.C
		}
		select {
		case u, ok := <-in:
			if ok {
				s.queue = append(s.queue, late{u, time.Now()})
			}
			s.ended = s.ended || !ok
		case out <- next:
			s.queue = s.queue[1:]
			if faults.repeated && !s.again(ctx, next) {
				stop(timer)
				return
			}
		case <-due:
		case <-changed:
		case <-ctx.Done():
			stop(timer)
			return
		case <-s.f.quit:
			stop(timer)
			return
		}
		stop(timer)
	}
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// look reads the switches; err is why the watch must end.
func (s *stream) look() (w watchFaults, changed <-chan struct{}, err error) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	w = f.watch
	if f.cuts != s.cuts {
		err = f.cut
	}
	w.paused = w.paused || f.outage == Hanging
	return w, f.changed, err
}

// ready gives the channel and what to send on it now, or a timer until there is something; neither when nothing is queued or the watch is paused.
func (s *stream) ready(w watchFaults) (chan<- store.Update, *time.Timer, store.Update) {
	if len(s.queue) == 0 || w.paused {
		return nil, nil, store.Update{}
	}
	if wait := w.lag - time.Since(s.queue[0].at); w.lag > 0 && wait > 0 {
		return nil, time.NewTimer(wait), store.Update{}
	}
	return s.out, nil, s.queue[0].Update
}

// again sends the last updates once more; false when the reader is gone.
func (s *stream) again(ctx context.Context, last store.Update) bool {
	if last.Err != nil {
		return true
	}
	s.sent = append(s.sent, last)
	s.sent = s.sent[max(0, len(s.sent)-repeats):]
	for _, u := range s.sent {
		if !send(ctx, s.f.quit, s.out, u) {
			return false
		}
	}
	return true
}
