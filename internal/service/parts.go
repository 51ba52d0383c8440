package service

import (
	"time"

	"flota/internal/setting"
)

// Env is where a service's environment comes from, in rising order of weight: Pass, Set, Files, then Unset takes away.
type Env struct {
	Set   []string  // Environment=: "NAME=value", one per name, in order of first use
	Files []EnvFile // EnvironmentFile=, read just before each command, later files win
	Pass  []string  // PassEnvironment=: names taken over from the manager's environment
	Unset []string  // UnsetEnvironment=: "NAME", or "NAME=value" to unset only that value
}

// EnvFile is a file of assignments. Path is absolute and may hold glob characters.
type EnvFile struct {
	Path     string
	Optional bool // prefix -: no error when it is missing
}

// Identity is who a service runs as.
type Identity struct {
	User          string   // name or number; empty is the manager's user
	Group         string   // name or number; empty is the user's own group
	Supplementary []string // SupplementaryGroups=
	Dynamic       bool     // DynamicUser=
	UMask         uint32   // default 0022
	NoNewPrivs    bool     // NoNewPrivileges=
	Bounding      setting.Caps
	Ambient       setting.Caps
	// StartOnly is the old PermissionsStartOnly=: all commands but ExecStart run as if prefixed with !.
	StartOnly bool
}

// Dirs are the directories of a service.
type Dirs struct {
	Working         string // WorkingDirectory=, absolute; empty is /, "~" is the home of User
	WorkingOptional bool   // prefix -: no error when it is missing
	Root            string // RootDirectory=, absolute; empty is /
	// Below Host.RuntimeDir, StateDir, CacheDir, LogsDir and ConfigDir; made before each start.
	Runtime, State, Cache, Logs, Config DirSet
	RuntimePreserve                     string // RuntimeDirectoryPreserve=: no, yes or restart
}

// DirSet is the value of RuntimeDirectory= and its like.
type DirSet struct {
	Dirs []Dir
	Mode uint32 // default 0755
}

// Dir is one directory of a DirSet.
type Dir struct {
	Path  string   // relative to the set's base, clean
	Links []string // names relative to the base that are to be symbolic links to it
}

// IO says where the three standard streams go.
type IO struct {
	Input    Stream // StandardInput=: null, tty, tty-force, tty-fail, data, file, socket or fd; default null
	Output   Stream // StandardOutput=: as below; default inherit unless Input is tty or socket
	Error    Stream // StandardError=; default inherit (from Output)
	InData   []byte // StandardInputText= and StandardInputData=
	SyslogID string // SyslogIdentifier=
	TTY      string // TTYPath=, default /dev/console
	// IgnorePIPE is IgnoreSIGPIPE=, default yes.
	IgnorePIPE bool
}

// Stream is one standard stream. Kind is inherit, null, tty, journal, kmsg, journal+console, kmsg+console, file, append,
// truncate, socket or fd; Path belongs to file, append and truncate; Name is the file descriptor's for fd.
type Stream struct {
	Kind string
	Path string
	Name string
}

// Resources are the limits and shares of the cgroup, and of scheduling.
type Resources struct {
	MemoryMax, MemoryHigh, MemorySwapMax int64         // bytes; Unlimited unless set
	MemoryMin, MemoryLow                 int64         // bytes; 0 unless set
	TasksMax                             int64         // Host.DefaultTasks unless set
	CPUQuota                             float64       // percent of one core; 0 is no quota
	CPUQuotaPeriod                       time.Duration // default 100 ms
	CPUWeight, IOWeight                  int64         // 1 to 10000; 0 when not set
	CPUIdle                              bool          // CPUWeight=idle
	Delegate                             bool
	DelegateControllers                  []string // nil with Delegate: all of them
	Slice                                string   // Slice=; empty for the default

	Nice           int // -20 to 19
	NiceSet        bool
	OOMScoreAdjust int // -1000 to 1000
	OOMScoreSet    bool
	CPUPolicy      string // CPUSchedulingPolicy=: other, batch, idle, fifo or rr; empty when not set
	CPUPriority    int    // 0 to 99
	IOClass        string // IOSchedulingClass=: none, realtime, best-effort or idle; empty when not set
	IOPriority     int    // 0 to 7, default 4
	IOPrioritySet  bool
	CPUAffinity    []int // sorted; nil for all
}

// Condition is one Condition…= or Assert…= line.
type Condition struct {
	Kind    string // the key without Condition or Assert: PathExists, Capability, ...
	Assert  bool   // the unit fails when it does not hold; otherwise it is skipped
	Negate  bool   // prefix !
	Trigger bool   // prefix |: of all trigger conditions one must hold
	Value   string // specifiers expanded
}

// Deps are the dependencies on other units, by name. None of these lists can be reset by an empty value.
type Deps struct {
	After, Before                                              []string
	Wants, Requires, Requisite, BindsTo, Upholds               []string
	PartOf, Conflicts                                          []string
	OnFailure, OnSuccess                                       []string
	PropagatesReloadTo, ReloadPropagatedFrom, JoinsNamespaceOf []string
	RequiresMountsFor                                          []string // absolute paths
}

// Install is the [Install] section.
type Install struct {
	WantedBy, RequiredBy, Also, Alias []string
	DefaultInstance                   string
}
