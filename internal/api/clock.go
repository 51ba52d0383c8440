package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/machine"
)

// Looking at the other machines' clocks.
const (
	clockSkew    = 30 * time.Second       // more is told of: certificates bear an hour, joining 5 min, and people who read times less
	clockEvery   = time.Minute            // how old an answer may be
	clockWithin  = 300 * time.Millisecond // for all of them; who does not answer is not told of
	clocksAtOnce = 32
)

// clocks remembers how far other machines' clocks are from this one's.
type clocks struct {
	mu    sync.Mutex // guards the fields below
	asked time.Time
	off   map[machine.ID]time.Duration
}

// wrongClocks asks the machines that are there, now and then, what time it is, and says which differ. The answer's way takes milliseconds.
func (s *Server) wrongClocks(ctx context.Context, c *cluster) []string {
	s.clocks.mu.Lock()
	defer s.clocks.mu.Unlock()
	if now := time.Now(); now.Sub(s.clocks.asked) > clockEvery {
		s.clocks.asked, s.clocks.off = now, s.askClocks(ctx, c)
	}
	var out []string
	for _, m := range c.sorted() {
		off, told := s.clocks.off[m.ID]
		if _, there := c.alive[m.ID]; !told || !there || off.Abs() < clockSkew {
			continue
		}
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		out = append(out, fmt.Sprintf("the clock of %s is %s %s that of %s: set them by NTP", m.Name, age(off.Abs()), way, s.Name))
	}
	return clipList(out, "more clocks are wrong")
}

// askClocks asks all at once.
func (s *Server) askClocks(ctx context.Context, c *cluster) map[machine.ID]time.Duration {
	ctx, cancel := context.WithTimeout(ctx, clockWithin)
	defer cancel()
	var mu sync.Mutex
	off := map[machine.ID]time.Duration{}
	g := errgroup.Group{}
	g.SetLimit(clocksAtOnce)
	for id, p := range c.alive {
		if id == s.ID || p.API == "" {
			continue
		}
		g.Go(func() error {
			peer, err := s.peer(p.API)
			if err != nil {
				return nil
			}
			defer peer.Close()
			sent := time.Now()
			var h Health
			if _, _, err := peer.call(ctx, clockWithin, http.MethodGet, "/v1/health", nil, &h); err != nil || h.Time.IsZero() {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			off[id] = h.Time.Sub(sent)
			return nil
		})
	}
	_ = g.Wait() // who does not answer is missing
	return off
}
