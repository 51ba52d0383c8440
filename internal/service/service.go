// Package service gives what systemd 252 would read out of a .service unit, as typed values with systemd's
// defaults: commands, restart and stop rules, environment, identity, directories, limits, sandbox,
// conditions and dependencies.
//
// The invariant: for the keys in the table of this package, Parse agrees with systemd on the value, on the defaults, on
// what a repeated or an empty assignment does, on which bad values are skipped (a Note) and on which make the
// unit unusable (an error of kind fault.Invalid that names section and key).
//
// Pure values: it never looks at the host (the caller brings a Host), starts nothing and decides nothing about what can be
// honoured; Service.Keys and Class let a driver decide that.
//
// The room is above 2,000 lines because it is one flat table: a row per key of systemd and a field per value. Nothing in
// it is deep, and a part of the table elsewhere would have to be found first. The languages of the values are in room setting.
//
// Start reading at Service, then Parse, then the rows in keys_run.go; Class stands in keys.go.
package service

import (
	"syscall"
	"time"

	"flota/internal/setting"
	"flota/internal/unit"
)

// Service is one .service unit, read and checked. Make one with Parse; the zero value lacks systemd's defaults.
// Time spans without end are setting.Infinity, sizes without limit setting.Unlimited.
type Service struct {
	Name        unit.Name
	Description string // the unit's name when the file gives none
	Type        Type
	ExitType    string // main or cgroup; cgroup: active until the last process is gone
	BusName     string // Type=dbus: the name that means "started"

	ExecCondition []Command // run first; exit 1 to 254 skips the unit without failure
	ExecStartPre  []Command
	ExecStart     []Command // exactly one unless Type is oneshot; may be none with RemainAfterExit or SuccessAction
	ExecStartPost []Command
	ExecReload    []Command
	ExecStop      []Command
	ExecStopPost  []Command

	RemainAfterExit bool
	PIDFile         string // absolute, below Host.RuntimeDir when given relative; empty for none
	GuessMainPID    bool   // default yes
	NotifyAccess    NotifyAccess

	Restart      Restart
	RestartDelay time.Duration // default 100 ms
	StartLimit   StartLimit
	RestartForce setting.Exits // RestartForceExitStatus=
	RestartNever setting.Exits // RestartPreventExitStatus=; checked before RestartForce
	Success      setting.Exits // SuccessExitStatus=, beside exit 0 and the clean signals

	TimeoutStart  time.Duration // per start command and phase; default 90 s, oneshot Infinity
	TimeoutStop   time.Duration // per stop command and phase; default 90 s
	TimeoutAbort  time.Duration // of the watchdog's stop phase; TimeoutStop unless set
	StartFailMode string        // TimeoutStartFailureMode=: terminate, abort or kill
	StopFailMode  string        // TimeoutStopFailureMode=: terminate, abort or kill
	RuntimeMax    time.Duration // default Infinity
	Watchdog      time.Duration // 0 and Infinity: no watchdog
	OOMPolicy     string        // continue, stop or kill; default stop, continue with Delegate=

	Kill        Kill
	Env         Env
	Identity    Identity
	Dirs        Dirs
	IO          IO
	Limits      map[string]setting.Limit // by resource ("NOFILE"); only those that the file sets
	Resources   Resources
	Sandbox     Sandbox
	Conditions  []Condition // Condition*= and Assert*=, in the order of the file
	Deps        Deps
	Install     Install
	Flota       unit.Flota
	NonBlocking bool // NonBlocking=: passed file descriptors get O_NONBLOCK
	// SuccessAction and FailureAction are systemd's words for what the manager does after the unit ends; default none.
	SuccessAction, FailureAction string

	// Keys holds every known [Service] key that the file sets, by its own spelling (old names too), with the
	// number of assignments. A key whose every value was bad is in it too.
	Keys map[string]int
}

// Type is systemd's Type=. The zero value does not occur in a parsed Service.
type Type string

// The types. Simple is the default with ExecStart=, Oneshot without.
const (
	Simple  Type = "simple"
	Exec    Type = "exec"
	Forking Type = "forking"
	Oneshot Type = "oneshot"
	Notify  Type = "notify"
	DBus    Type = "dbus"
	Idle    Type = "idle"
)

// Restart is systemd's Restart=; the matrix of what restarts when stands in systemd.service(5).
type Restart string

// The restart rules. RestartNo is the default.
const (
	RestartNo         Restart = "no"
	RestartOnSuccess  Restart = "on-success"
	RestartOnFailure  Restart = "on-failure"
	RestartOnAbnormal Restart = "on-abnormal"
	RestartOnAbort    Restart = "on-abort"
	RestartOnWatchdog Restart = "on-watchdog"
	RestartAlways     Restart = "always"
)

// NotifyAccess says who may send status notifications.
type NotifyAccess string

// Whose notifications count. NotifyMain is the default for Type=notify and with WatchdogSec=, NotifyNone otherwise.
const (
	NotifyNone NotifyAccess = "none"
	NotifyMain NotifyAccess = "main" // the main process
	NotifyExec NotifyAccess = "exec" // any process started from an Exec line
	NotifyAll  NotifyAccess = "all"  // any process of the unit
)

// StartLimit stops a unit from being started more often than Burst times within Interval; systemd's default
// is 5 in 10 s. Interval 0 or Burst 0 turn it off.
type StartLimit struct {
	Interval time.Duration
	Burst    uint
	Action   string // StartLimitAction=; default none
}

// Kill says how processes are ended.
type Kill struct {
	Mode     KillMode
	Signal   syscall.Signal // KillSignal=, default SIGTERM
	Restart  syscall.Signal // RestartKillSignal=: used instead of Signal on a restart; Signal unless set
	Final    syscall.Signal // FinalKillSignal=, default SIGKILL
	Watchdog syscall.Signal // WatchdogSignal=, default SIGABRT
	SendHUP  bool           // SendSIGHUP=: SIGHUP right after Signal
	SendKILL bool           // SendSIGKILL=, default yes: send Final after the timeout
}

// KillMode says which processes are ended.
type KillMode string

// The kill modes. KillControlGroup is the default.
const (
	KillControlGroup KillMode = "control-group" // all of the unit
	KillMixed        KillMode = "mixed"         // Signal to the main process, Final to all
	KillProcess      KillMode = "process"       // the main process only
	KillNone         KillMode = "none"          // nobody
)

// Command is one command line of an Exec key, specifiers expanded, $VAR not yet substituted: see
// setting.Substitute.
type Command = setting.Command

// Privilege says how much of the unit's identity and sandbox applies to a command.
type Privilege = setting.Privilege

// The privileges, by the prefix of a command: none, + ! and !!.
const (
	PrivilegeUnit    = setting.PrivilegeUnit
	PrivilegeFull    = setting.PrivilegeFull
	PrivilegeUser    = setting.PrivilegeUser
	PrivilegeAmbient = setting.PrivilegeAmbient
)
