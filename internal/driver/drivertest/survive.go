package drivertest

import (
	"context"
	"time"

	"flota/internal/fault"
	"flota/internal/unit"
)

func fenceGuardsStart(s *story) {
	s.load("x.service", Exclusive)
	s.kind(s.d.Start(s.ctx, "x.service", 1), fault.Conflict)
	s.must(s.d.Fence(s.ctx, time.Minute))
	s.must(s.d.Start(s.ctx, "x.service", 1))
	s.active("x.service", 1)
}

func fenceRunsOut(s *story) {
	s.must(s.d.Fence(s.ctx, time.Minute))
	other := s.running("a.service", Forever)
	s.running("x.service", Exclusive)
	s.must(s.d.Fence(s.ctx, 300*time.Millisecond))
	st := s.wait("x.service", "fenced", func(st unit.State) bool {
		return st.Active != "active" && st.MainPID == 0 && st.Active != "deactivating"
	})
	if st.Run != 0 || st.Message == "" {
		s.Errorf("state: %+v", st)
	}
	s.untouched(other)
	s.kind(s.d.Start(s.ctx, "x.service", 1), fault.Conflict)
	s.must(s.d.Fence(s.ctx, time.Minute))
	s.must(s.d.Start(s.ctx, "x.service", 1)) // the lease is back, and the run still wanted
	s.active("x.service", 1)
}

func fenceExtended(s *story) {
	const lease = 700 * time.Millisecond
	s.must(s.d.Fence(s.ctx, lease))
	before := s.running("x.service", Exclusive)
	ctx, cancel := context.WithTimeout(s.ctx, 3*lease)
	defer cancel()
	for tick := time.NewTicker(lease / 7); ctx.Err() == nil; <-tick.C {
		s.must(s.d.Fence(s.ctx, lease))
	}
	s.untouched(before)
}

func fenceNow(s *story) {
	s.must(s.d.Fence(s.ctx, time.Minute))
	other := s.running("a.service", Forever)
	s.running("x.service", Exclusive)
	s.must(s.d.Fence(s.ctx, 0))
	s.wait("x.service", "fenced", func(st unit.State) bool { return st.Active == "inactive" || st.Active == "failed" })
	s.untouched(other)
}

// crowd makes one unit of several kinds and gives the states of those that run.
func (s *story) crowd() (up []unit.State) {
	s.Helper()
	s.must(s.d.Fence(s.ctx, time.Minute))
	up = append(up, s.running("a.service", Forever), s.running("b@1.service", Prints), s.running("x.service", Exclusive))
	s.load("idle.service", Forever)
	s.failed(s.start("bad.service", ExitsThree))
	return up
}

// same fails the test if the crowd is not as it was.
func (s *story) same(up []unit.State) {
	s.Helper()
	for _, st := range up {
		s.untouched(st)
	}
	if st := s.state("idle.service"); st.Active != "inactive" || st.Load != "loaded" {
		s.Errorf("idle: %+v", st)
	}
	if st := s.state("bad.service"); st.Active != "failed" || st.ExitCode != 3 || st.Run != 1 {
		s.Errorf("failed: %+v", st)
	}
	s.must(s.d.Start(s.ctx, "bad.service", 1)) // known to have been started
	if st := s.state("bad.service"); st.Active != "failed" {
		s.Errorf("failed: %+v", st)
	}
	s.must(s.d.Stop(s.ctx, up[0].Unit)) // still obeys
	s.inactive(up[0].Unit)
	s.must(s.d.Start(s.ctx, "idle.service", 1))
	s.active("idle.service", 1)
}

func agentRestart(s *story) {
	up := s.crowd()
	s.d = s.bed.Open()
	s.same(up)
}

func backendRestart(s *story) {
	if s.bed.RestartBackend == nil {
		return // nothing stands behind this driver
	}
	up := s.crowd()
	s.bed.RestartBackend()
	s.same(up)
}

func backendKilled(s *story) {
	if s.bed.KillBackend == nil {
		return // nothing stands behind this driver that could be killed alone
	}
	up := s.crowd()
	s.bed.KillBackend()
	s.same(up)
}

func powerCut(s *story) {
	up := s.crowd()
	s.bed.PowerCut()
	s.d = s.bed.Open()
	states, err := s.d.States(s.ctx)
	s.must(err)
	for _, st := range states {
		if st.Active == "active" || st.MainPID != 0 || st.Run != 0 {
			s.Errorf("after a power cut: %+v", st)
		}
	}
	for _, st := range up { // what the agent does: everything anew, under the runs of before
		if st.Unit == "x.service" {
			s.must(s.d.Fence(s.ctx, time.Minute))
		}
		does := map[unit.Name]Behaviour{"a.service": Forever, "b@1.service": Prints, "x.service": Exclusive}[st.Unit]
		s.running(st.Unit, does)
	}
}
