package lifecycle

import (
	"fmt"
	"syscall"

	"flota/internal/service"
)

// stopAsked ends the unit for good: it also ends waiting for a restart.
func (m *Machine) stopAsked() {
	r := m.Rec
	r.Pending = 0
	if r.Resting() {
		return
	}
	m.stop()
}

// stop begins the end of the run as its phase demands.
func (m *Machine) stop() {
	r := m.Rec
	r.Forbid = true
	switch r.Phase {
	case AutoRestart:
		r.Result = Success
		r.Message = "stopped while waiting for a restart"
		m.do(Finish{})
		m.enter(Dead, 0)
	case Condition, StartPre, Start, StartPost, Reload:
		m.say("Stopping.")
		m.signal(StopSigterm, Success)
	case Running, Exited:
		m.say("Stopping.")
		m.enterStop(Success)
	}
}

func (m *Machine) enterStop(f Result) {
	m.fail(f)
	if len(m.Svc.ExecStop) > 0 {
		m.control(Stop, CmdStop, 0, m.Svc.TimeoutStop)
		return
	}
	m.signal(StopSigterm, Success)
}

// stopByNotify: the unit says that it stops, which is as good as having been told to.
func (m *Machine) stopByNotify() {
	m.enter(StopSigterm, m.Svc.TimeoutStop)
	m.do(WaitEmpty{})
}

// signal enters a phase that waits for processes to end after a signal.
func (m *Machine) signal(p Phase, f Result) {
	m.fail(f)
	limit := m.Svc.TimeoutStop
	if p == StopWatchdog || p == FinalWatchdog {
		limit = m.Svc.TimeoutAbort
	}
	m.enter(p, limit)
	if p == StopSigterm && m.Rec.Result == Success {
		m.Rec.Message = "stopping"
	}
	k := m.Svc.Kill
	a := Kill{Nobody: k.Mode == service.KillNone, Group: k.Mode == service.KillControlGroup || k.Mode == ""}
	switch p {
	case StopSigkill, FinalSigkill:
		a.Signal = k.Final
		a.Group = a.Group || k.Mode == service.KillMixed
	case StopWatchdog, FinalWatchdog:
		a.Signal = k.Watchdog
	default:
		if a.Signal = k.Signal; m.Rec.Pending != 0 {
			a.Signal = k.Restart
		}
		a.HUP = k.SendHUP
	}
	m.do(a)
}

// killed goes on if nobody has to be waited for.
func (m *Machine) killed(left bool) {
	if left {
		m.do(WaitEmpty{})
		return
	}
	switch p := m.Rec.Phase; {
	case (p == StopSigterm || p == StopWatchdog) && m.Svc.Kill.SendKILL:
		m.signal(StopSigkill, Success)
	case p == StopSigterm || p == StopWatchdog || p == StopSigkill:
		m.enterStopPost(Success)
	case (p == FinalSigterm || p == FinalWatchdog) && m.Svc.Kill.SendKILL:
		m.signal(FinalSigkill, Success)
	case p == FinalSigterm || p == FinalWatchdog || p == FinalSigkill:
		m.dead(Success, true)
	}
}

func (m *Machine) enterStopPost(f Result) {
	m.fail(f)
	if len(m.Svc.ExecStopPost) > 0 {
		m.control(StopPost, CmdStopPost, 0, m.Svc.TimeoutStop)
		return
	}
	m.signal(FinalSigterm, Success)
}

// dead ends the run; a pending run or an automatic restart follows.
func (m *Machine) dead(f Result, restart bool) {
	r := m.Rec
	m.fail(f)
	r.Main, r.Control = Proc{}, Proc{}
	again := restart && r.Pending == 0 && !r.Forbid && Restarts(m.Svc, r.Result, r.LastExit)
	m.do(Finish{Keep: again || r.Pending != 0})
	why := m.why()
	if again {
		r.Restarts++
		r.Message = fmt.Sprintf("%s; restart %d in %s", why, r.Restarts, span(m.Svc.RestartDelay))
		if l := m.Svc.StartLimit; l.Burst > 0 && l.Interval > 0 {
			r.Message = fmt.Sprintf("%s; restart %d of %d in %s", why, len(r.Starts), l.Burst, span(m.Svc.RestartDelay))
		}
		m.say(fmt.Sprintf("Scheduled restart, counter is at %d.", r.Restarts))
		m.enter(AutoRestart, max(m.Svc.RestartDelay, 1))
		return
	}
	r.Message = why
	if r.Result == Success || r.Result == ExecCondition {
		m.say("Stopped.")
		m.enter(Dead, 0)
	} else {
		m.say(fmt.Sprintf("Failed with result '%s'.", r.Result))
		m.enter(Failed, 0)
	}
	if r.Pending != 0 {
		m.begin(r.Pending, false)
	}
}

// why tells in a person's words how the run ended.
func (m *Machine) why() string {
	r := m.Rec
	switch {
	case r.Result == Success && r.Forbid:
		return "stopped"
	case r.Result == Success:
		return "done"
	case r.Result == ExecCondition:
		return "not started: ExecCondition= said no"
	case r.Result == Timeout, r.Result == Watchdog, r.Result == Resources, r.Result == Protocol:
		if r.Message != "" && r.Message != "stopping" {
			return r.Message + " (" + string(r.Result) + ")"
		}
	}
	if r.Message != "" && r.Message != "stopping" && r.Message != "running" {
		return r.Message
	}
	return "ended with result " + string(r.Result)
}

// Restarts says whether Restart= and its exceptions ask for another start after such an end. Source: systemd.service(5),
// the table of exit causes; RestartPreventExitStatus= first, then RestartForceExitStatus=.
func Restarts(s *service.Service, f Result, e Exit) bool {
	if !e.Unknown {
		if hits(s.RestartNever.HasCode, s.RestartNever.HasSignal, e) {
			return false
		}
		if hits(s.RestartForce.HasCode, s.RestartForce.HasSignal, e) {
			return true
		}
	}
	clean := f == Success
	switch s.Restart {
	case service.RestartAlways:
		return f != ExecCondition
	case service.RestartOnSuccess:
		return clean
	case service.RestartOnFailure:
		return !clean && f != ExecCondition
	case service.RestartOnAbnormal:
		return !clean && f != ExecCondition && f != ExitCode
	case service.RestartOnAbort:
		return f == Signal || f == CoreDump
	case service.RestartOnWatchdog:
		return f == Watchdog
	}
	return false
}

// hits looks an end up in a set of exit codes and signals.
func hits(code func(int) bool, signal func(syscall.Signal) bool, e Exit) bool {
	if e.Signal != 0 {
		return signal(sig(e.Signal))
	}
	return code(e.Code)
}

// fence ends an exclusive unit at once, without its stop commands.
func (m *Machine) fence() {
	r := m.Rec
	r.Pending, r.Forbid = 0, true
	if r.Resting() {
		return
	}
	r.Result = Fenced
	m.say("Stopped by force: the fence has run out.")
	m.enter(FinalSigkill, 0)
	m.do(KillAll{})
}

// gone ends a unit that KillAll ended.
func (m *Machine) gone() {
	if m.Rec.Result == Fenced && m.Rec.Phase == FinalSigkill {
		m.vanish(Fenced, "stopped by force: the fence has run out")
	}
}

// lost notes that nothing of the unit is left, and that nobody decided so.
func (m *Machine) lost() {
	m.vanish(MachineGone, "its processes ended with the machine; not started again by itself")
}

// vanish puts the unit where it was before its first start: the same run may be asked for again.
func (m *Machine) vanish(f Result, why string) {
	r := m.Rec
	r.Main, r.Control, r.MainKnown = Proc{}, Proc{}, false
	r.Run, r.Pending, r.Restarts, r.Starts = 0, 0, 0, nil
	r.Result, r.Message, r.Status = f, why, ""
	m.do(Finish{})
	m.enter(Dead, 0)
}
