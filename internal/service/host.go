package service

import (
	"cmp"
	"path"
	"strconv"
	"strings"

	"flota/internal/setting"
	"flota/internal/unit"
)

// Host holds what Parse must know of the machine and of the user that runs units: the values of specifiers, the base
// directories (others than the defaults when the supervisor is not root), and the wholes of percentages.
// Every field may be empty; DefaultHost gives root's directories.
type Host struct {
	MachineID, BootID                  string // 32 hex digits each: %m %b
	Hostname, PrettyHostname           string // %H %l, %q
	Kernel, Arch                       string // %v (uname -r), %a (x86-64, arm64, ...)
	OSID, OSVersionID, OSVariantID     string // of os-release: %o %w %W
	OSImageID, OSImageVersion, OSBuild string // of os-release: %M %A %B
	User, Group                        string // of the supervisor: %u %g
	UID, GID                           int    // %U %G
	Home, Shell                        string // %h %s
	RuntimeDir, StateDir               string // %t %S
	CacheDir, LogsDir, ConfigDir       string // %C %L %E
	TempDir, VarTempDir                string // %T %V
	UnitFile                           string // where the unit's text stands: %y, and %Y its directory
	MemBytes                           int64  // what MemoryMax=N% is a share of; 0: shares do not limit
	MaxTasks                           int64  // what TasksMax=N% is a share of; 0: shares do not limit
	DefaultTasks                       int64  // TasksMax without TasksMax=; 0 is setting.Unlimited
}

// DefaultHost gives root's directories and identity. Source: systemd.unit(5), Specifiers.
func DefaultHost() Host {
	return Host{
		User: "root", Group: "root", Home: "/root", Shell: "/bin/sh",
		RuntimeDir: "/run", StateDir: "/var/lib", CacheDir: "/var/cache", LogsDir: "/var/log", ConfigDir: "/etc",
		TempDir: "/tmp", VarTempDir: "/var/tmp",
	}
}

// Specifiers gives the values of all specifiers for a unit on this host.
func (h Host) Specifiers(name unit.Name) setting.Specifiers {
	values := h.values(name)
	return func(letter byte) (string, bool, error) {
		if v, ok, err := nameSpecifier(name, letter); ok || err != nil {
			return v, ok, err
		}
		v, ok := values[letter]
		return v, ok, nil
	}
}

// nameSpecifier gives the specifiers that come from the unit's name.
func nameSpecifier(name unit.Name, letter byte) (value string, ok bool, err error) {
	last := func(s string) string { return s[strings.LastIndexByte(s, '-')+1:] }
	switch letter {
	case 'n':
		return string(name), true, nil
	case 'N':
		return name.Base(), true, nil
	case 'p':
		return name.Prefix(), true, nil
	case 'i':
		return name.Instance(), true, nil
	case 'j':
		return last(name.Prefix()), true, nil
	case 'P':
		value, err = setting.UnescapeName(name.Prefix())
	case 'I':
		value, err = setting.UnescapeName(name.Instance())
	case 'J':
		value, err = setting.UnescapeName(last(name.Prefix()))
	case 'f':
		of := name.Prefix()
		if name.IsInstance() {
			of = name.Instance()
		}
		value, err = setting.UnescapePath(of)
	default:
		return "", false, nil
	}
	return value, err == nil, err
}

// values gives the specifiers that come from the host.
func (h Host) values(name unit.Name) map[byte]string {
	short, _, _ := strings.Cut(h.Hostname, ".")
	unitDir := ""
	if h.UnitFile != "" {
		unitDir = path.Dir(h.UnitFile)
	}
	return map[byte]string{
		'm': h.MachineID, 'b': h.BootID, 'H': h.Hostname, 'l': short, 'q': cmp.Or(h.PrettyHostname, short),
		'v': h.Kernel, 'a': h.Arch,
		'o': h.OSID, 'w': h.OSVersionID, 'W': h.OSVariantID, 'M': h.OSImageID, 'A': h.OSImageVersion, 'B': h.OSBuild,
		'u': h.User, 'U': strconv.Itoa(h.UID), 'g': h.Group, 'G': strconv.Itoa(h.GID), 'h': h.Home, 's': h.Shell,
		't': h.RuntimeDir, 'S': h.StateDir, 'C': h.CacheDir, 'L': h.LogsDir, 'E': h.ConfigDir,
		'T': h.TempDir, 'V': h.VarTempDir, 'd': path.Join(h.RuntimeDir, "credentials", string(name)),
		'y': h.UnitFile, 'Y': unitDir,
	}
}
