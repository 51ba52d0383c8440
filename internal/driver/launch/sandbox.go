package launch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"flota/internal/driver/launch/child"
	"flota/internal/service"
)

// sandbox sets namespaces, mounts and filters. Keys that Host.Honoured denies are left out; the driver notes them.
func (p *planner) sandbox() {
	b, h := &p.s.Sandbox, p.c.Host
	if h.Root {
		p.NewNet, p.NewIPC, p.NewUTS = b.PrivateNetwork, b.PrivateIPC, b.ProtectHostname
		if b.PrivateNetwork && p.c.MainPID > 0 {
			p.JoinNet = fmt.Sprintf("/proc/%d/ns/net", p.c.MainPID)
		}
		p.Mounts = p.mounts()
		p.NewMount = len(p.Mounts) > 0 || b.PrivateMounts || b.MountFlags != ""
		if b.PrivateUsers && h.UserNS {
			p.NewUser = p.userMap()
		}
	}
	if !h.Seccomp {
		return
	}
	p.Seccomp = restrictions(b)
	if len(b.SystemCallArchs) > 0 {
		p.Seccomp = append(p.Seccomp, archFilter(b.SystemCallArchs))
	}
	if b.SystemCalls.Set {
		p.Seccomp = append(p.Seccomp, callFilter(b.SystemCalls, b.SystemCallErrno)...)
	}
	if len(p.Seccomp) > 0 && p.unprivileged() {
		p.NoNewPrivs = true
	}
}

// userMap lets root and the unit's own ids exist.
func (p *planner) userMap() *child.UserMap {
	m := &child.UserMap{UIDs: []int{0}, GIDs: []int{0}}
	if p.User != nil {
		m.UIDs = append(m.UIDs, p.User.UID)
		m.GIDs = append(append(m.GIDs, p.User.GID), p.User.Groups...)
	}
	for _, ids := range []*[]int{&m.UIDs, &m.GIDs} {
		*ids = slices.DeleteFunc(*ids, func(id int) bool { return id < 0 })
		slices.Sort(*ids)
		*ids = slices.Compact(*ids)
	}
	return m
}

// mounts writes the mount plan: parents first, and of several steps for one path those that mount first.
func (p *planner) mounts() []child.Mount {
	b := &p.s.Sandbox
	l := &mountList{}
	l.own(b)
	l.protect(b, p.c.Host)
	if b.ProtectSystem == "strict" {
		for _, path := range p.c.Writable {
			l.add(child.Writable, true, path)
		}
	}
	if b.PrivateTmp && p.c.TmpDir != "" {
		l.bind(p.c.TmpDir+"/tmp", "/tmp")
		l.bind(p.c.TmpDir+"/var-tmp", "/var/tmp")
		for _, path := range []string{"/tmp", "/var/tmp"} {
			l.add(child.Writable, true, path)
		}
	}
	return l.ordered()
}

// mountList collects steps in no order.
type mountList struct{ steps []child.Mount }

// add adds a step of one kind for each path; missing: a path that is not there is no failure.
func (l *mountList) add(kind child.MountKind, missing bool, paths ...string) {
	for _, path := range paths {
		l.steps = append(l.steps, child.Mount{Kind: kind, Path: path, Missing: missing})
	}
}

func (l *mountList) bind(source, dest string) {
	l.steps = append(l.steps, child.Mount{Kind: child.Bind, Source: source, Path: dest, Create: true})
}

// own adds the steps of the keys that name paths.
func (l *mountList) own(b *service.Sandbox) {
	for _, k := range []struct {
		kind  child.MountKind
		rules []service.PathRule
	}{
		{child.Mask, b.Inaccessible}, {child.ReadOnly, b.ReadOnly}, {child.Writable, b.ReadWrite},
		{child.NoExec, b.NoExec}, {child.Exec, b.Exec},
	} {
		for _, r := range k.rules {
			l.add(k.kind, r.Optional, r.Path)
		}
	}
	for _, x := range b.Binds {
		l.steps = append(l.steps, child.Mount{
			Kind: child.Bind, Source: x.Source, Path: x.Dest, RO: x.ReadOnly, Shallow: x.Single, Missing: x.Optional, Create: true,
		})
	}
	for _, t := range b.Tmpfs {
		data, readOnly := tmpfsOptions(t.Options)
		l.steps = append(l.steps, child.Mount{Kind: child.Tmpfs, Path: t.Path, Data: data, RO: readOnly, Create: true})
	}
}

// tmpfsOptions takes the mount flag ro out of options, which the file system itself does not know; the mode is 0755
// unless it says another. Source: systemd.exec(5), TemporaryFileSystem=.
func tmpfsOptions(options string) (data string, readOnly bool) {
	var rest []string
	mode := false
	for _, o := range strings.Split(options, ",") {
		switch {
		case o == "ro":
			readOnly = true
		case o == "" || o == "rw" || o == "nodev" || o == "nosuid" || o == "noexec" || o == "exec" || o == "suid" || o == "dev":
		default:
			mode = mode || strings.HasPrefix(o, "mode=")
			rest = append(rest, o)
		}
	}
	if !mode {
		rest = append(rest, "mode=0755")
	}
	return strings.Join(rest, ","), readOnly
}

// protect adds the steps of the keys that stand for sets of paths. Source: systemd.exec(5), Sandboxing, and the tables
// that systemd 252 keeps for these keys.
func (l *mountList) protect(b *service.Sandbox, h Host) {
	homes := []string{"/home", "/root", "/run/user"}
	switch b.ProtectSystem {
	case "strict":
		l.add(child.ReadOnly, false, "/")
		l.add(child.Writable, true, "/proc", "/sys", "/dev")
		l.add(child.Writable, true, homes...)
	case "full":
		l.add(child.ReadOnly, true, "/etc")
		fallthrough
	case "yes":
		l.add(child.ReadOnly, true, "/usr", "/boot", "/efi")
	}
	switch b.ProtectHome {
	case "yes":
		l.add(child.Mask, true, homes...)
	case "read-only":
		l.add(child.ReadOnly, true, homes...)
	case "tmpfs":
		for _, path := range homes {
			l.steps = append(l.steps, child.Mount{Kind: child.Tmpfs, Path: path, Data: "mode=0755", RO: true, Missing: true})
		}
	}
	if b.PrivateDevices {
		l.add(child.Devices, false, "/dev")
	}
	if b.ProtectControlGroups {
		l.add(child.ReadOnly, true, "/sys/fs/cgroup")
	}
	if b.ProtectKernelTunables {
		l.add(child.ReadOnly, true, "/proc/acpi", "/proc/apm", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq",
			"/proc/latency_stats", "/proc/mtrr", "/proc/scsi", "/proc/sys", "/proc/sysrq-trigger", "/proc/timer_stats", "/sys")
		l.add(child.Mask, true, "/proc/kallsyms", "/proc/kcore")
		l.add(child.Writable, true, "/sys/fs/bpf", "/sys/fs/cgroup", "/sys/fs/selinux")
	}
	if b.ProtectKernelModules {
		l.add(child.Mask, true, "/lib/modules", "/usr/lib/modules")
	}
	if b.ProtectKernelLogs {
		l.add(child.Mask, true, "/proc/kmsg", "/dev/kmsg")
	}
	if b.ProtectHostname {
		l.add(child.ReadOnly, true, "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")
	}
	l.procfs(b, h)
}

// procfs adds a new /proc with the wished view.
func (l *mountList) procfs(b *service.Sandbox, h Host) {
	var options []string
	if b.ProtectProc != "" {
		options = append(options, "hidepid="+b.ProtectProc)
	}
	if b.ProcSubset == "pid" {
		options = append(options, "subset=pid")
	}
	if len(options) > 0 && h.ProcOptions {
		l.steps = append(l.steps, child.Mount{Kind: child.Proc, Path: "/proc", Data: strings.Join(options, ",")})
	}
}

// rank orders the kinds for one path: of read-only and writable the first wins, as in systemd.
var rank = map[child.MountKind]int{
	child.Mask: 0, child.Bind: 1, child.Devices: 2, child.Proc: 3, child.Tmpfs: 4,
	child.ReadOnly: 5, child.Writable: 6, child.NoExec: 7, child.Exec: 8,
}

// ordered sorts the steps by path and kind, and drops those that another one of the same path, or a mask above, makes void.
func (l *mountList) ordered() []child.Mount {
	slices.SortStableFunc(l.steps, func(a, b child.Mount) int {
		return cmp.Or(slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/")), cmp.Compare(rank[a.Kind], rank[b.Kind]))
	})
	var out []child.Mount
	masked := "\x00"
	for _, m := range l.steps {
		if m.Path == masked || strings.HasPrefix(m.Path, masked+"/") || void(out, m) {
			continue
		}
		if m.Kind == child.Mask {
			masked = m.Path
		}
		out = append(out, m)
	}
	return out
}

// void reports whether an earlier step for the same path leaves m nothing to say.
func void(done []child.Mount, m child.Mount) bool {
	for i := len(done) - 1; i >= 0 && done[i].Path == m.Path; i-- {
		same := done[i].Kind == m.Kind && m.Kind != child.Bind
		if same || done[i].Kind == child.ReadOnly && m.Kind == child.Writable || done[i].Kind == child.NoExec && m.Kind == child.Exec {
			return true
		}
	}
	return false
}
