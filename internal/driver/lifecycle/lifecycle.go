// Package lifecycle decides what happens to a unit next: systemd's service state machine as values. An event and a
// record go in, a changed record and the things to do come out.
//
// The invariant: Machine.Handle depends on nothing but the record, the settings, the event and the time it is given, so a
// record read from disk by another process goes on exactly where it stopped. A unit has one main and one control process at most.
//
// It never starts or signals a process, reads a file or a clock: room supervise carries the actions out and
// brings back what came of them. The names of phases and results are systemd's (facts on units, section 3).
//
// Start reading at Record, then Machine.Handle, then start.go and stop.go.
package lifecycle

import (
	"fmt"
	"time"

	"flota/internal/service"
	"flota/internal/setting"
	"flota/internal/unit"
)

// Phase is where a unit is in its life; systemd's SubState.
type Phase string

// The phases, in the order in which a unit may pass through them.
const (
	Dead          Phase = "dead"
	Condition     Phase = "condition"
	StartPre      Phase = "start-pre"
	Start         Phase = "start"
	StartPost     Phase = "start-post"
	Running       Phase = "running"
	Exited        Phase = "exited"
	Reload        Phase = "reload"
	Stop          Phase = "stop"
	StopWatchdog  Phase = "stop-watchdog"
	StopSigterm   Phase = "stop-sigterm"
	StopSigkill   Phase = "stop-sigkill"
	StopPost      Phase = "stop-post"
	FinalWatchdog Phase = "final-watchdog"
	FinalSigterm  Phase = "final-sigterm"
	FinalSigkill  Phase = "final-sigkill"
	Failed        Phase = "failed"
	AutoRestart   Phase = "auto-restart"
)

// Active gives systemd's ActiveState of a phase.
func (p Phase) Active() string {
	switch p {
	case Condition, StartPre, Start, StartPost, AutoRestart:
		return "activating"
	case Running, Exited:
		return "active"
	case Reload:
		return "reloading"
	case Failed:
		return "failed"
	case Dead, "":
		return "inactive"
	}
	return "deactivating"
}

// Result is how a run ended; systemd's Result, and three of ours.
type Result string

// The results.
const (
	Success       Result = "success"
	Protocol      Result = "protocol"
	Timeout       Result = "timeout"
	ExitCode      Result = "exit-code"
	Signal        Result = "signal"
	CoreDump      Result = "core-dump"
	Watchdog      Result = "watchdog"
	StartLimitHit Result = "start-limit-hit"
	Resources     Result = "resources"
	OOMKill       Result = "oom-kill"
	ExecCondition Result = "exec-condition"
	Unmet         Result = "condition"         // a Condition…= did not hold
	Assertion     Result = "assert"            // an Assert…= did not hold
	Fenced        Result = "fenced"            // an exclusive unit whose fence ran out
	MachineGone   Result = "machine-restarted" // its processes vanished with the machine
)

// Proc is one process; Ticks is its start time as the kernel counts it, so that a reused PID is not taken for it.
type Proc struct {
	PID   int    `json:"pid,omitempty"`
	Ticks uint64 `json:"ticks,omitempty"`
}

// Exit is how a process ended. Unknown: it was not our child (an earlier supervisor's), so nobody can say.
type Exit struct {
	Code    int    `json:"code,omitempty"`
	Signal  int    `json:"signal,omitempty"` // 0 when it exited
	Core    bool   `json:"core,omitempty"`
	OOM     bool   `json:"oom,omitempty"` // the kernel killed it for want of memory
	Unknown bool   `json:"unknown,omitempty"`
	Why     string `json:"why,omitempty"` // of an end before the program began: which step failed
}

// Record is all that must survive the supervisor. It is on disk before and after each process is started.
type Record struct {
	Unit    unit.Name `json:"unit"`
	Run     uint64    `json:"run,omitempty"`     // last started
	Pending uint64    `json:"pending,omitempty"` // to be started when the stop is done
	Phase   Phase     `json:"phase"`
	Result  Result    `json:"result,omitempty"`
	Since   time.Time `json:"since"` // when Phase.Active last changed

	Main      Proc `json:"main,omitzero"`
	MainKnown bool `json:"mainKnown,omitempty"` // there is or was a main process; it is dead if Main is zero
	Control   Proc `json:"control,omitzero"`
	Command   Kind `json:"command,omitempty"` // list of the control process
	Index     int  `json:"index,omitempty"`   // in that list
	MainIndex int  `json:"mainIndex,omitempty"`

	Invocation string    `json:"invocation,omitempty"` // 32 hex digits, new with each start
	Deadline   time.Time `json:"deadline,omitzero"`    // of the phase
	WatchdogAt time.Time `json:"watchdogAt,omitzero"`
	// WatchdogEvery is what WATCHDOG_USEC= asked for; 0 is what the file says.
	WatchdogEvery time.Duration `json:"watchdogEvery,omitempty"`

	Forbid    bool        `json:"forbid,omitempty"` // a stop was asked for: no automatic restart
	Restarts  int         `json:"restarts,omitempty"`
	Starts    []time.Time `json:"starts,omitempty"` // within the start limit's interval
	LastExit  Exit        `json:"lastExit,omitzero"`
	Message   string      `json:"message,omitempty"`
	Status    string      `json:"status,omitempty"` // STATUS= of sd_notify
	Notified  string      `json:"notified,omitempty"`
	WaitsFile bool        `json:"waitsFile,omitempty"` // for PIDFile= to appear
	OOMBefore int         `json:"oomBefore,omitempty"` // the group's count of OOM kills when the run began
}

// Stored is a record on disk, with the boot of the machine that it belongs to.
type Stored struct {
	Record
	Boot string `json:"boot"`
}

// Kind names a list of commands.
type Kind string

// The lists of commands by what they are for.
const (
	CmdCondition Kind = "ExecCondition"
	CmdStartPre  Kind = "ExecStartPre"
	CmdStart     Kind = "ExecStart"
	CmdStartPost Kind = "ExecStartPost"
	CmdReload    Kind = "ExecReload"
	CmdStop      Kind = "ExecStop"
	CmdStopPost  Kind = "ExecStopPost"
)

// Commands gives a unit's list of that kind.
func Commands(s *service.Service, k Kind) []service.Command {
	switch k {
	case CmdCondition:
		return s.ExecCondition
	case CmdStartPre:
		return s.ExecStartPre
	case CmdStart:
		return s.ExecStart
	case CmdStartPost:
		return s.ExecStartPost
	case CmdReload:
		return s.ExecReload
	case CmdStop:
		return s.ExecStop
	case CmdStopPost:
		return s.ExecStopPost
	}
	return nil
}

// Resting reports whether nothing of the unit is under way: it is dead or failed.
func (r *Record) Resting() bool { return r.Phase == Dead || r.Phase == Failed || r.Phase == "" }

// Due gives the next moment at which time alone changes something; zero for none.
func (r *Record) Due() time.Time {
	if !r.WatchdogAt.IsZero() && (r.Deadline.IsZero() || r.WatchdogAt.Before(r.Deadline)) {
		return r.WatchdogAt
	}
	return r.Deadline
}

// Words tells an end in the words of State.Message: "exited with status 1 (exit-code)".
func (e Exit) Words() string {
	switch {
	case e.Unknown:
		return "ended; nobody saw its exit status, since the supervisor was replaced while it ran"
	case e.OOM:
		return "was killed for want of memory (oom-kill)"
	case e.Core:
		return "was killed by " + setting.SignalName(sig(e.Signal)) + " (core-dump)"
	case e.Signal != 0:
		return "was killed by " + setting.SignalName(sig(e.Signal)) + " (signal)"
	}
	text := "exited with status " + e.status()
	if e.Code != 0 {
		text += " (exit-code)"
	}
	if e.Why != "" {
		text += ": " + e.Why
	}
	return text
}

// Line tells an end as systemd's journal does: "code=exited, status=1/FAILURE".
func (e Exit) Line() string {
	switch {
	case e.Unknown:
		return "code=unknown"
	case e.Core:
		return "code=dumped, status=" + fmt.Sprint(e.Signal) + "/" + setting.SignalName(sig(e.Signal))[3:]
	case e.Signal != 0:
		return "code=killed, status=" + fmt.Sprint(e.Signal) + "/" + short(e.Signal)
	}
	if e.Why != "" {
		return "code=exited, status=" + e.status() + ": " + e.Why
	}
	return "code=exited, status=" + e.status()
}

// status gives the exit code with its name if it has one: "203/EXEC".
func (e Exit) status() string {
	if name := setting.ExitName(e.Code); name != "" && (e.Code >= 200 || e.Code == 0) {
		return fmt.Sprintf("%d/%s", e.Code, name)
	}
	return fmt.Sprint(e.Code)
}
