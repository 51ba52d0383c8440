package service

// Sandbox holds what a service may not do or see. The zero value restricts nothing.
type Sandbox struct {
	PrivateTmp, PrivateDevices, PrivateNetwork, PrivateUsers, PrivateIPC, PrivateMounts bool

	ProtectSystem string // "", yes, full or strict
	ProtectHome   string // "", yes, read-only or tmpfs
	ProtectProc   string // "", noaccess, invisible or ptraceable; "" is default
	ProcSubset    string // "" (all) or pid

	ProtectControlGroups, ProtectKernelTunables, ProtectKernelModules bool
	ProtectKernelLogs, ProtectClock, ProtectHostname                  bool

	ReadWrite, ReadOnly, Inaccessible []PathRule // ReadWritePaths= and its like, old names too
	Exec, NoExec                      []PathRule // ExecPaths=, NoExecPaths=
	Binds                             []Bind     // BindPaths= and BindReadOnlyPaths=, in order
	Tmpfs                             []Tmpfs    // TemporaryFileSystem=
	MountFlags                        string     // MountFlags=: "", shared, slave or private

	Families           Filter   // RestrictAddressFamilies=, names such as AF_INET
	NamespacesSet      bool     // RestrictNamespaces= is set to something else than no
	Namespaces         []string // kinds that stay allowed (cgroup ipc net mnt pid user uts) when NamespacesSet
	RestrictRealtime   bool
	RestrictSUIDSGID   bool
	LockPersonality    bool
	NoWriteExec        bool     // MemoryDenyWriteExecute=
	SystemCalls        Filter   // SystemCallFilter=; names and @groups, each may carry ":ERRNO"
	SystemCallErrno    string   // SystemCallErrorNumber=: a name (EPERM), a number, or kill; "" is kill
	SystemCallArchs    []string // SystemCallArchitectures=: native, x86-64, ...
	RemoveIPC          bool
	DevicePolicy       string // auto, closed or strict
	Devices            []Device
	IPAllow, IPDeny    []string // IPAddressAllow=, IPAddressDeny=: prefixes, any, localhost, link-local, multicast
	AppArmor           string   // AppArmorProfile=; a leading - is kept
	KeyringMode        string   // inherit, private or shared; default private
	RestrictFileSystem Filter   // RestrictFileSystems=
}

// PathRule is one path of ReadOnlyPaths= and its like.
type PathRule struct {
	Path     string // absolute
	Optional bool   // prefix -: no error when it is missing
	InRoot   bool   // prefix +: relative to RootDirectory=
}

// Bind is one bind mount.
type Bind struct {
	Source, Dest string // absolute
	Optional     bool   // prefix -: no error when Source is missing
	ReadOnly     bool
	Single       bool // option norbind: without the mounts below Source
}

// Tmpfs is one temporary file system.
type Tmpfs struct {
	Path    string // absolute
	Options string // as for mount(8); may be empty
}

// Device is one line of DeviceAllow=.
type Device struct {
	Name               string // a path below /dev, char-NAME, block-NAME or a glob of these
	Read, Write, Mknod bool
}

// Filter is an allow list or a deny list that later assignments extend. The first assignment decides which
// it is; Rules are to be applied in order to a set that starts empty: the result is what is allowed,
// or, with Deny, what is denied. Groups (@network) are expanded by whoever applies the rules.
type Filter struct {
	Set   bool // false: no filter at all
	Deny  bool
	Rules []FilterRule
}

// FilterRule adds Name to the set, or takes it away.
type FilterRule struct {
	Name   string
	Remove bool
}
