package launch

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"flota/internal/service"
)

// restrictions makes the programs of all keys that forbid some calls, one per architecture; none if no key is set. Source of what
// each key forbids: systemd.exec(5), Sandboxing.
func restrictions(b *service.Sandbox) [][]byte {
	var out [][]byte
	for _, m := range machines() {
		p := newProgram(m)
		before := p.n
		restrict(p, m, b)
		if p.n > before {
			out = append(out, p.end(retAllow))
		}
	}
	return out
}

// restrict writes the rules. The first that matches answers; no two keys give different errors to the same call.
func restrict(p *program, m machine, b *service.Sandbox) {
	r := rules{p, m}
	if b.Families.Set {
		r.families(b.Families)
	}
	if b.NamespacesSet {
		r.namespaces(b.Namespaces)
	}
	if b.RestrictRealtime {
		for _, fair := range []uint32{unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE} {
			r.args("sched_setscheduler", retAllow, equal(1, fair))
		}
		r.deny(syscall.EPERM, "sched_setscheduler", "sched_setattr")
	}
	if b.RestrictSUIDSGID {
		r.setID()
	}
	if b.LockPersonality {
		const native, query = 0, 0xffffffff
		r.args("personality", retAllow, equal(0, native))
		r.args("personality", retAllow, equal(0, query))
		r.deny(syscall.EPERM, "personality")
	}
	if b.NoWriteExec {
		r.writeExec()
	}
	groups := callGroups()
	for _, k := range []struct {
		on    bool
		calls []string
	}{
		{b.ProtectKernelTunables, []string{"_sysctl"}},
		{b.ProtectKernelModules, expand(groups, "@module")},
		{b.ProtectKernelLogs, []string{"syslog"}},
		{b.ProtectClock, expand(groups, "@clock")},
		{b.ProtectHostname, []string{"sethostname", "setdomainname"}},
		{b.PrivateDevices, expand(groups, "@raw-io")},
	} {
		if k.on {
			r.deny(syscall.EPERM, k.calls...)
		}
	}
}

// rules writes rules by the names of calls; names that the architecture lacks make none.
type rules struct {
	*program
	machine machine
}

func (r rules) args(call string, answer uint32, tests ...test) {
	if nr, ok := r.machine.numbers[call]; ok {
		r.whenArgs(nr, answer, tests...)
	}
}

func (r rules) deny(e syscall.Errno, calls ...string) {
	for _, c := range calls {
		if nr, ok := r.machine.numbers[c]; ok {
			r.when(nr, errno(e))
		}
	}
}

func equal(arg int, value uint32) test { return test{arg: arg, mask: 0xffffffff, value: value} }
func bits(arg int, set uint32) test    { return test{arg: arg, mask: set, value: set} }

// families answers socket(2) by its first argument. On 32-bit x86 socketcall(2) goes past it; systemd has the same gap
// and says to set SystemCallArchitectures=native.
func (r rules) families(f service.Filter) {
	var list []uint32
	for _, rule := range f.Rules {
		n, ok := familyNumbers[rule.Name]
		switch {
		case !ok:
		case rule.Remove:
			list = slices.DeleteFunc(list, func(x uint32) bool { return x == n })
		default:
			list = append(list, n)
		}
	}
	answer := retAllow
	if f.Deny {
		answer = errno(syscall.EAFNOSUPPORT)
	}
	for _, n := range list {
		r.args("socket", answer, equal(0, n))
	}
	if !f.Deny {
		r.deny(syscall.EAFNOSUPPORT, "socket")
	}
}

// namespaces forbids to make or enter namespaces of the kinds that are not listed.
func (r rules) namespaces(allowed []string) {
	forbidden := uint32(0)
	for name, flag := range namespaceFlags {
		if !slices.Contains(allowed, name) {
			forbidden |= flag
		}
	}
	for flag := uint32(1); flag != 0; flag <<= 1 {
		if forbidden&flag == 0 {
			continue
		}
		r.args("unshare", errno(syscall.EPERM), bits(0, flag))
		r.args("clone", errno(syscall.EPERM), bits(0, flag))
		r.args("setns", errno(syscall.EPERM), bits(1, flag))
	}
	if forbidden != 0 {
		r.args("setns", errno(syscall.EPERM), equal(1, 0)) // any kind
		r.deny(syscall.ENOSYS, "clone3")                   // its flags are out of sight; the C libraries fall back to clone
	}
}

// setID forbids to give a file the set-user-ID or set-group-ID bit.
func (r rules) setID() {
	for _, bit := range []uint32{unix.S_ISUID, unix.S_ISGID} {
		for call, arg := range map[string]int{
			"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "mkdir": 1, "mkdirat": 2, "mknod": 1, "mknodat": 2, "creat": 1,
		} {
			r.args(call, errno(syscall.EPERM), bits(arg, bit))
		}
		for call, arg := range map[string]int{"open": 1, "openat": 2} {
			for _, how := range []uint32{unix.O_CREAT, unix.O_TMPFILE &^ unix.O_DIRECTORY} {
				r.args(call, errno(syscall.EPERM), bits(arg, how), bits(arg+1, bit))
			}
		}
	}
	r.deny(syscall.ENOSYS, "openat2") // its mode is out of sight
}

// writeExec forbids memory that is written and executed.
func (r rules) writeExec() {
	const shmExec = 0o100000
	for _, call := range []string{"mmap", "mmap2"} {
		if call == "mmap" && r.machine.numbers["mmap2"] != 0 {
			r.deny(syscall.EPERM, "mmap") // the old call takes its arguments in memory
			continue
		}
		r.args(call, errno(syscall.EPERM), bits(2, unix.PROT_WRITE|unix.PROT_EXEC))
	}
	r.args("mprotect", errno(syscall.EPERM), bits(2, unix.PROT_EXEC))
	r.args("pkey_mprotect", errno(syscall.EPERM), bits(2, unix.PROT_EXEC))
	r.args("shmat", errno(syscall.EPERM), bits(2, shmExec))
}

// namespaceFlags are the kinds of RestrictNamespaces=.
var namespaceFlags = map[string]uint32{
	"cgroup": unix.CLONE_NEWCGROUP, "ipc": unix.CLONE_NEWIPC, "mnt": unix.CLONE_NEWNS, "net": unix.CLONE_NEWNET,
	"pid": unix.CLONE_NEWPID, "user": unix.CLONE_NEWUSER, "uts": unix.CLONE_NEWUTS,
}

// familyNumbers are the address families by name. Source: linux/socket.h.
var familyNumbers = map[string]uint32{
	"AF_UNIX": 1, "AF_LOCAL": 1, "AF_INET": 2, "AF_AX25": 3, "AF_IPX": 4, "AF_APPLETALK": 5, "AF_NETROM": 6, "AF_BRIDGE": 7,
	"AF_ATMPVC": 8, "AF_X25": 9, "AF_INET6": 10, "AF_ROSE": 11, "AF_DECnet": 12, "AF_NETBEUI": 13, "AF_SECURITY": 14,
	"AF_KEY": 15, "AF_NETLINK": 16, "AF_ROUTE": 16, "AF_PACKET": 17, "AF_ASH": 18, "AF_ECONET": 19, "AF_ATMSVC": 20,
	"AF_RDS": 21, "AF_SNA": 22, "AF_IRDA": 23, "AF_PPPOX": 24, "AF_WANPIPE": 25, "AF_LLC": 26, "AF_IB": 27, "AF_MPLS": 28,
	"AF_CAN": 29, "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_IUCV": 32, "AF_RXRPC": 33, "AF_ISDN": 34, "AF_PHONET": 35,
	"AF_IEEE802154": 36, "AF_CAIF": 37, "AF_ALG": 38, "AF_NFC": 39, "AF_VSOCK": 40, "AF_KCM": 41, "AF_QIPCRTR": 42,
	"AF_SMC": 43, "AF_XDP": 44, "AF_MCTP": 45,
}
