package drivertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/unit"
)

func unknownUnits(s *story) {
	const none = "none.service"
	s.kind(s.d.Start(s.ctx, none, 1), fault.NotFound)
	s.kind(s.d.Stop(s.ctx, none), fault.NotFound)
	s.kind(s.d.Reload(s.ctx, none), fault.NotFound)
	s.kind(s.d.ResetFailed(s.ctx, none), fault.NotFound)
	s.kind(s.d.Logs(s.ctx, none, driver.LogOptions{Lines: -1}, func(driver.LogLine) error { return nil }), fault.NotFound)
	s.must(s.d.Unload(s.ctx, none))
}

func loadStartsNothing(s *story) {
	u := s.bed.Unit("a.service", Forever)
	s.must(s.d.Load(s.ctx, u))
	s.must(s.d.Load(s.ctx, u))
	st := s.state("a.service")
	if st.Load != "loaded" || st.Active != "inactive" || st.Sub != "dead" || st.Run != 0 || st.MainPID != 0 || st.Hash != u.Hash() {
		s.Errorf("state after load: %+v", st)
	}
}

func startRuns(s *story) {
	st := s.running("a.service", Forever)
	if st.Sub != "running" || st.MainPID <= 0 || st.Load != "loaded" || st.Since.IsZero() || st.Machine != "" {
		s.Errorf("state: %+v", st)
	}
}

func sameRunIsNoop(s *story) {
	st := s.running("a.service", Forever)
	s.must(s.d.Start(s.ctx, "a.service", 1))
	s.untouched(st)
	before := s.failed(s.start("b.service", ExitsThree))
	s.must(s.d.Start(s.ctx, "b.service", 1))
	if now := s.state("b.service"); now.Active != "failed" || !now.Since.Equal(before.Since) {
		s.Errorf("a run that failed was started again: %+v", now)
	}
}

func newRunRestarts(s *story) {
	before := s.running("a.service", Forever)
	s.must(s.d.Start(s.ctx, "a.service", 2))
	s.must(s.d.Start(s.ctx, "a.service", 2))
	after := s.active("a.service", 2)
	if after.MainPID == before.MainPID || after.Restarts != 0 {
		s.Errorf("before %+v, after %+v", before, after)
	}
	s.failed(s.start("b.service", ExitsThree))
	s.must(s.d.Start(s.ctx, "b.service", 2))
	s.wait("b.service", "failed under run 2", func(st unit.State) bool { return st.Run == 2 && st.Active == "failed" })
}

func stopEnds(s *story) {
	s.running("a.service", Forever)
	s.must(s.d.Stop(s.ctx, "a.service"))
	st := s.inactive("a.service")
	if st.Sub != "dead" || st.MainPID != 0 {
		s.Errorf("state: %+v", st)
	}
	s.must(s.d.Stop(s.ctx, "a.service"))
	s.must(s.d.Start(s.ctx, "a.service", 1)) // the run that was stopped
	if st := s.state("a.service"); st.Active != "inactive" {
		s.Errorf("a stopped run was started again: %+v", st)
	}
}

func stopThenNewRun(s *story) {
	before := s.running("a.service", IgnoresTerm)
	s.must(s.d.Stop(s.ctx, "a.service"))
	s.must(s.d.Start(s.ctx, "a.service", 2)) // while it stops
	if after := s.active("a.service", 2); after.MainPID == before.MainPID {
		s.Errorf("before %+v, after %+v", before, after)
	}
	s.must(s.d.Start(s.ctx, "a.service", 3))
	s.must(s.d.Stop(s.ctx, "a.service")) // takes the request back
	st := s.wait("a.service", "ended", func(st unit.State) bool { return st.Active == "inactive" || st.Active == "failed" })
	if st.Run != 2 {
		s.Errorf("a start that was taken back ran: %+v", st)
	}
}

func stopEndsAutoRestart(s *story) {
	s.start("a.service", Restarting)
	s.wait("a.service", "in its first restart", func(st unit.State) bool { return st.Restarts > 0 })
	s.must(s.d.Stop(s.ctx, "a.service"))
	st := s.wait("a.service", "ended", func(st unit.State) bool { return st.Active == "inactive" || st.Active == "failed" })
	if st.Result == "start-limit-hit" {
		s.Errorf("went on after stop: %+v", st)
	}
}

func stopWhileStarting(s *story) {
	s.start("a.service", SlowStart)
	s.wait("a.service", "activating", func(st unit.State) bool { return st.Active == "activating" })
	s.must(s.d.Stop(s.ctx, "a.service"))
	s.wait("a.service", "ended", func(st unit.State) bool { return st.Active == "inactive" || st.Active == "failed" })
}

func cleanExit(s *story) {
	s.start("a.service", ExitsZero)
	st := s.wait("a.service", "done", func(st unit.State) bool { return st.Active == "inactive" && st.Run == 1 })
	if st.Result != "success" || st.ExitCode != 0 || st.MainPID != 0 {
		s.Errorf("state: %+v", st)
	}
}

func badExit(s *story) {
	st := s.failed(s.start("a.service", ExitsThree))
	if st.Result != "exit-code" || st.ExitCode != 3 || st.Sub != "failed" || st.Message == "" || st.MainPID != 0 {
		s.Errorf("state: %+v", st)
	}
}

func restartsUntilLimit(s *story) {
	st := s.failed(s.start("a.service", Restarting))
	if st.Result != "start-limit-hit" || st.Restarts < 4 {
		s.Errorf("state: %+v", st)
	}
}

func resetFailed(s *story) {
	s.failed(s.start("a.service", Restarting))
	s.must(s.d.ResetFailed(s.ctx, "a.service"))
	if st := s.inactive("a.service"); st.Sub != "dead" {
		s.Errorf("state: %+v", st)
	}
	s.must(s.d.Start(s.ctx, "a.service", 2)) // the start limit is forgotten too
	s.wait("a.service", "started again", func(st unit.State) bool { return st.Run == 2 && st.Restarts > 0 })
}

func stuckUnit(s *story) {
	before := s.running("stuck.service", IgnoresTerm)
	s.must(s.d.Stop(s.ctx, "stuck.service"))
	s.wait("stuck.service", "stopping", func(st unit.State) bool { return st.Active == "deactivating" })
	s.running("other.service", Forever)
	if st := s.state("stuck.service"); st.Active == "active" {
		s.Errorf("state: %+v", st)
	}
	st := s.wait("stuck.service", "killed", func(st unit.State) bool { return st.Active == "failed" || st.Active == "inactive" })
	if st.Result != "timeout" || before.MainPID == 0 {
		s.Errorf("state: %+v", st)
	}
}

func slowStart(s *story) {
	s.start("a.service", SlowStart)
	s.wait("a.service", "activating", func(st unit.State) bool { return st.Active == "activating" })
	s.active("a.service", 1)
}

func reload(s *story) {
	s.load("a.service", Reloads)
	s.kind(s.d.Reload(s.ctx, "a.service"), fault.Conflict)
	s.must(s.d.Start(s.ctx, "a.service", 1))
	before := s.active("a.service", 1)
	s.must(s.d.Reload(s.ctx, "a.service"))
	if now := s.active("a.service", 1); now.MainPID != before.MainPID {
		s.Errorf("reload replaced the process: before %+v, now %+v", before, now)
	}
	s.running("b.service", Forever)
	s.kind(s.d.Reload(s.ctx, "b.service"), fault.Conflict)
	c := s.running("c.service", ReloadFails)
	s.kind(s.d.Reload(s.ctx, "c.service"), fault.Failed)
	if now := s.active("c.service", 1); now.MainPID != c.MainPID {
		s.Errorf("a failed reload ended the process: %+v", now)
	}
}

func newContent(s *story) {
	before := s.running("a.service", Forever)
	u := s.bed.Unit("a.service", ExitsThree)
	s.must(s.d.Load(s.ctx, u))
	s.untouched(before)
	if st := s.state("a.service"); st.Hash != u.Hash() {
		s.Errorf("hash %s, want %s", st.Hash, u.Hash())
	}
	s.must(s.d.Start(s.ctx, "a.service", 2))
	s.wait("a.service", "failed as its new content says", func(st unit.State) bool { return st.Run == 2 && st.Active == "failed" && st.ExitCode == 3 })
}

func badSetting(s *story) {
	s.load("a.service", Broken)
	st := s.state("a.service")
	if st.Load != "bad-setting" || st.Message == "" {
		s.Errorf("state: %+v", st)
	}
	s.kind(s.d.Start(s.ctx, "a.service", 1), fault.Invalid)
	s.load("a.service", Forever)
	s.must(s.d.Start(s.ctx, "a.service", 1))
	s.active("a.service", 1)
}

func unload(s *story) {
	s.running("a.service", Forever)
	s.running("b.service", IgnoresTerm)
	s.load("c.service", Forever)
	for _, name := range []unit.Name{"a.service", "b.service", "c.service", "a.service"} {
		s.must(s.d.Unload(s.ctx, name))
	}
	states, err := s.d.States(s.ctx)
	s.must(err)
	if len(states) != 0 {
		s.Errorf("left after unload: %+v", states)
	}
	if st := s.running("a.service", Forever); st.Run != 1 { // the old run is forgotten
		s.Errorf("state: %+v", st)
	}
}

func statesSorted(s *story) {
	for _, n := range []unit.Name{"b.service", "c.service", "a@2.service", "a@1.service"} {
		s.load(n, Forever)
	}
	states, err := s.d.States(s.ctx)
	s.must(err)
	var names []unit.Name
	for _, st := range states {
		names = append(names, st.Unit)
		if st.Machine != "" {
			s.Errorf("machine is not empty: %+v", st)
		}
	}
	if want := []unit.Name{"a@1.service", "a@2.service", "b.service", "c.service"}; !slices.Equal(names, want) {
		s.Errorf("names %v, want %v", names, want)
	}
}

func concurrent(s *story) {
	var wg sync.WaitGroup
	for i := range 6 {
		name := s.load(unit.Name(fmt.Sprintf("u%d.service", i)), Forever)
		for j := range 3 {
			wg.Go(func() {
				for run := range uint64(4) {
					if err := s.d.Start(s.ctx, name, run+1); err != nil {
						s.Error(err)
					}
					if j == 0 {
						if err := s.d.Stop(s.ctx, name); err != nil {
							s.Error(err)
						}
					}
				}
			})
		}
	}
	wg.Wait()
	for i := range 6 {
		name := unit.Name(fmt.Sprintf("u%d.service", i))
		s.must(s.d.ResetFailed(s.ctx, name))
		s.wait(name, "at rest", func(st unit.State) bool {
			return st.Active == "active" || st.Active == "inactive" || st.Active == "failed"
		})
		s.must(s.d.ResetFailed(s.ctx, name))
		s.must(s.d.Start(s.ctx, name, 99))
	}
	for i := range 6 {
		s.active(unit.Name(fmt.Sprintf("u%d.service", i)), 99)
	}
}

func cancelledContext(s *story) {
	s.running("a.service", IgnoresTerm)
	ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond) // far less than the unit takes to stop
	defer cancel()
	if err := s.d.Unload(ctx, "a.service"); err == nil {
		s.Error("unload came back before its end without an error")
	}
	s.must(s.d.Unload(s.ctx, "a.service"))
}
