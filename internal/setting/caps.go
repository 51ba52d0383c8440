package setting

import (
	"strconv"
	"strings"
)

// Caps is a set of Linux capabilities, one bit each by the kernel's numbers. The zero value is empty.
type Caps uint64

// capNames by number. Source: linux/capability.h, Linux 5.9 and later.
var capNames = []string{
	"cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill", "cap_setgid",
	"cap_setuid", "cap_setpcap", "cap_linux_immutable", "cap_net_bind_service", "cap_net_broadcast", "cap_net_admin",
	"cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module", "cap_sys_rawio", "cap_sys_chroot",
	"cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource",
	"cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease", "cap_audit_write", "cap_audit_control",
	"cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_block_suspend",
	"cap_audit_read", "cap_perfmon", "cap_bpf", "cap_checkpoint_restore",
}

// maxCap is the highest number that a capability may be given by. Source: systemd 252 takes 0 to 62.
const maxCap = 62

// AllCaps has every capability that has a name. A kernel may know fewer or more.
const AllCaps Caps = 1<<41 - 1

// Has reports whether the capability of that number is in the set.
func (c Caps) Has(number int) bool { return number >= 0 && number < 64 && c>>number&1 == 1 }

// String gives the names in the order of their numbers, separated by blanks.
func (c Caps) String() string {
	var names []string
	for n, name := range capNames {
		if c.Has(n) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// CapNumber gives the number of a capability by name in any case ("CAP_KILL") or by number.
func CapNumber(s string) (n int, ok bool) {
	for n, name := range capNames {
		if strings.EqualFold(name, s) {
			return n, true
		}
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n <= maxCap
}

// MergeCaps applies one assignment to a set that began as initial: a list is added, "~list" is taken away; the first
// assignment replaces initial (a list) or is taken from all (~list), and so does a list without any known
// capability. Unknown names are skipped and given back, so that the caller can tell of them.
func MergeCaps(now, initial Caps, s string) (c Caps, unknown []string) {
	list, invert := strings.CutPrefix(s, "~")
	words, err := PlainWords(list)
	if err != nil {
		return now, []string{s}
	}
	var sum Caps
	for _, w := range words {
		if n, ok := CapNumber(w); ok {
			sum |= 1 << n
		} else {
			unknown = append(unknown, w)
		}
	}
	switch {
	case (sum == 0 || now == initial) && invert:
		return AllCaps &^ sum, unknown
	case sum == 0 || now == initial:
		return sum, unknown
	case invert:
		return now &^ sum, unknown
	}
	return now | sum, unknown
}
