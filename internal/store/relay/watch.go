package relay

import (
	"context"

	"flota/internal/fault"
	"flota/internal/store"
)

// Watch implements store.KV. It ends with fault.Unavailable when the backend is switched; without one it waits for one, as calls do.
func (r *Relay) Watch(ctx context.Context, prefix string, after int64) <-chan store.Update {
	out := make(chan store.Update)
	go func() { // ends with ctx, with the backend's watch, or with a switch
		defer close(out)
		if err := r.stream(ctx, prefix, after, out); err != nil {
			select {
			case out <- store.Update{Err: err}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// stream passes on what the backend's watch sends, and gives why it ended: nil when ctx did.
func (r *Relay) stream(ctx context.Context, prefix string, after int64, out chan<- store.Update) error {
	s, done, err := r.take(ctx)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.over, cancel)
	defer stop()
	in := s.kv.Watch(run, prefix, after)
	done() // a watch holds up no switch
	for u := range in {
		if u.Err != nil && s.over.Err() == nil {
			return u.Err
		}
		if s.over.Err() != nil {
			break
		}
		select {
		case out <- u:
		case <-run.Done():
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case s.over.Err() != nil:
		return fault.Wrap(fault.Unavailable, store.ErrMoved, "watch %s", prefix)
	}
	return fault.New(fault.Unavailable, "watch %s: the stream ended", prefix)
}
