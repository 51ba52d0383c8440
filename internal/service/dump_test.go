package service

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"flota/internal/setting"
)

// dump prints a service as the dump of `systemd-analyze verify` does, for the keys that the golden cases look at.
func dump(s Service) []string {
	var d dumper
	d.line("Description: %s", s.Description)
	d.line("Inactive Exit Timestamp: n/a")
	d.line("Active Exit Timestamp: n/a")
	d.line("Type: %s", s.Type)
	d.line("Restart: %s", s.Restart)
	d.line("NotifyAccess: %s", s.NotifyAccess)
	d.line("RemainAfterExit: %s", yes(s.RemainAfterExit))
	d.line("GuessMainPID: %s", yes(s.GuessMainPID))
	d.line("OOMPolicy: %s", s.OOMPolicy)
	if s.PIDFile != "" {
		d.line("PIDFile: %s", s.PIDFile)
	}
	restart := s.RestartDelay // printed in whole seconds from one second on
	if restart != setting.Infinity && restart > time.Second {
		restart = restart.Truncate(time.Second)
	}
	d.line("RestartSec: %s", setting.PrintSpan(restart))
	d.line("TimeoutStartSec: %s", setting.PrintSpan(s.TimeoutStart))
	d.line("TimeoutStopSec: %s", setting.PrintSpan(s.TimeoutStop))
	if s.TimeoutAbort != s.TimeoutStop {
		d.line("TimeoutAbortSec: %s", setting.PrintSpan(s.TimeoutAbort))
	}
	d.line("RuntimeMaxSec: %s", setting.PrintSpan(s.RuntimeMax))
	d.line("WatchdogSec: %s", setting.PrintSpan(s.Watchdog))
	d.line("TimeoutStartFailureMode: %s", s.StartFailMode)
	d.line("TimeoutStopFailureMode: %s", s.StopFailMode)
	d.line("KillMode: %s", s.Kill.Mode)
	d.line("KillSignal: %s", setting.SignalName(s.Kill.Signal))
	d.line("RestartKillSignal: %s", setting.SignalName(s.Kill.Restart))
	final := setting.SignalName(s.Kill.Final)
	if s.Kill.Final == 32 {
		final = "SIG32" // has no name that could be read
	}
	d.line("FinalKillSignal: %s", final)
	d.line("SendSIGKILL: %s", yes(s.Kill.SendKILL))
	d.line("SendSIGHUP: %s", yes(s.Kill.SendHUP))
	d.context(s)
	d.sandbox(s)
	for _, list := range [][]Command{s.ExecCondition, s.ExecStartPre, s.ExecStart, s.ExecStartPost, s.ExecReload, s.ExecStop, s.ExecStopPost} {
		for _, c := range list {
			var words []string
			for _, w := range c.Argv {
				words = append(words, quote(w))
			}
			d.line("Command Line: %s", strings.Join(words, " "))
		}
	}
	return d.lines
}

type dumper struct{ lines []string }

func (d *dumper) line(format string, args ...any) {
	first, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	d.lines = append(d.lines, strings.TrimSpace(first))
}

func (d *dumper) context(s Service) {
	d.line("UMask: %04o", s.Identity.UMask)
	wd := s.Dirs.Working
	if wd == "" || wd == "~" {
		wd = "/"
	}
	d.line("WorkingDirectory: %s", wd)
	root := s.Dirs.Root
	if root == "" {
		root = "/"
	}
	d.line("RootDirectory: %s", root)
	d.line("PrivateTmp: %s", yes(s.Sandbox.PrivateTmp))
	d.line("PrivateDevices: %s", yes(s.Sandbox.PrivateDevices))
	d.line("ProtectHome: %s", orNo(s.Sandbox.ProtectHome))
	d.line("ProtectSystem: %s", orNo(s.Sandbox.ProtectSystem))
	d.line("IgnoreSIGPIPE: %s", yes(s.IO.IgnorePIPE))
	for _, e := range s.Env.Set {
		d.line("Environment: %s", e)
	}
	for _, f := range s.Env.Files {
		dash := ""
		if f.Optional {
			dash = "-"
		}
		d.line("EnvironmentFile: %s%s", dash, f.Path)
	}
	for _, e := range s.Env.Pass {
		d.line("PassEnvironment: %s", e)
	}
	for _, e := range s.Env.Unset {
		d.line("UnsetEnvironment: %s", e)
	}
	d.line("RuntimeDirectoryPreserve: %s", s.Dirs.RuntimePreserve)
	for _, set := range []struct {
		name string
		DirSet
	}{{"Runtime", s.Dirs.Runtime}, {"State", s.Dirs.State}, {"Cache", s.Dirs.Cache}, {"Logs", s.Dirs.Logs}, {"Configuration", s.Dirs.Config}} {
		d.line("%sDirectoryMode: %04o", set.name, set.Mode)
		for _, dir := range set.Dirs {
			d.line("%sDirectory: %s", set.name, dir.Path)
			for _, link := range dir.Links {
				d.line("%sDirectorySymlink: %s:%s", set.name, dir.Path, link)
			}
		}
	}
	if s.Resources.NiceSet {
		d.line("Nice: %d", s.Resources.Nice)
	}
	if s.Resources.OOMScoreSet {
		d.line("OOMScoreAdjust: %d", s.Resources.OOMScoreAdjust)
	}
	for _, name := range strings.Fields("CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME") {
		if l, ok := s.Limits[name]; ok {
			d.line("Limit%s: %d", name, l.Hard)
			d.line("Limit%sSoft: %d", name, l.Soft)
		}
	}
	d.line("StandardInput: %s", s.IO.Input.Kind)
	d.stream("StandardOutput", s.IO.Output)
	d.stream("StandardError", s.IO.Error)
	if s.Identity.Bounding != setting.AllCaps {
		d.line("CapabilityBoundingSet: %s", s.Identity.Bounding)
	}
	if s.Identity.Ambient != 0 {
		d.line("AmbientCapabilities: %s", s.Identity.Ambient)
	}
	if s.Identity.User != "" {
		d.line("User: %s", s.Identity.User)
	}
	if s.Identity.Group != "" {
		d.line("Group: %s", s.Identity.Group)
	}
	d.line("DynamicUser: %s", yes(s.Identity.Dynamic))
}

func (d *dumper) sandbox(s Service) {
	for _, list := range []struct {
		name  string
		rules []PathRule
	}{{"ReadWritePaths", s.Sandbox.ReadWrite}, {"ReadOnlyPaths", s.Sandbox.ReadOnly}, {"InaccessiblePaths", s.Sandbox.Inaccessible}, {"ExecPaths", s.Sandbox.Exec}, {"NoExecPaths", s.Sandbox.NoExec}} {
		var words []string
		for _, r := range list.rules {
			w := r.Path
			if r.InRoot {
				w = "+" + w
			}
			if r.Optional {
				w = "-" + w
			}
			words = append(words, w)
		}
		if words != nil {
			d.line("%s: %s", list.name, strings.Join(words, " "))
		}
	}
	for _, b := range s.Sandbox.Binds {
		name, dash, option := "BindPaths", "", "rbind"
		if b.ReadOnly {
			name = "BindReadOnlyPaths"
		}
		if b.Optional {
			dash = "-"
		}
		if b.Single {
			option = "norbind"
		}
		d.line("%s: %s%s:%s:%s", name, dash, b.Source, b.Dest, option)
	}
	for _, t := range s.Sandbox.Tmpfs {
		d.line("TemporaryFileSystem: %s", strings.TrimSuffix(t.Path+":"+t.Options, ":"))
	}
	if s.Sandbox.NamespacesSet {
		kinds := strings.Join(s.Sandbox.Namespaces, " ")
		if kinds == "" {
			kinds = "n/a"
		}
		d.line("RestrictNamespaces: %s", kinds)
	}
	errno := s.Sandbox.SystemCallErrno
	if errno == "" {
		errno = "kill"
	}
	d.line("SystemCallErrorNumber: %s", errno)
	r := s.Resources
	d.line("CPUWeight: %s", weightText(r.CPUWeight, r.CPUIdle))
	d.line("IOWeight: %s", weightText(r.IOWeight, false))
	quota := setting.Infinity
	if r.CPUQuota > 0 {
		quota = time.Duration(r.CPUQuota * float64(10*time.Millisecond))
	}
	d.line("CPUQuotaPerSecSec: %s", setting.PrintSpan(quota))
	d.line("MemoryMin: %s", bytesText(r.MemoryMin))
	d.line("MemoryLow: %s", bytesText(r.MemoryLow))
	d.line("MemoryHigh: %s", bytesText(r.MemoryHigh))
	d.line("MemoryMax: %s", bytesText(r.MemoryMax))
	d.line("MemorySwapMax: %s", bytesText(r.MemorySwapMax))
	d.line("TasksMax: %s", bytesText(r.TasksMax))
	d.line("DevicePolicy: %s", s.Sandbox.DevicePolicy)
	d.line("Delegate: %s", yes(r.Delegate))
	for _, v := range slices.Backward(s.Sandbox.Devices) { // systemd keeps them in reverse
		rights := ""
		for _, r := range []struct {
			on     bool
			letter string
		}{{v.Read, "r"}, {v.Write, "w"}, {v.Mknod, "m"}} {
			if r.on {
				rights += r.letter
			}
		}
		d.line("DeviceAllow: %s %s", v.Name, rights)
	}
}

func (d *dumper) stream(name string, s Stream) {
	d.line("%s: %s", name, s.Kind)
	switch s.Kind {
	case "file":
		d.line("%sFile: %s", name, s.Path)
	case "append":
		d.line("%sFileToAppend: %s", name, s.Path)
	case "truncate":
		d.line("%sFileToTruncate: %s", name, s.Path)
	case "fd":
		d.line("%sFileDescriptorName: %s", name, s.Name)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orNo(s string) string {
	if s == "" {
		return "no"
	}
	return s
}

const none = "18446744073709551615" // systemd's "infinity" and "not set"

func bytesText(n int64) string {
	if n == setting.Unlimited {
		return none
	}
	return strconv.FormatInt(n, 10)
}

func weightText(n int64, idle bool) string {
	if n == 0 && !idle {
		return none
	}
	return strconv.FormatInt(n, 10)
}

// quote prints a word as systemd's dump does: in double quotes if a shell would make something of it.
func quote(w string) string {
	control := strings.ContainsFunc(w, func(r rune) bool { return r < ' ' }) || !utf8.ValidString(w)
	if w != "" && !control && !strings.ContainsAny(w, " \"\\`$*?['()<>|&;!") {
		return w
	}
	var b strings.Builder
	for _, c := range []byte(w) {
		switch {
		case c >= '\a' && c <= '\r':
			b.WriteByte('\\')
			b.WriteByte("abtnvfr"[c-'\a'])
		case c < ' ' || c >= 0x7f && !utf8.ValidString(w):
			fmt.Fprintf(&b, "\\%03o", c)
		case strings.IndexByte("\"\\`$", c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}
