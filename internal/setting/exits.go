package setting

import (
	"slices"
	"strconv"
	"syscall"

	"flota/internal/fault"
)

// Exits is a set of ways for a process to end, as in SuccessExitStatus=. The zero value is empty.
type Exits struct {
	Codes   []int            `json:"codes,omitempty"`   // exit codes, 0 to 255, sorted
	Signals []syscall.Signal `json:"signals,omitempty"` // signals that ended it, sorted
}

// HasCode reports whether exiting with code is in the set.
func (e Exits) HasCode(code int) bool { return slices.Contains(e.Codes, code) }

// HasSignal reports whether being ended by sig is in the set.
func (e Exits) HasSignal(sig syscall.Signal) bool { return slices.Contains(e.Signals, sig) }

// Add puts one word into the set: 0 to 255, the name of an exit code (TEMPFAIL), or a signal name.
// Errors are fault.Invalid and leave the set as it was.
func (e *Exits) Add(word string) error {
	if code, err := ExitCode(word); err == nil {
		if at, found := slices.BinarySearch(e.Codes, code); !found {
			e.Codes = slices.Insert(slices.Clone(e.Codes), at, code)
		}
		return nil
	}
	if digits(word) == len(word) {
		return fault.New(fault.Invalid, "exit code %q is not in 0 to 255", word)
	}
	sig, err := Signal(word)
	if err != nil {
		return fault.New(fault.Invalid, "%q is neither an exit code nor a signal", word)
	}
	if at, found := slices.BinarySearch(e.Signals, sig); !found {
		e.Signals = slices.Insert(slices.Clone(e.Signals), at, sig)
	}
	return nil
}

// ExitCode reads an exit code: 0 to 255, or a name such as TEMPFAIL. Errors are fault.Invalid.
func ExitCode(s string) (int, error) {
	if code, ok := exitNames[s]; ok {
		return code, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%q is not an exit code", s)
	}
	return int(n), nil
}

// ExitName gives the name of an exit code (203 is EXEC), or "" when it has none.
func ExitName(code int) string {
	for name, c := range exitNames {
		if c == code {
			return name
		}
	}
	return ""
}

// exitNames are the exit codes that have a name. Source: `systemd-analyze exit-status` of systemd 252, which takes
// them from the C library, sysexits.h, LSB and systemd.exec(5).
var exitNames = map[string]int{
	"SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4, "NOTINSTALLED": 5,
	"NOTCONFIGURED": 6, "NOTRUNNING": 7, "USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "NOUSER": 67,
	"NOHOST": 68, "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71, "OSFILE": 72, "CANTCREAT": 73,
	"IOERR": 74, "TEMPFAIL": 75, "PROTOCOL": 76, "NOPERM": 77, "CONFIG": 78, "CHDIR": 200,
	"NICE": 201, "FDS": 202, "EXEC": 203, "MEMORY": 204, "LIMITS": 205, "OOM_ADJUST": 206,
	"SIGNAL_MASK": 207, "STDIN": 208, "STDOUT": 209, "CHROOT": 210, "IOPRIO": 211, "TIMERSLACK": 212,
	"SECUREBITS": 213, "SETSCHEDULER": 214, "CPUAFFINITY": 215, "GROUP": 216, "USER": 217, "CAPABILITIES": 218,
	"CGROUP": 219, "SETSID": 220, "CONFIRM": 221, "STDERR": 222, "PAM": 224, "NETWORK": 225,
	"NAMESPACE": 226, "NO_NEW_PRIVILEGES": 227, "SECCOMP": 228, "SELINUX_CONTEXT": 229, "PERSONALITY": 230, "APPARMOR": 231,
	"ADDRESS_FAMILIES": 232, "RUNTIME_DIRECTORY": 233, "CHOWN": 235, "SMACK_PROCESS_LABEL": 236, "KEYRING": 237, "STATE_DIRECTORY": 238,
	"CACHE_DIRECTORY": 239, "LOGS_DIRECTORY": 240, "CONFIGURATION_DIRECTORY": 241, "NUMA_POLICY": 242, "CREDENTIALS": 243, "BPF": 244,
	"EXCEPTION": 255,
}
