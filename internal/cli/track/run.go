package track

import (
	"context"
	"errors"
	"sync"
	"time"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/unit"
)

// Source is what Run needs of a client.
type Source interface {
	Watch(ctx context.Context, f func(u api.Unit, deleted bool) error) error
	Unit(ctx context.Context, name string) (api.Unit, error)
	Units(ctx context.Context, patterns ...string) (api.List[api.Unit], error)
}

// Request is one unit to change and to follow.
type Request struct {
	Name   unit.Name
	Before *api.Unit // as it was; nil if it is new
	// Do makes the request and gives the unit as it is then.
	Do func(ctx context.Context) (api.Unit, error)
}

// Limit is how many requests are under way at once.
const Limit = 16

const (
	tick = 100 * time.Millisecond // how often time-outs are looked at
	// quiet is after how long without news a unit is asked for. The stream tells what is stored; why a unit waits can change without that.
	quiet = 3 * time.Second
	// Above few units all are asked for with one request.
	few = 8
)

// message is what the goroutines of Run tell the Tracker.
type message struct {
	unit    api.Unit
	deleted bool
	request *Request // answered with unit or err
	began   time.Time
	err     error
}

// Run makes the requests, at most Limit at once, and follows the units until all have an outcome. lost is called when the
// connection is lost and tried again. The error is ctx's; what becomes of the units is told by steps only.
func (t *Tracker) Run(ctx context.Context, src Source, requests []Request, lost func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	in := make(chan message, 64)
	send := func(m message) error {
		select {
		case in <- m:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	wanted := map[unit.Name]bool{}
	for name := range t.units {
		wanted[name] = true
	}
	wg.Go(func() { watch(ctx, src, wanted, send, lost) })
	wg.Go(func() { ask(ctx, requests, send) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	asking := false
	asked := make(chan struct{}, 1)
	for t.Open() > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case m := <-in:
			t.take(m, time.Now())
		case <-asked:
			asking = false
		case now := <-ticker.C:
			t.Tick(now)
			if names := t.Quiet(now, quiet); len(names) > 0 && !asking {
				asking = true
				wg.Go(func() {
					again(ctx, src, names, wanted, send)
					asked <- struct{}{}
				})
			}
		}
	}
	return nil
}

// take gives a message to the state machine.
func (t *Tracker) take(m message, now time.Time) {
	switch {
	case m.request == nil:
		t.See(m.unit, m.deleted, now)
	case m.err != nil:
		t.Refused(m.request.Name, m.err)
	default:
		t.Asked(m.request.Before, m.unit, m.began, now)
	}
}

// watch follows the stream until ctx ends, and connects anew when it breaks.
func watch(ctx context.Context, src Source, wanted map[unit.Name]bool, send func(message) error, lost func(error)) {
	for ctx.Err() == nil {
		err := src.Watch(ctx, func(u api.Unit, deleted bool) error {
			if !wanted[u.Name] {
				return nil
			}
			return send(message{unit: u, deleted: deleted})
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			lost(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// ask makes the requests.
func ask(ctx context.Context, requests []Request, send func(message) error) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, Limit)
	for i := range requests {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			r := &requests[i]
			began := time.Now()
			u, err := r.Do(ctx)
			_ = send(message{unit: u, request: r, err: err, began: began})
		})
	}
	wg.Wait()
}

// again asks for units of which nothing was heard. What fails is asked for later.
func again(ctx context.Context, src Source, names []unit.Name, wanted map[unit.Name]bool, send func(message) error) {
	if len(names) > few {
		list, err := src.Units(ctx)
		if err != nil {
			return
		}
		for _, u := range list.Items {
			if wanted[u.Name] && send(message{unit: u}) != nil {
				return
			}
		}
		return
	}
	for _, n := range names {
		u, err := src.Unit(ctx, string(n))
		if errors.Is(err, context.Canceled) {
			return
		}
		gone := fault.Is(err, fault.NotFound)
		if err == nil || gone {
			u.Name = n
			_ = send(message{unit: u, deleted: gone})
		}
	}
}
