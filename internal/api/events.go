package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"flota/internal/fault"
	"flota/internal/view"
)

// event is an event as it is sent.
func (c *cluster) event(e view.Event) Event {
	out := Event{Seq: int64(e.ID), Time: e.Time, Kind: string(e.Kind), Unit: e.Unit, Text: e.Text}
	if e.Machine != "" {
		out.Machine = c.name(e.Machine)
	}
	return out
}

// countQuery reads a number of the query; given is its default. fault.Invalid if it is none.
func countQuery(r *http.Request, key string, given int) (int, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return given, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s=%s: want a number", key, clip(text))
	}
	return n, nil
}

// flagQuery reads a yes or no of the query.
func flagQuery(r *http.Request, key string) (bool, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(text)
	if err != nil {
		return false, fault.New(fault.Invalid, "%s=%s: want true or false", key, clip(text))
	}
	return yes, nil
}

// finish ends a stream: err becomes a problem, as a whole answer if nothing was sent yet.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, out *writer, err error) error {
	switch {
	case r.Context().Err() != nil:
		return nil // the client went away, or this machine shuts down: without an end the client knows
	case err == nil:
		_ = out.send(eventEnd, 0, struct{}{})
		return nil
	case !out.open:
		return err
	}
	p := ProblemOf(err, s.Name)
	if p.Kind == internalKind {
		s.Log.Error("stream failed", "path", r.URL.Path, "err", err)
	}
	_ = out.send(eventProblem, 0, p)
	return nil
}

// events answers GET /v1/events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	lines, err := countQuery(r, "lines", -1)
	if err != nil {
		return err
	}
	follow, err := flagQuery(r, "follow")
	if err != nil {
		return err
	}
	out := newWriter(w)
	if v := s.view(); v != nil {
		return s.finish(w, r, out, s.tellEvents(r.Context(), out, v, lines, follow))
	}
	if forwarded(r) {
		return fault.New(fault.Unavailable, "%s is no voter and keeps no events", s.Name)
	}
	c, err := s.machinesOnly(r.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	items, stop := make(chan Event), make(chan error, 1)
	go func() { // ends with ctx, or when the voter's stream ends
		stop <- s.eachVoter(ctx, c, func(p *Client) error {
			return p.Events(ctx, follow, lines, func(e Event) error { return give(ctx, items, e) })
		})
		close(items)
	}()
	return s.finish(w, r, out, pass(ctx, out, items, stop, func(e Event) error { return out.put(eventEvent, e.Seq, e) }))
}

// machinesOnly reads nothing but the machines.
func (s *Server) machinesOnly(ctx context.Context) (*cluster, error) {
	var c *cluster
	stale, err := s.read(ctx, func(ctx context.Context, r storeRead) error {
		c = newCluster()
		return s.readMachines(ctx, r, c)
	})
	if err != nil {
		return nil, err
	}
	c.stale = stale
	c.sort()
	s.roles(ctx, c)
	return c, nil
}

// give hands an item over unless ctx ends first.
func give[T any](ctx context.Context, to chan<- T, item T) error {
	select {
	case to <- item:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass writes items as they come until the channel is closed, with heartbeats in between; it gives what stop then tells.
func pass[T any](ctx context.Context, out *writer, items <-chan T, stop <-chan error, put func(T) error) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case it, ok := <-items:
			if !ok {
				return <-stop
			}
			if err = put(it); err == nil && len(items) == 0 {
				err = out.flush()
			}
		case <-beat.C:
			err = out.beat()
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// tellEvents writes the events that v, this machine's view, has.
func (s *Server) tellEvents(ctx context.Context, out *writer, v *view.View, lines int, follow bool) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	all, more := v.Events(0)
	after := uint64(0)
	if len(all) > 0 {
		after = all[len(all)-1].ID
	}
	if lines >= 0 {
		all = all[max(0, len(all)-lines):]
	}
	for {
		for _, e := range all {
			ev := named(v, e)
			if err := out.put(eventEvent, ev.Seq, ev); err != nil {
				return err
			}
			after = e.ID
		}
		if !follow {
			return nil
		}
		out.begin()
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-more:
			all, more = v.Events(after)
		case <-beat.C:
			all = nil
			if s.view() != v {
				return fault.New(fault.Unavailable, "%s is no voter any more; ask again", s.Name)
			}
			if err := out.beat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// named is an event as it is sent, with the machine's name as the view knows it.
func named(v *view.View, e view.Event) Event {
	out := Event{Seq: int64(e.ID), Time: e.Time, Kind: string(e.Kind), Unit: e.Unit, Text: e.Text}
	if e.Machine != "" {
		v.Look(func(c *view.Cluster) { out.Machine = c.Name(e.Machine) })
	}
	return out
}
