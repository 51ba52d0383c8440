// Package drivertest is the conformance suite of driver.Driver: whatever the interface's comments promise is a test here,
// and every driver, the fake included, passes all of them.
//
// The invariant: a test uses the interface and the Bed only, so that a fake that passes may be trusted in place of a real driver.
// Tests wait for what they want by Watch and never sleep. Where the comments leave a question open, the suite decides it:
//   - an unloaded unit is told of once by Watch, with Load "not-found";
//   - an exclusive unit can be started only while a Fence is running (fault.Conflict otherwise); one that a fence
//     ended, or a power cut, has State.Run 0, so the same run may be asked for again.
//
// Start reading at Bed and Run.
package drivertest

import (
	"context"
	"testing"
	"time"

	"flota/internal/driver"
	"flota/internal/fault"
	"flota/internal/unit"
)

// Behaviour names what a unit of a test does; each bed turns it into a unit file of its driver.
type Behaviour string

// The behaviours. Delays are a bed's own; each should be well under a second.
const (
	Forever     Behaviour = "runs for ever"
	ExitsZero   Behaviour = "exits 0 at once"
	ExitsThree  Behaviour = "exits 3 at once, Restart=no"
	Restarting  Behaviour = "exits 3 at once, Restart=on-failure, RestartSec=100ms"
	IgnoresTerm Behaviour = "runs for ever and must be killed half a second after a stop"
	Prints      Behaviour = "prints line 1 to line 50, then runs for ever"
	SlowStart   Behaviour = "is activating for about half a second, then runs for ever"
	Reloads     Behaviour = "runs for ever, ExecReload= works"
	ReloadFails Behaviour = "runs for ever, ExecReload= fails"
	Exclusive   Behaviour = "runs for ever, [X-Flota] Exclusive=true"
	Broken      Behaviour = "can never start: a bad setting"
)

// Bed is a machine to test a driver on. Funcs fail the test themselves. What it makes is taken away by t.Cleanup.
type Bed struct {
	// Open makes a driver as an agent that starts does; the first call, and each after, finds what runs.
	Open func() driver.Driver
	// Unit gives a unit file of this driver with that behaviour.
	Unit func(name unit.Name, does Behaviour) unit.Unit
	// RestartBackend replaces what stands behind the driver (supervisor, engine) cleanly. nil: there is nothing.
	RestartBackend func()
	// KillBackend ends it without warning. nil: the units cannot survive that by design, or there is nothing.
	KillBackend func()
	// PowerCut ends everything as a machine that loses power; the next Open is its next boot. Drivers from before are dead.
	PowerCut func()
}

// patience is how long a test waits for a state. Ten times what the slowest takes on a busy machine with two cores.
const patience = 20 * time.Second

// Run runs the whole suite, each test on a bed of its own.
func Run(t *testing.T, newBed func(t *testing.T) Bed) {
	tests := map[string]func(*story){
		"UnknownUnits": unknownUnits, "LoadStartsNothing": loadStartsNothing, "StartRuns": startRuns, "SameRunIsNoop": sameRunIsNoop,
		"NewRunRestarts": newRunRestarts, "StopEnds": stopEnds, "StopEndsAutoRestart": stopEndsAutoRestart, "StopWhileStarting": stopWhileStarting,
		"CleanExit": cleanExit, "BadExit": badExit, "RestartsUntilLimit": restartsUntilLimit, "ResetFailed": resetFailed,
		"StuckUnitHoldsNobodyUp": stuckUnit, "SlowStart": slowStart, "Reload": reload, "NewContent": newContent, "BadSetting": badSetting,
		"Unload": unload, "StatesSorted": statesSorted, "Watch": watch, "Logs": logs, "FollowLogs": followLogs, "Stats": stats,
		"FenceGuardsStart": fenceGuardsStart, "FenceRunsOut": fenceRunsOut, "FenceExtended": fenceExtended, "FenceNow": fenceNow,
		"AgentRestart": agentRestart, "BackendRestart": backendRestart, "BackendKilled": backendKilled, "PowerCut": powerCut,
		"Concurrent": concurrent, "StopThenNewRun": stopThenNewRun, "CancelledContext": cancelledContext,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bed := newBed(t)
			test(&story{T: t, bed: bed, d: bed.Open(), ctx: t.Context()})
		})
	}
}

// story is one test on one bed; its methods fail the test.
type story struct {
	*testing.T
	bed Bed
	d   driver.Driver
	ctx context.Context
}

// load loads a unit of that behaviour and gives its name.
func (s *story) load(name unit.Name, does Behaviour) unit.Name {
	s.Helper()
	s.must(s.d.Load(s.ctx, s.bed.Unit(name, does)))
	return name
}

// start loads and starts a unit under run 1.
func (s *story) start(name unit.Name, does Behaviour) unit.Name {
	s.Helper()
	s.load(name, does)
	s.must(s.d.Start(s.ctx, name, 1))
	return name
}

// running starts a unit under run 1 and waits until it is active.
func (s *story) running(name unit.Name, does Behaviour) unit.State {
	s.Helper()
	return s.active(s.start(name, does), 1)
}

// active waits until the unit is active under run.
func (s *story) active(name unit.Name, run uint64) unit.State {
	s.Helper()
	return s.wait(name, "active under its run", func(st unit.State) bool { return st.Active == "active" && st.Run == run })
}

// wait watches until the unit's state is as wanted.
func (s *story) wait(name unit.Name, what string, ok func(unit.State) bool) unit.State {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var last unit.State
	found := false
	for ctx.Err() == nil && !found {
		err := s.d.Watch(ctx, func(states []unit.State, _ bool) {
			for _, st := range states {
				if st.Unit == name && !found {
					if last = st; ok(st) {
						found = true
						cancel()
					}
				}
			}
		})
		if err != nil && !fault.Is(err, fault.Unavailable) {
			s.Fatalf("watch: %v", err)
		}
	}
	if !found {
		s.Fatalf("%s never became %s; last: %+v", name, what, last)
	}
	return last
}

// inactive waits until the unit is inactive.
func (s *story) inactive(name unit.Name) unit.State {
	s.Helper()
	return s.wait(name, "inactive", func(st unit.State) bool { return st.Active == "inactive" })
}

// failed waits until the unit has failed.
func (s *story) failed(name unit.Name) unit.State {
	s.Helper()
	return s.wait(name, "failed", func(st unit.State) bool { return st.Active == "failed" })
}

// state gives the state of a unit now.
func (s *story) state(name unit.Name) unit.State {
	s.Helper()
	states, err := s.d.States(s.ctx)
	s.must(err)
	for _, st := range states {
		if st.Unit == name {
			return st
		}
	}
	s.Fatalf("no state of %s in %+v", name, states)
	return unit.State{}
}

// must fails the test on an error.
func (s *story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// kind fails the test if err is not of that kind.
func (s *story) kind(err error, want fault.Kind) {
	s.Helper()
	if !fault.Is(err, want) {
		s.Errorf("error %v has kind %q, want %q", err, fault.KindOf(err), want)
	}
}

// untouched fails the test if the unit is not the same active process as before.
func (s *story) untouched(before unit.State) {
	s.Helper()
	now := s.state(before.Unit)
	if now.Active != "active" || now.MainPID != before.MainPID || now.Run != before.Run || now.Restarts != before.Restarts || !now.Since.Equal(before.Since) {
		s.Errorf("touched: before %+v, now %+v", before, now)
	}
}
