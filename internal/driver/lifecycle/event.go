package lifecycle

import (
	"strings"
	"syscall"
	"time"

	"flota/internal/service"
	"flota/internal/setting"
)

// Event is something that happened. The types below are all there are.
type Event any

// What is asked for.
type (
	// StartAsked asks for a run; a running unit is stopped first.
	StartAsked struct{ Run uint64 }
	// StopAsked asks for the end.
	StopAsked struct{}
	// ReloadAsked asks for a reload; the phase must be Running or Exited.
	ReloadAsked struct{}
	// ResetAsked forgets failure and start limit.
	ResetAsked struct{}
	// FenceOut tells that an exclusive unit may not live on.
	FenceOut struct{}
	// Lost tells that every process of the unit vanished with the machine.
	Lost struct{}
)

// What came of an Action.
type (
	// Tested answers Test. Unmet is the condition that did not hold, empty if all do. Fenced: the unit is exclusive, and
	// the fence has run out.
	Tested struct {
		Unmet  string
		Assert bool
		Fenced bool
	}
	// Spawned answers Run: the process exists.
	Spawned struct {
		Proc       Proc
		Invocation string
	}
	// SpawnFailed answers Run: there is no process. With Exit set it counts as a process that ended so at once
	// (203/EXEC), otherwise as Result.
	SpawnFailed struct {
		Result Result
		Why    string
		Exit   Exit
	}
	// Killed answers Kill: whether there is anything left whose end must be waited for.
	Killed struct{ Left bool }
	// Gone answers KillAll: nothing of the unit is left.
	Gone struct{}
	// PIDFile answers ReadPIDFile: the main process, or why there is none yet.
	PIDFile struct {
		Proc Proc
		Why  string
	}
	// Guessed answers GuessMain; a zero Proc is "cannot tell".
	Guessed struct{ Proc Proc }
)

// What processes and time do.
type (
	// Ended tells that the main or the control process is gone. Moved is the new main process that PIDFile= names by now.
	Ended struct {
		PID   int
		Exit  Exit
		Moved Proc
	}
	// Executed tells that the main process runs its program now (Type=exec).
	Executed struct{ PID int }
	// Emptied tells that no process of the unit is left.
	Emptied struct{}
	// Due tells that the moment of Record.Due has come.
	Due struct{}
	// Note is one message of sd_notify from a process that may send it.
	Note struct {
		Ready, Reloading, Stopping, Watchdog, WatchdogTrigger bool
		Main                                                  Proc // MAINPID=, checked; zero for none
		Status                                                *string
		Extend                                                time.Duration // EXTEND_TIMEOUT_USEC=
		Every                                                 time.Duration // WATCHDOG_USEC=
	}
)

// Action is something to do; the answer to it, if it has one, is handled before any other event.
type Action any

// The actions.
type (
	// Test checks the conditions of the unit file. Answer: Tested.
	Test struct{}
	// Run starts a command: CmdStart of all types but forking is the main process, else the control process. First
	// says that it begins a run: a new invocation, group and directories. Answer: Spawned or SpawnFailed.
	Run struct {
		Kind  Kind
		Index int
		Main  bool
		First bool
	}
	// Kill signals the main and the control process, with Group the whole unit. HUP sends SIGHUP after it. Answer: Killed.
	Kill struct {
		Signal     syscall.Signal
		Group, HUP bool
		Nobody     bool // KillMode=none
	}
	// KillControl ends a control process that took too long. No answer.
	KillControl struct{ Proc Proc }
	// KillAll ends every process of the unit by SIGKILL, whatever KillMode= says. Answer: Gone.
	KillAll struct{}
	// WaitEmpty asks to be told when no process is left (Emptied).
	WaitEmpty struct{}
	// ReadPIDFile reads PIDFile=. Answer: PIDFile. It is repeated while Record.WaitsFile is set.
	ReadPIDFile struct{}
	// GuessMain looks for the main process of a forking unit without a PID file. Answer: Guessed.
	GuessMain struct{}
	// Finish clears up after a run: PID file, runtime directories unless Keep (a restart follows).
	Finish struct{ Keep bool }
	// Say writes a line of stream flota into the unit's journal.
	Say struct{ Text string }
	// Reloaded answers those who asked for a reload; Why is empty on success.
	Reloaded struct{ Why string }
)

// Machine is one unit's record with the settings that it runs under. Left is the one question that it asks: is there any
// process of the unit now? Not safe for concurrent use.
type Machine struct {
	Rec  *Record
	Svc  *service.Service
	Left func() bool

	now      time.Time
	out      []Action
	starting uint64 // run whose conditions are being tested
	auto     bool   // that start is an automatic restart
	fresh    bool   // no command of this run has been started yet
}

// Handle changes the record as the event demands and gives what is to be done, in order.
func (m *Machine) Handle(now time.Time, ev Event) []Action {
	m.now, m.out = now, nil
	switch e := ev.(type) {
	case StartAsked:
		m.startAsked(e.Run)
	case StopAsked:
		m.stopAsked()
	case ReloadAsked:
		m.reload()
	case ResetAsked:
		m.reset()
	case FenceOut:
		m.fence()
	case Lost:
		m.lost()
	case Tested:
		m.tested(e)
	case Spawned:
		m.spawned(e)
	case SpawnFailed:
		m.spawnFailed(e)
	case Killed:
		m.killed(e.Left)
	case Gone:
		m.gone()
	case PIDFile:
		m.pidFile(e)
	case Guessed:
		m.guessed(e.Proc)
	case Ended:
		m.ended(e)
	case Executed:
		if m.Rec.Phase == Start && m.Svc.Type == service.Exec && e.PID == m.Rec.Main.PID {
			m.enterStartPost()
		}
	case Emptied:
		m.emptied()
	case Due:
		m.due()
	case Note:
		m.note(e)
	}
	return m.out
}

// do adds an action.
func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// say adds a journal line.
func (m *Machine) say(text string) { m.do(Say{text}) }

// enter changes the phase; limit arms its deadline, setting.Infinity or 0 for none.
func (m *Machine) enter(p Phase, limit time.Duration) {
	r := m.Rec
	if r.Phase == Reload && p != Reload {
		m.do(Reloaded{m.reloadWhy(p)})
	}
	if r.Phase.Active() != p.Active() {
		r.Since = m.now
	}
	r.Phase, r.Deadline, r.WaitsFile = p, time.Time{}, false
	if limit > 0 && limit < setting.Infinity {
		r.Deadline = m.now.Add(limit)
	}
	if a := p.Active(); a != "active" && a != "reloading" && p != StartPost {
		r.WatchdogAt = time.Time{}
	}
}

// fail keeps the first bad result of a run.
func (m *Machine) fail(f Result) {
	if m.Rec.Result == Success || m.Rec.Result == "" {
		m.Rec.Result = f
	}
}

// sig turns the number of a wait status into a signal.
func sig(n int) syscall.Signal { return syscall.Signal(n) }

// short gives a signal's name without SIG, as systemd prints it.
func short(n int) string { return strings.TrimPrefix(setting.SignalName(sig(n)), "SIG") }
