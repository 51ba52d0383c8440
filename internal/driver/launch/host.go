package launch

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is what this machine and this process can do for units. Make one with LookHost.
type Host struct {
	Root        bool           // effective user 0 with the right to make mounts
	Caps        uint64         // the capabilities that units can get: this process' permitted set
	HardLimits  map[int]uint64 // this process' hard limits by RLIMIT_ number
	OOMFloor    int            // the lowest OOM score adjustment without CAP_SYS_RESOURCE
	Seccomp     bool           // filters can be made and installed
	UserNS      bool           // user namespaces can be made
	ProcOptions bool           // procfs takes hidepid= and subset= per mount (Linux 5.8)
}

// can reports whether units can be given what needs the capability.
func (h Host) can(number int) bool { return h.Caps>>number&1 == 1 }

// LookHost finds out what this machine can do. It reads a few files of /proc and changes nothing.
func LookHost() Host {
	const sysAdmin = 21
	h := Host{HardLimits: map[int]uint64{}}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); key {
		case "CapPrm":
			h.Caps, _ = strconv.ParseUint(value, 16, 64)
		case "Seccomp":
			h.Seccomp = len(machines()) > 0 // the line is there if the kernel can
		}
	}
	h.Root = os.Geteuid() == 0 && h.can(sysAdmin)
	for n := range 16 {
		var l unix.Rlimit
		if unix.Getrlimit(n, &l) == nil {
			h.HardLimits[n] = l.Max
		}
	}
	score, _ := os.ReadFile("/proc/self/oom_score_adj")
	h.OOMFloor, _ = strconv.Atoi(strings.TrimSpace(string(score)))
	most, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	h.UserNS = err == nil && strings.TrimSpace(string(most)) != "0"
	h.ProcOptions = kernelAtLeast(5, 8)
	return h
}

func kernelAtLeast(major, minor int) bool {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return false
	}
	release := make([]byte, 0, len(u.Release))
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	parts := strings.FieldsFunc(string(release), func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}

// Honoured tells for each [Service] key that launching is about whether it is honoured here. A key that is not in the
// map is somebody else's: the life cycle's or the control group's.
func (h Host) Honoured() map[string]bool {
	out := map[string]bool{}
	for _, k := range []struct {
		here bool
		keys string
	}{
		{true, `UMask WorkingDirectory NoNewPrivileges OOMScoreAdjust Nice CPUSchedulingPolicy CPUSchedulingPriority CPUAffinity
			IOSchedulingClass IOSchedulingPriority LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE
			LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS LimitSIGPENDING LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME
			StandardInput StandardOutput StandardError StandardInputText StandardInputData TTYPath IgnoreSIGPIPE KeyringMode
			SyslogIdentifier`},
		{h.Root, `User Group SupplementaryGroups DynamicUser PermissionsStartOnly CapabilityBoundingSet AmbientCapabilities
			PrivateTmp PrivateDevices PrivateNetwork PrivateIPC PrivateMounts MountFlags ProtectSystem ProtectHome
			ProtectControlGroups ReadWritePaths ReadWriteDirectories ReadOnlyPaths ReadOnlyDirectories
			InaccessiblePaths InaccessibleDirectories ExecPaths NoExecPaths BindPaths BindReadOnlyPaths TemporaryFileSystem
			ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectClock ProtectHostname RemoveIPC`},
		{h.Root && h.UserNS, "PrivateUsers"},
		{h.Root && h.ProcOptions, "ProtectProc ProcSubset"},
		{h.Seccomp, `RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID LockPersonality
			MemoryDenyWriteExecute SystemCallFilter SystemCallErrorNumber SystemCallArchitectures`},
		{false, `RootDirectory DevicePolicy DeviceAllow IPAddressAllow IPAddressDeny AppArmorProfile RestrictFileSystems`},
	} {
		for _, key := range strings.Fields(k.keys) {
			out[key] = k.here
		}
	}
	return out
}
