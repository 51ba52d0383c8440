package child

// Spec is everything a new process needs to become one command of a unit. It is plain data, made by launch.Plan and
// carried to the helper as JSON; names were looked up and seccomp programs assembled before. The zero value of a field
// means "leave as inherited", where nothing else is said.
type Spec struct {
	Path string   `json:"path"` // absolute path of the program
	Args []string `json:"args"` // argv, the first included
	Env  []string `json:"env"`  // the whole environment, NAME=value

	Dir          string `json:"dir,omitempty"` // working directory; "" is /
	DirMissingOK bool   `json:"dirMissingOK,omitempty"`
	Umask        uint32 `json:"umask"` // always set, 0 means 0

	// CgroupProcs are the cgroup.procs files the process writes itself into before it loses its rights.
	CgroupProcs []string `json:"cgroupProcs,omitempty"`

	User *User `json:"user,omitempty"` // whom to become; nil stays who it is
	Caps *Caps `json:"caps,omitempty"` // nil leaves the capabilities to what changing the user does
	// SecureBits are set by prctl(PR_SET_SECUREBITS); 0 leaves them.
	SecureBits uint32 `json:"secureBits,omitempty"`
	NoNewPrivs bool   `json:"noNewPrivs,omitempty"`

	Rlimits     []Rlimit `json:"rlimits,omitempty"`
	OOMScoreAdj *int     `json:"oomScoreAdj,omitempty"` // -1000..1000
	Nice        *int     `json:"nice,omitempty"`        // -20..19
	Sched       *Sched   `json:"sched,omitempty"`
	IOPrio      *int     `json:"ioPrio,omitempty"` // class<<13 | level, as ioprio_set(2) takes it
	CPUs        []int    `json:"cpus,omitempty"`   // the processors it may run on; none means all

	// New namespaces. A mount plan needs NewMount.
	NewMount bool `json:"newMount,omitempty"`
	NewNet   bool `json:"newNet,omitempty"` // only a loopback interface, which is set up
	// JoinNet is the network namespace to enter instead of a new one: /proc/PID/ns/net of the unit's main process.
	JoinNet string `json:"joinNet,omitempty"`
	NewIPC  bool   `json:"newIPC,omitempty"`
	NewUTS  bool   `json:"newUTS,omitempty"`
	// NewUser maps only these ids of the host, to themselves; everything else shows as nobody.
	NewUser *UserMap `json:"newUser,omitempty"`
	Mounts  []Mount  `json:"mounts,omitempty"` // done in this order

	// Seccomp programs, installed last and in this order; each is an array of struct sock_filter in this machine's byte order.
	Seccomp [][]byte `json:"seccomp,omitempty"`

	// Keyring: "" inherits the session keyring, "private" makes a new one, "shared" links the user's own into it.
	Keyring string `json:"keyring,omitempty"`

	IgnoreSIGPIPE bool `json:"ignoreSIGPIPE,omitempty"` // all other signals start with their default action, none blocked

	Stdin  Stdio `json:"stdin"`
	Stdout Stdio `json:"stdout"`
	Stderr Stdio `json:"stderr"`

	// Gated: the helper waits for a byte on its gate before it does anything. Set by launch.Start alone.
	Gated bool `json:"gated,omitempty"`
}

// User is whom the process becomes, in numbers.
type User struct {
	UID    int   `json:"uid"`    // -1 keeps
	GID    int   `json:"gid"`    // -1 keeps
	Groups []int `json:"groups"` // supplementary groups, replacing the inherited ones
}

// Caps are capability sets, bit n being capability number n.
type Caps struct {
	Bounding uint64 `json:"bounding"` // what is not in it is dropped
	Ambient  uint64 `json:"ambient"`  // also put into inheritable and permitted
}

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// Rlimit is one setrlimit(2). A hard limit that may not be raised is clamped to what is allowed; launch.Plan tells beforehand.
type Rlimit struct {
	Resource int    `json:"resource"` // RLIMIT_* number
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// Sched is a sched_setscheduler(2).
type Sched struct {
	Policy      int  `json:"policy"`
	Priority    int  `json:"priority"`
	ResetOnFork bool `json:"resetOnFork,omitempty"`
}

// UserMap lists the host ids that exist in a new user namespace.
type UserMap struct {
	UIDs []int `json:"uids"`
	GIDs []int `json:"gids"`
}

// StdioKind says where a standard stream comes from or goes to.
type StdioKind string

// The kinds. Files are opened as the unit's user, as systemd does.
const (
	Null     StdioKind = ""         // /dev/null
	FD       StdioKind = "fd"       // a file that Start was given, by index
	File     StdioKind = "file"     // opened, neither appended nor truncated; created for writing
	Append   StdioKind = "append"   // opened for append, created
	Truncate StdioKind = "truncate" // opened truncated, created
	TTY      StdioKind = "tty"      // the terminal Path
	Data     StdioKind = "data"     // a file in memory that holds Data, for input
	Same     StdioKind = "same"     // stdout: as stdin; stderr: as stdout
)

// Stdio is one standard stream. The zero value is /dev/null.
type Stdio struct {
	Kind StdioKind `json:"kind,omitempty"`
	File int       `json:"file,omitempty"` // for FD: index into the files given to Start
	Path string    `json:"path,omitempty"` // for File, Append, Truncate, TTY
	Data []byte    `json:"data,omitempty"`
}

// MountKind is what one step of a mount plan does.
type MountKind string

// The steps of a mount plan.
const (
	Bind     MountKind = "bind"     // Source over Path, with what is mounted below it
	ReadOnly MountKind = "readonly" // Path and what is mounted below it becomes read-only, but for what a longer path says
	Writable MountKind = "writable" // a hole in what is read-only; what is read-only on the host stays so
	NoExec   MountKind = "noexec"   // like ReadOnly, for executing
	Exec     MountKind = "exec"     // a hole in what is noexec
	Tmpfs    MountKind = "tmpfs"
	Mask     MountKind = "mask"    // Path cannot be read: an empty inaccessible file or directory over it
	Devices  MountKind = "devices" // a new /dev with null, zero, full, random, urandom, tty, pts, shm, mqueue, log
	Proc     MountKind = "proc"    // a new procfs on Path, Data its options
)

// Mount is one step of a mount plan.
type Mount struct {
	Kind    MountKind `json:"kind"`
	Path    string    `json:"path"`
	Source  string    `json:"source,omitempty"`  // for Bind
	Data    string    `json:"data,omitempty"`    // options for Tmpfs and Proc
	Missing bool      `json:"missing,omitempty"` // do nothing when Path or Source does not exist
	Create  bool      `json:"create,omitempty"`  // make Path when it does not exist (Bind, Tmpfs)
	RO      bool      `json:"ro,omitempty"`      // read-only (Bind, Tmpfs)
	Shallow bool      `json:"shallow,omitempty"` // Bind without what is mounted below Source
}

// Failure tells which step before exec failed. It crosses the status pipe as JSON.
type Failure struct {
	Step    string `json:"step"` // systemd's word: CHDIR, EXEC, LIMITS, STDOUT, GROUP, USER, CAPABILITIES, NAMESPACE, SECCOMP, ...
	Code    int    `json:"code"` // systemd's exit code of that step, 200..245; the process exits with it
	Message string `json:"message"`
}

// Error reads "NAMESPACE: mount /x: no such file or directory".
func (f *Failure) Error() string { return f.Step + ": " + f.Message }
