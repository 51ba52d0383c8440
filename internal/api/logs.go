package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/unit"
)

// gatherFor is how long the first lines of several machines are collected, to be sent in the order of their time. After
// that lines are sent as they come.
const gatherFor = 300 * time.Millisecond

// logs answers GET /v1/units/{name}/logs.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	o := driver.LogOptions{}
	if o.Lines, err = countQuery(r, "lines", 10); err != nil {
		return err
	}
	if o.Follow, err = flagQuery(r, "follow"); err != nil {
		return err
	}
	out := newWriter(w)
	if forwarded(r) {
		return s.finish(w, r, out, s.tellLogs(r.Context(), out, o, []source{s.ownLogs(name, o)}))
	}
	c, err := s.one(r.Context(), name)
	if err != nil {
		return err
	}
	if _, ok := c.units[name]; !ok {
		return noUnit(name)
	}
	ids, err := c.logMachines(name, r.URL.Query().Get("machine"))
	if err != nil {
		return err
	}
	var from []source
	for _, id := range ids {
		if id == s.ID {
			from = append(from, s.ownLogs(name, o))
			continue
		}
		src, err := s.peerLogs(c, id, name, o)
		if err != nil && len(ids) == 1 {
			return err
		} else if err != nil {
			src = saying(c.name(id), name, err.Error())
		}
		from = append(from, src)
	}
	if u := c.units[name]; u.Run == 0 && !o.Follow {
		from = append(from, saying(s.Name, name, "it was never started: flota start "+string(name)))
	}
	return s.finish(w, r, out, s.tellLogs(r.Context(), out, o, from))
}

// source gives the lines of one machine until they end, or ctx ends.
type source func(ctx context.Context, f func(LogLine) error) error

// logMachines says whom to ask: the machine that is named, else those that the unit is on, else all that are there, because
// any of them may have run it.
func (c *cluster) logMachines(name unit.Name, ref string) ([]machine.ID, error) {
	if ref != "" {
		m, err := c.find(ref)
		return []machine.ID{m.ID}, err
	}
	var ids []machine.ID
	for _, p := range c.places[name] {
		ids = append(ids, p.Machine)
	}
	if len(ids) == 0 {
		for _, m := range c.sorted() {
			if _, there := c.alive[m.ID]; there {
				ids = append(ids, m.ID)
			}
		}
	}
	return ids, nil
}

// ownLogs gives the lines that this machine has.
func (s *Server) ownLogs(name unit.Name, o driver.LogOptions) source {
	return func(ctx context.Context, f func(LogLine) error) error {
		err := s.Driver.Logs(ctx, name, o, func(l driver.LogLine) error {
			if l.Unit == "" {
				l.Unit = name
			}
			return f(LogLine{LogLine: l, Machine: s.Name})
		})
		if fault.Is(err, fault.NotFound) {
			return nil // it never ran here
		}
		return err
	}
}

// peerLogs gives the lines that another machine has.
func (s *Server) peerLogs(c *cluster, id machine.ID, name unit.Name, o driver.LogOptions) (source, error) {
	p, err := s.peerOf(c, id)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, f func(LogLine) error) error {
		defer p.Close()
		return at(c.name(id), p.Logs(ctx, string(name), "", o, f))
	}, nil
}

// saying is a source with one line of Flota's own.
func saying(machine string, name unit.Name, text string) source {
	return func(_ context.Context, f func(LogLine) error) error {
		return f(LogLine{Machine: machine, LogLine: driver.LogLine{Time: time.Now(), Unit: name, Stream: "flota", Text: text}})
	}
}

// tellLogs writes the lines of all sources, merged by time.
func (s *Server) tellLogs(ctx context.Context, out *writer, o driver.LogOptions, from []source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	items, stop := make(chan LogLine, 64), make(chan error, 1)
	g := errgroup.Group{}
	for _, src := range from {
		g.Go(func() error {
			err := src(ctx, func(l LogLine) error { return give(ctx, items, l) })
			if err != nil && ctx.Err() == nil && len(from) > 1 && fault.Is(err, fault.Unavailable) {
				// The others go on without it.
				return give(ctx, items, LogLine{LogLine: driver.LogLine{Time: time.Now(), Stream: "flota", Text: err.Error()}, Machine: s.Name})
			}
			return err
		})
	}
	go func() { // ends with the sources, which end with ctx
		stop <- g.Wait()
		close(items)
	}()
	put := func(l LogLine) error { return out.put(eventLine, 0, l) }
	out.begin()
	if len(from) != 1 {
		if err := gather(ctx, items, o.Follow, put); err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	return pass(ctx, out, items, stop, put)
}

// gather collects lines and sends them by time: all there are, or when following those of the first moment.
func gather(ctx context.Context, items <-chan LogLine, follow bool, put func(LogLine) error) error {
	var over <-chan time.Time
	if follow {
		t := time.NewTimer(gatherFor)
		defer t.Stop()
		over = t.C
	}
	var lines []LogLine
	for more := true; more; {
		select {
		case l, ok := <-items:
			if more = ok; ok {
				lines = append(lines, l)
			}
		case <-over:
			more = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	for _, l := range lines {
		if err := put(l); err != nil {
			return err
		}
	}
	return nil
}
