// Package condition tells whether the Condition…= and Assert…= lines of a unit hold on this machine.
//
// The invariant: looking changes nothing. A kind that this package does not know never holds a unit back: it
// counts as true, and Known says so, so that a note can be given when the unit is loaded.
//
// Start reading at Check. Source of the meanings: systemd.unit(5), Conditions and Asserts.
package condition

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"flota/internal/service"
	"flota/internal/setting"
)

// Check gives the first condition that does not hold, as the line of the unit file, and whether it is an Assert.
// Empty means that the unit may start. Asserts come first: their failure is an error.
func Check(all []service.Condition) (unmet string, assert bool) {
	for _, assert := range []bool{true, false} {
		var triggers []string
		triggered := false
		for _, c := range all {
			if c.Assert != assert {
				continue
			}
			ok := holds(c) != c.Negate
			switch {
			case c.Trigger && ok:
				triggered = true
			case c.Trigger:
				triggers = append(triggers, line(c))
			case !ok:
				return line(c), assert
			}
		}
		if len(triggers) > 0 && !triggered {
			return strings.Join(triggers, " or "), assert
		}
	}
	return "", false
}

// Known reports whether conditions of that kind are looked at.
func Known(kind string) bool { return tests[kind] != nil }

// line prints a condition as in the unit file.
func line(c service.Condition) string {
	text := "Condition"
	if c.Assert {
		text = "Assert"
	}
	text += c.Kind + "="
	if c.Trigger {
		text += "|"
	}
	if c.Negate {
		text += "!"
	}
	return text + c.Value
}

// holds evaluates one condition without its negation.
func holds(c service.Condition) bool {
	test := tests[c.Kind]
	if test == nil {
		return !c.Negate // not known: never in the way
	}
	return test(c.Value)
}

// tests are the kinds that are looked at.
var tests = map[string]func(string) bool{
	"PathExists":         func(p string) bool { _, err := os.Stat(p); return err == nil },
	"PathExistsGlob":     func(p string) bool { m, _ := filepath.Glob(p); return len(m) > 0 },
	"PathIsDirectory":    func(p string) bool { i, err := os.Stat(p); return err == nil && i.IsDir() },
	"PathIsSymbolicLink": func(p string) bool { i, err := os.Lstat(p); return err == nil && i.Mode()&os.ModeSymlink != 0 },
	"PathIsReadWrite":    func(p string) bool { return unix.Access(p, unix.W_OK) == nil },
	"PathIsMountPoint":   mountPoint,
	"DirectoryNotEmpty":  func(p string) bool { l, err := os.ReadDir(p); return err == nil && len(l) > 0 },
	"FileNotEmpty":       func(p string) bool { i, err := os.Stat(p); return err == nil && i.Mode().IsRegular() && i.Size() > 0 },
	"FileIsExecutable": func(p string) bool {
		i, err := os.Stat(p)
		return err == nil && i.Mode().IsRegular() && i.Mode()&0o111 != 0
	},
	"Host":                   host,
	"Architecture":           architecture,
	"Virtualization":         virtualization,
	"KernelCommandLine":      kernelCommandLine,
	"Capability":             capability,
	"User":                   func(u string) bool { return u == "root" == (os.Getuid() == 0) || u == strconv.Itoa(os.Getuid()) },
	"ACPower":                func(v string) bool { want, err := setting.Bool(v); return err != nil || want == onPower() },
	"NeedsUpdate":            func(string) bool { return false },
	"FirstBoot":              func(v string) bool { want, err := setting.Bool(v); return err != nil || !want },
	"Environment":            environment,
	"ControlGroupController": func(v string) bool { return controllers(v) },
}

func mountPoint(p string) bool {
	var here, up unix.Stat_t
	return unix.Lstat(p, &here) == nil && unix.Lstat(filepath.Join(p, ".."), &up) == nil && (here.Dev != up.Dev || here.Ino == up.Ino)
}

func host(pattern string) bool {
	name, _ := os.Hostname()
	id, _ := os.ReadFile("/etc/machine-id")
	ok, _ := filepath.Match(pattern, name)
	return ok || pattern == strings.TrimSpace(string(id))
}

func architecture(v string) bool {
	names := map[string]string{"amd64": "x86-64", "386": "x86", "arm64": "arm64", "arm": "arm", "riscv64": "riscv64", "ppc64le": "ppc64-le", "s390x": "s390x"}
	return v == "native" || v == names[runtime.GOARCH]
}

// virtualization knows only whether this is a container: "container", "no" and "yes" are answered.
func virtualization(v string) bool {
	text, _ := os.ReadFile("/proc/1/environ")
	container := strings.Contains(string(text), "container=")
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	vm := strings.Contains(string(cpu), " hypervisor")
	if want, err := setting.Bool(v); err == nil {
		return want == (container || vm)
	}
	return v == "container" && container || v == "vm" && vm && !container
}

func kernelCommandLine(v string) bool {
	text, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(text)) {
		name, _, _ := strings.Cut(word, "=")
		if word == v || !strings.Contains(v, "=") && name == v {
			return true
		}
	}
	return false
}

// capability looks into the bounding set of this process.
func capability(v string) bool {
	n, ok := setting.CapNumber(v)
	if !ok {
		return false
	}
	set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
	return err == nil && set == 1
}

// onPower is true unless every mains supply says that it is off.
func onPower() bool {
	files, _ := filepath.Glob("/sys/class/power_supply/*/online")
	for _, f := range files {
		if text, _ := os.ReadFile(f); strings.TrimSpace(string(text)) == "1" {
			return true
		}
	}
	return len(files) == 0
}

func environment(v string) bool {
	name, want, full := strings.Cut(v, "=")
	got, ok := os.LookupEnv(name)
	return ok && (!full || got == want)
}

// controllers reports whether all the named cgroup controllers exist on this machine.
func controllers(v string) bool {
	text, _ := os.ReadFile("/proc/cgroups")
	for _, want := range strings.Fields(v) {
		found := want == "v2" || want == "v1"
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, "\t")
			found = found || name == want || want == "cpu" && name == "cpuacct"
		}
		if !found {
			return false
		}
	}
	return true
}
