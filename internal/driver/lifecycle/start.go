package lifecycle

import (
	"fmt"
	"time"

	"flota/internal/service"
	"flota/internal/setting"
)

// startAsked begins a run, or stops the one before it.
func (m *Machine) startAsked(run uint64) {
	r := m.Rec
	switch {
	case r.Resting() || r.Phase == AutoRestart:
		m.begin(run, false)
	default:
		r.Pending = run
		m.stop()
	}
}

// begin asks for the conditions first.
func (m *Machine) begin(run uint64, auto bool) {
	m.starting, m.auto = run, auto
	m.Rec.Pending = 0
	m.do(Test{})
}

// tested goes on with begin: conditions, then start limit, then the first command.
func (m *Machine) tested(e Tested) {
	r := m.Rec
	if e.Fenced {
		m.vanish(Fenced, "not started: the fence has run out")
		return
	}
	r.Run, r.Forbid, r.Status, r.Notified = m.starting, false, "", ""
	if !m.auto {
		r.Restarts = 0
	}
	last := r.LastExit
	r.Main, r.Control, r.MainKnown, r.MainIndex = Proc{}, Proc{}, false, 0
	r.LastExit, r.WatchdogEvery = Exit{}, 0
	if e.Unmet != "" {
		r.Result, r.Message = Unmet, "not started: "+e.Unmet+" does not hold"
		p := Dead
		if e.Assert {
			r.Result, p = Assertion, Failed
		}
		m.say("Not started: " + e.Unmet + " does not hold.")
		m.enter(p, 0)
		return
	}
	if !m.withinLimit() {
		l := m.Svc.StartLimit
		r.Result = StartLimitHit
		r.Message = fmt.Sprintf("start-limit-hit: %d starts in %s", l.Burst, span(l.Interval))
		if r.LastExit = last; m.auto && last != (Exit{}) {
			r.Message += "; the last main process " + last.Words()
		}
		m.say(fmt.Sprintf("Start request repeated too quickly (%d starts in %s).", l.Burst, span(l.Interval)))
		m.do(Finish{})
		m.enter(Failed, 0)
		return
	}
	r.Result, r.Message, m.fresh = Success, "", true
	if len(m.Svc.ExecCondition) > 0 {
		m.control(Condition, CmdCondition, 0, m.Svc.TimeoutStart)
		return
	}
	m.enterStartPre()
}

// withinLimit counts this start against StartLimitBurst=.
func (m *Machine) withinLimit() bool {
	l, r := m.Svc.StartLimit, m.Rec
	if l.Interval <= 0 || l.Burst == 0 {
		r.Starts = nil
		return true
	}
	for len(r.Starts) > 0 && m.now.Sub(r.Starts[0]) >= l.Interval {
		r.Starts = r.Starts[1:]
	}
	if uint(len(r.Starts)) >= l.Burst {
		return false
	}
	r.Starts = append(r.Starts, m.now)
	return true
}

// control enters a phase that is one list of commands, at command i.
func (m *Machine) control(p Phase, k Kind, i int, limit time.Duration) {
	m.enter(p, limit)
	m.Rec.Command, m.Rec.Index = k, i
	if p.Active() == "activating" {
		m.Rec.Message = fmt.Sprintf("running %s= (%d of %d)", k, i+1, len(Commands(m.Svc, k)))
	}
	m.do(Run{Kind: k, Index: i, First: m.fresh})
	m.fresh = false
}

func (m *Machine) enterStartPre() {
	if len(m.Svc.ExecStartPre) > 0 {
		m.control(StartPre, CmdStartPre, 0, m.Svc.TimeoutStart)
		return
	}
	m.enterStart()
}

// enterStart starts the main process, or the one that forks it.
func (m *Machine) enterStart() {
	if len(m.Svc.ExecStart) == 0 {
		m.enterStartPost()
		return
	}
	if m.Svc.Type == service.Forking {
		m.control(Start, CmdStart, 0, m.Svc.TimeoutStart)
		m.Rec.Message = "starting: waiting for the first process to fork and end"
		return
	}
	m.mainCommand(0)
}

// mainCommand starts command i of ExecStart as the main process.
func (m *Machine) mainCommand(i int) {
	m.enter(Start, m.Svc.TimeoutStart)
	m.Rec.MainIndex = i
	m.do(Run{Kind: CmdStart, Index: i, Main: true, First: m.fresh})
	m.fresh = false
}

// spawned notes the process; a simple unit is started by that.
func (m *Machine) spawned(e Spawned) {
	r := m.Rec
	if e.Invocation != "" {
		r.Invocation = e.Invocation
	}
	if r.Phase != Start || m.Svc.Type == service.Forking {
		r.Control = e.Proc
		return
	}
	r.Main, r.MainKnown = e.Proc, true
	switch m.Svc.Type {
	case service.Simple, service.Idle:
		m.enterStartPost()
	case service.Notify:
		r.Message = "starting: waiting for READY=1"
	case service.Oneshot:
		r.Message = fmt.Sprintf("running ExecStart= (%d of %d)", r.MainIndex+1, len(m.Svc.ExecStart))
	default:
		r.Message = "starting"
	}
}

// spawnFailed ends the phase whose command could not even be started, or takes the exit status it would have had.
func (m *Machine) spawnFailed(e SpawnFailed) {
	if e.Exit != (Exit{}) {
		if m.Rec.Phase == Start && m.Svc.Type != service.Forking {
			m.Rec.MainKnown = true
			m.mainEnded(Ended{Exit: e.Exit})
		} else {
			m.controlEnded(e.Exit)
		}
		return
	}
	m.Rec.Message = e.Why
	m.say("Cannot start a process: " + e.Why + ".")
	switch m.Rec.Phase {
	case Condition, StartPre, Start, StartPost:
		m.signal(StopSigterm, e.Result)
	case Reload:
		m.reloadFailed(e.Why)
	case Stop:
		m.signal(StopSigterm, e.Result)
	case StopPost:
		m.signal(FinalSigterm, e.Result)
	}
}

func (m *Machine) enterStartPost() {
	m.petWatchdog()
	if len(m.Svc.ExecStartPost) > 0 {
		m.control(StartPost, CmdStartPost, 0, m.Svc.TimeoutStart)
		return
	}
	m.enterRunning(Success)
}

// petWatchdog arms the watchdog anew.
func (m *Machine) petWatchdog() {
	every := m.Svc.Watchdog
	if m.Rec.WatchdogEvery > 0 {
		every = m.Rec.WatchdogEvery
	}
	if every > 0 && every < setting.Infinity {
		m.Rec.WatchdogAt = m.now.Add(every)
	}
}

// enterRunning is where a unit goes when nothing of it is under way: it runs, is over, or has failed.
func (m *Machine) enterRunning(f Result) {
	r := m.Rec
	m.fail(f)
	was := r.Phase
	switch {
	case r.Result != Success:
		m.signal(StopSigterm, Success)
		return
	case m.good():
		if r.Notified == "stopping" {
			m.stopByNotify()
			return
		}
		m.enter(Running, m.Svc.RuntimeMax)
		r.Message = "running"
		if r.Notified == "reloading" {
			m.enter(Reload, m.Svc.TimeoutStart)
		}
		if r.Main.PID == 0 {
			m.do(WaitEmpty{})
		}
	case m.Svc.RemainAfterExit:
		m.enter(Exited, 0)
		r.Message = "done, and stays active (RemainAfterExit=)"
	default:
		if was == Start || was == StartPost {
			m.saidStarted()
		}
		m.enterStop(Success)
		return
	}
	if was == Start || was == StartPost || was == StartPre || was == Condition || was.Active() == "inactive" {
		m.saidStarted()
	}
}

// saidStarted tells the journal that the start is done.
func (m *Machine) saidStarted() {
	if m.Svc.Type == service.Oneshot {
		m.say("Finished.")
		return
	}
	m.say("Started.")
}

// good reports whether the unit runs: its main process does, or if it has none any of its processes.
func (m *Machine) good() bool {
	r := m.Rec
	switch {
	case r.Main.PID != 0:
		return true
	case r.MainKnown && m.Svc.ExitType != "cgroup", len(m.Svc.ExecStart) == 0:
		return false
	}
	return m.Left()
}

// pidFile takes the main process that the PID file names.
func (m *Machine) pidFile(e PIDFile) {
	r := m.Rec
	if e.Proc.PID == 0 {
		if r.Phase == Start || r.Phase == StartPost {
			r.Message = "starting: waiting for PIDFile=" + m.Svc.PIDFile + ": " + e.Why
			if !r.WaitsFile && !m.Left() {
				m.say("Giving up on PIDFile=" + m.Svc.PIDFile + ": " + e.Why + ".")
				m.signal(StopSigterm, Protocol)
				return
			}
			if !r.WaitsFile {
				r.WaitsFile = true
				m.do(WaitEmpty{})
			}
		}
		return
	}
	r.WaitsFile = false
	r.Main, r.MainKnown = e.Proc, true
	m.forked()
}

// guessed takes the main process of a forking unit without a PID file, if there is one candidate.
func (m *Machine) guessed(p Proc) {
	if p.PID != 0 {
		m.Rec.Main, m.Rec.MainKnown = p, true
	}
	m.forked()
}

// forked goes on when the main process of a forking unit is known as well as it can be.
func (m *Machine) forked() {
	switch m.Rec.Phase {
	case Start:
		m.enterStartPost()
	case StartPost, Reload:
		m.enterRunning(Success)
	}
}

// note obeys a message of sd_notify.
func (m *Machine) note(n Note) {
	r := m.Rec
	if n.Status != nil {
		r.Status = *n.Status
	}
	if n.Main.PID != 0 && n.Main != r.Main && !r.Resting() {
		r.Main, r.MainKnown = n.Main, true
	}
	if n.Extend > 0 && !r.Deadline.IsZero() && m.now.Add(n.Extend).After(r.Deadline) {
		r.Deadline = m.now.Add(n.Extend)
	}
	if n.Every > 0 {
		r.WatchdogEvery = n.Every
	}
	if (n.Watchdog || n.Every > 0) && (!r.WatchdogAt.IsZero() || r.Phase == Running) {
		m.petWatchdog()
	}
	if n.WatchdogTrigger && r.Phase.Active() == "active" {
		m.watchdog()
		return
	}
	switch {
	case n.Stopping:
		r.Notified = "stopping"
		if r.Phase == Running {
			m.stopByNotify()
		}
	case n.Ready:
		r.Notified = "ready"
		if r.Phase == Start && m.Svc.Type == service.Notify {
			m.enterStartPost()
		} else if r.Phase == Reload && r.Control.PID == 0 {
			m.enterRunning(Success)
		}
	case n.Reloading:
		r.Notified = "reloading"
		if r.Phase == Running {
			m.enter(Reload, m.Svc.TimeoutStart)
		}
	}
}

// reload runs ExecReload=.
func (m *Machine) reload() {
	if (m.Rec.Phase == Running || m.Rec.Phase == Exited) && len(m.Svc.ExecReload) > 0 {
		m.say("Reloading.")
		m.control(Reload, CmdReload, 0, m.Svc.TimeoutStart)
	}
}

// reset forgets a failure.
func (m *Machine) reset() {
	r := m.Rec
	r.Starts = nil
	if r.Phase == Failed {
		r.Result, r.Message, r.LastExit = "", "", Exit{}
		m.enter(Dead, 0)
	}
}

// span prints a duration as people write it: "10 s", "100ms", "1m30s".
func span(d time.Duration) string {
	if d >= time.Second && d < time.Minute && d%time.Second == 0 {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return d.String()
}
