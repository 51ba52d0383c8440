package lifecycle

import (
	"fmt"
	"syscall"

	"flota/internal/service"
	"flota/internal/setting"
)

// cleanSignals end a daemon cleanly. Source: systemd.service(5), SuccessExitStatus=.
var cleanSignals = setting.Exits{Signals: []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTERM}}

// Judge gives the result of an end. Daemons may end by a clean signal, commands may not.
func Judge(e Exit, daemon bool, success setting.Exits) Result {
	switch {
	case e.Unknown:
		return Protocol
	case e.OOM:
		return OOMKill
	case e.Signal == 0 && (e.Code == 0 || success.HasCode(e.Code)):
		return Success
	case e.Signal == 0:
		return ExitCode
	case daemon && cleanSignals.HasSignal(sig(e.Signal)), success.HasSignal(sig(e.Signal)):
		return Success
	case e.Core:
		return CoreDump
	}
	return Signal
}

// ended handles the end of the main or the control process.
func (m *Machine) ended(e Ended) {
	switch {
	case e.PID == 0:
	case e.PID == m.Rec.Main.PID:
		m.mainEnded(e)
	case e.PID == m.Rec.Control.PID:
		m.controlEnded(e.Exit)
	}
}

func (m *Machine) mainEnded(e Ended) {
	r := m.Rec
	if e.Moved.PID != 0 && e.Moved.PID != e.PID {
		m.say(fmt.Sprintf("Main process is %d now.", e.Moved.PID))
		r.Main = e.Moved
		return
	}
	f := Judge(e.Exit, m.Svc.Type != service.Oneshot, m.Svc.Success)
	if f != Success && r.MainIndex < len(m.Svc.ExecStart) && m.Svc.ExecStart[r.MainIndex].IgnoreFailure {
		f = Success
	}
	stopping := r.Phase.Active() == "deactivating"
	if e.Exit.Unknown && stopping {
		f = Success
	}
	r.Main, r.LastExit = Proc{}, e.Exit
	m.say("Main process exited, " + e.Exit.Line() + ".")
	if f != Success && (r.Result == Success || r.Result == "") {
		r.Message = "main process " + e.Exit.Words()
	}
	m.fail(f)
	if m.Svc.Type == service.Oneshot && f == Success && r.Phase == Start && r.MainIndex+1 < len(m.Svc.ExecStart) {
		m.mainCommand(r.MainIndex + 1)
		return
	}
	m.afterMain(f)
}

// afterMain is what follows the end of the main process, by phase.
func (m *Machine) afterMain(f Result) {
	r := m.Rec
	busy := r.Control.PID != 0
	switch r.Phase {
	case StartPost, Reload:
		if !busy {
			m.enterStop(f)
		}
	case Start:
		switch {
		case m.Svc.Type == service.Oneshot && f == Success:
			m.enterStartPost()
		case m.Svc.Type == service.Notify && f == Success:
			if !m.Svc.RemainAfterExit || m.Svc.NotifyAccess == service.NotifyMain {
				r.Message = "main process ended before it said READY=1"
				m.signal(StopSigterm, Protocol)
			}
		case f != Success:
			m.signal(StopSigterm, f)
		default:
			m.enterRunning(f)
		}
	case Running:
		m.enterRunning(f)
	case StopWatchdog, StopSigterm, StopSigkill:
		if !busy {
			m.enterStopPost(f)
		}
	case StopPost:
		if !busy {
			m.signal(FinalSigterm, f)
		}
	case FinalWatchdog, FinalSigterm, FinalSigkill:
		if !busy && r.Result != Fenced {
			m.dead(f, true)
		}
	}
}

func (m *Machine) controlEnded(e Exit) {
	r := m.Rec
	list := Commands(m.Svc, r.Command)
	f := Judge(e, false, setting.Exits{})
	if r.Phase == Condition && f == ExitCode && (e.Code < 255 || m.Svc.Success.HasCode(e.Code)) {
		if f = ExecCondition; m.Svc.Success.HasCode(e.Code) {
			f = Success
		}
	}
	if r.Index < len(list) && list[r.Index].IgnoreFailure || e.Unknown && r.Phase.Active() == "deactivating" {
		f = Success
	}
	r.Control = Proc{}
	if f != Success {
		m.say(fmt.Sprintf("%s= process exited, %s.", r.Command, e.Line()))
		if r.Phase != Reload {
			if r.Result == Success {
				r.Message = fmt.Sprintf("%s= process %s", r.Command, e.Words())
			}
			m.fail(f)
		}
	}
	if f == Success && r.Index+1 < len(list) && r.Command != "" && m.sequential() {
		limit := m.Svc.TimeoutStart
		if r.Phase.Active() == "deactivating" {
			limit = m.Svc.TimeoutStop
		}
		m.control(r.Phase, r.Command, r.Index+1, limit)
		return
	}
	m.afterControl(f, e)
}

// sequential reports whether the phase still runs the control list: a signal phase has given the rest of it up.
func (m *Machine) sequential() bool {
	switch m.Rec.Phase {
	case Condition, StartPre, StartPost, Reload, Stop, StopPost:
		return true
	}
	return false
}

// afterControl is what follows the end of the last control process of a phase.
func (m *Machine) afterControl(f Result, e Exit) {
	r := m.Rec
	switch r.Phase {
	case Condition:
		if f == Success {
			m.enterStartPre()
		} else {
			m.signal(StopSigterm, f)
		}
	case StartPre:
		if f == Success {
			m.enterStart()
		} else {
			m.signal(StopSigterm, f)
		}
	case Start, StartPost:
		m.afterStartControl(f)
	case Reload:
		if f != Success {
			m.reloadFailed(fmt.Sprintf("ExecReload= process %s", e.Words()))
			return
		}
		if r.Notified == "reloading" {
			return // READY=1 ends it
		}
		if m.Svc.PIDFile != "" && m.Svc.Type == service.Forking {
			m.do(ReadPIDFile{})
		}
		m.enterRunning(Success)
	case Stop:
		m.signal(StopSigterm, f)
	case StopWatchdog, StopSigterm, StopSigkill:
		if r.Main.PID == 0 {
			m.enterStopPost(f)
		}
	case StopPost:
		if r.Main.PID == 0 {
			m.signal(FinalSigterm, f)
		}
	case FinalWatchdog, FinalSigterm, FinalSigkill:
		if r.Main.PID == 0 && r.Result != Fenced {
			m.dead(f, true)
		}
	}
}

// afterStartControl: a forking unit has forked, or ExecStartPost= is done.
func (m *Machine) afterStartControl(f Result) {
	r := m.Rec
	forking := m.Svc.Type == service.Forking
	switch {
	case f != Success:
		m.signal(StopSigterm, f)
	case forking && m.Svc.PIDFile != "" && r.Main.PID == 0:
		if r.Phase == Start && len(m.Svc.ExecStartPost) > 0 {
			m.enterStartPost() // it may be what writes the file
			return
		}
		m.do(ReadPIDFile{})
	case forking && r.Phase == Start && m.Svc.GuessMainPID && r.Main.PID == 0:
		m.do(GuessMain{})
	case r.Phase == Start:
		m.enterStartPost()
	default:
		m.enterRunning(Success)
	}
}

// reloadFailed ends a reload; the unit stays as it was.
func (m *Machine) reloadFailed(why string) {
	m.do(Reloaded{why})
	m.Rec.Phase = Running // no second answer from enter
	m.enterRunning(Success)
}

// reloadWhy is the answer to a reload that the phase p ends.
func (m *Machine) reloadWhy(p Phase) string {
	if p == Running || p == Exited {
		return ""
	}
	return "the unit stopped during its reload"
}

// emptied goes on when no process of the unit is left.
func (m *Machine) emptied() {
	r := m.Rec
	if r.Main.PID != 0 || r.Control.PID != 0 {
		return // their own ends will tell
	}
	switch r.Phase {
	case Start, StartPost:
		if r.WaitsFile || m.Svc.Type == service.Notify && r.Phase == Start {
			r.Message = "all processes ended before the unit was started"
			m.signal(StopSigterm, Protocol)
		}
	case Running:
		m.enterRunning(Success)
	case StopWatchdog, StopSigterm, StopSigkill:
		m.enterStopPost(Success)
	case FinalWatchdog, FinalSigterm, FinalSigkill:
		if r.Result != Fenced {
			m.dead(Success, true)
		}
	}
}

// due handles the phase's deadline and the watchdog's.
func (m *Machine) due() {
	r := m.Rec
	if !r.WatchdogAt.IsZero() && !m.now.Before(r.WatchdogAt) {
		m.watchdog()
		return
	}
	if r.Deadline.IsZero() || m.now.Before(r.Deadline) {
		return
	}
	kill := m.Svc.Kill.SendKILL
	switch r.Phase {
	case Condition, StartPre, Start, StartPost:
		r.Message = "not started within " + span(m.Svc.TimeoutStart)
		if m.Svc.Type == service.Notify && r.Phase == Start {
			r.Message = "no READY=1 within " + span(m.Svc.TimeoutStart)
		}
		m.say("Start operation timed out.")
		m.escalate(m.Svc.StartFailMode, StopSigterm, StopWatchdog, StopSigkill)
	case Running:
		r.Message = "ran longer than RuntimeMaxSec=" + span(m.Svc.RuntimeMax)
		m.say("Reached its runtime limit.")
		m.enterStop(Timeout)
	case Reload:
		m.say("Reload timed out.")
		if r.Control.PID != 0 {
			m.do(KillControl{r.Control})
			r.Control = Proc{}
		}
		r.Notified = "ready"
		m.reloadFailed("not reloaded within " + span(m.Svc.TimeoutStart))
	case Stop:
		m.late("ExecStop= did not end")
		m.escalate(m.Svc.StopFailMode, StopSigterm, StopWatchdog, StopSigkill)
	case StopSigterm:
		m.late("did not stop")
		if m.Svc.StopFailMode == "abort" {
			m.signal(StopWatchdog, Timeout)
		} else {
			m.either(kill, StopSigkill)
		}
	case StopWatchdog:
		m.late("did not stop")
		m.either(kill, StopSigkill)
	case StopSigkill:
		m.late("is still there after SIGKILL")
		m.enterStopPost(Timeout)
	case StopPost:
		m.late("ExecStopPost= did not end")
		m.escalate(m.Svc.StopFailMode, FinalSigterm, FinalWatchdog, FinalSigkill)
	case FinalSigterm, FinalWatchdog:
		if kill {
			m.signal(FinalSigkill, Timeout)
		} else {
			m.dead(Timeout, false)
		}
	case FinalSigkill:
		m.dead(Timeout, true)
	case AutoRestart:
		m.begin(r.Run, true)
	}
}

// late notes what took longer than TimeoutStopSec=.
func (m *Machine) late(what string) {
	if m.Rec.Result == Success {
		m.Rec.Message = what + " within " + span(m.Svc.TimeoutStop)
	}
	m.say("Stop operation timed out: " + what + ".")
}

// either kills, or gives up on what is left.
func (m *Machine) either(kill bool, p Phase) {
	if kill {
		m.signal(p, Timeout)
		return
	}
	m.enterStopPost(Timeout)
}

// escalate goes on after a timeout as Timeout…FailureMode= says.
func (m *Machine) escalate(mode string, terminate, abort, kill Phase) {
	switch {
	case mode == "abort":
		m.signal(abort, Timeout)
	case mode == "kill" && m.Svc.Kill.SendKILL:
		m.signal(kill, Timeout)
	case mode == "kill" && kill == StopSigkill:
		m.enterStopPost(Timeout)
	default:
		m.signal(terminate, Timeout)
	}
}

// watchdog ends a unit that has stopped to say WATCHDOG=1.
func (m *Machine) watchdog() {
	m.Rec.Message = "no WATCHDOG=1 in time"
	m.say("Watchdog timeout.")
	m.signal(StopWatchdog, Watchdog)
}
