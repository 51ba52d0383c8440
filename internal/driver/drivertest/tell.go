package drivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flota/internal/driver"
	"flota/internal/unit"
)

func watch(s *story) {
	s.load("a.service", Forever)
	s.load("b.service", Forever)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	calls := 0
	seen := map[unit.Name]unit.State{}
	err := s.d.Watch(ctx, func(states []unit.State, first bool) {
		if calls++; first != (calls == 1) {
			s.Errorf("call %d has first=%v", calls, first)
		}
		if first {
			if len(states) != 2 {
				s.Errorf("first call: %+v", states)
			}
			if err := s.d.Start(ctx, "a.service", 1); err != nil {
				s.Error(err)
			}
		}
		for _, st := range states {
			if seen[st.Unit] = st; st.Unit == "a.service" && st.Active == "active" && seen["b.service"].Load == "loaded" {
				if err := s.d.Unload(ctx, "b.service"); err != nil {
					s.Error(err)
				}
			}
		}
		if seen["b.service"].Load == "not-found" {
			cancel()
		}
	})
	if err != nil {
		s.Errorf("watch ended by its context: %v", err)
	}
	if st := seen["a.service"]; st.Active != "active" {
		s.Errorf("last state told: %+v", st)
	}
}

// printed gives the unit's lines of a stream.
func (s *story) printed(name unit.Name, o driver.LogOptions, stream string) (out []string) {
	s.Helper()
	var last time.Time
	s.must(s.d.Logs(s.ctx, name, o, func(l driver.LogLine) error {
		if l.Time.Before(last) {
			s.Errorf("line %q is older than the one before", l.Text)
		}
		if last = l.Time; l.Stream == stream {
			out = append(out, l.Text)
		}
		return nil
	}))
	return out
}

func logs(s *story) {
	s.running("a.service", Prints)
	s.waitLine("a.service", "line 50")
	all := s.printed("a.service", driver.LogOptions{Lines: -1}, "stdout")
	if len(all) != 50 {
		s.Fatalf("%d lines: %q", len(all), all)
	}
	for i, text := range all {
		if want := fmt.Sprintf("line %d", i+1); text != want {
			s.Errorf("line %d is %q", i+1, text)
		}
	}
	if said := s.printed("a.service", driver.LogOptions{Lines: -1}, "flota"); len(said) == 0 {
		s.Error("nothing was said of the start")
	}
	s.must(s.d.Stop(s.ctx, "a.service"))
	s.inactive("a.service")
	if got := s.printed("a.service", driver.LogOptions{Lines: -1}, "stdout"); len(got) != 50 {
		s.Errorf("%d lines are left after stop", len(got))
	}
	n := 0
	s.must(s.d.Logs(s.ctx, "a.service", driver.LogOptions{Lines: 3}, func(driver.LogLine) error { n++; return nil }))
	if n != 3 {
		s.Errorf("asked for the last 3 lines, got %d", n)
	}
	enough := errors.New("enough")
	if err := s.d.Logs(s.ctx, "a.service", driver.LogOptions{Lines: -1}, func(driver.LogLine) error { return enough }); !errors.Is(err, enough) {
		s.Errorf("the callback's error became %v", err)
	}
}

// waitLine follows the unit's lines until one is text.
func (s *story) waitLine(name unit.Name, text string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	found := false
	err := s.d.Logs(ctx, name, driver.LogOptions{Lines: -1, Follow: true}, func(l driver.LogLine) error {
		if l.Text == text {
			found = true
			cancel()
		}
		return nil
	})
	if !found {
		s.Fatalf("%s never printed %q: %v", name, text, err)
	}
	if err != nil {
		s.Errorf("following until the context ended: %v", err)
	}
}

func followLogs(s *story) {
	s.load("a.service", Prints)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.waitLine("a.service", "line 50")
	}()
	s.must(s.d.Start(s.ctx, "a.service", 1))
	<-done
}

func stats(s *story) {
	s.load("idle.service", Forever)
	s.running("a.service", Forever)
	for begin := time.Now(); ; {
		all, err := s.d.Stats(s.ctx)
		s.must(err)
		if len(all) != 1 || all[0].Unit != "a.service" || all[0].Tasks < 1 {
			s.Fatalf("stats: %+v", all)
		}
		if all[0].MemBytes > 0 { // a process that has only just begun may use none
			return
		}
		if time.Since(begin) > patience {
			s.Fatalf("no memory in use: %+v", all)
		}
	}
}
