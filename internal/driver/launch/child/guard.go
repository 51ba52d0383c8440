package child

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// rule is what is wished of all mounts at and below a path.
type rule struct{ readOnly, writable, noExec, exec bool }

// guard sets read-only and noexec on each mount by the rule of the longest path above it. Flags are only added; a hole
// only leaves out, so that nothing becomes writable that is not so on the host.
func guard(steps []prepared) error {
	rules := map[string]rule{}
	for _, p := range steps {
		r := rules[p.Path]
		switch {
		case p.Kind == ReadOnly, p.RO:
			r.readOnly, r.writable = true, false
		case p.Kind == Writable, p.Kind == Bind, p.Kind == Tmpfs:
			r.writable, r.readOnly = true, false
		case p.Kind == NoExec:
			r.noExec, r.exec = true, false
		case p.Kind == Exec:
			r.exec, r.noExec = true, false
		}
		rules[p.Path] = r
	}
	all, err := mountPoints()
	if err != nil {
		return err
	}
	for _, m := range all {
		readOnly, noExec := wished(rules, m.path)
		if !readOnly && !noExec {
			continue
		}
		if err := m.add(readOnly, noExec); err != nil && m.reachable() {
			return wrap("remount "+m.path, err)
		}
	}
	return nil
}

// wished gives what the longest paths say of a mount point, each of the two on its own.
func wished(rules map[string]rule, path string) (readOnly, noExec bool) {
	knowsRO, knowsExec := false, false
	for at := path; ; at = parent(at) {
		r := rules[at]
		if !knowsRO && (r.readOnly || r.writable) {
			readOnly, knowsRO = r.readOnly, true
		}
		if !knowsExec && (r.noExec || r.exec) {
			noExec, knowsExec = r.noExec, true
		}
		if at == "/" || knowsRO && knowsExec {
			return readOnly, noExec
		}
	}
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

// mountPoint is one line of mountinfo.
type mountPoint struct {
	id, path, options string
}

// optionFlags are the per-mount options as mountinfo spells them.
var optionFlags = map[string]uintptr{
	"ro": syscall.MS_RDONLY, "nosuid": syscall.MS_NOSUID, "nodev": syscall.MS_NODEV, "noexec": syscall.MS_NOEXEC,
	"noatime": syscall.MS_NOATIME, "nodiratime": syscall.MS_NODIRATIME, "relatime": syscall.MS_RELATIME,
}

// add remounts one mount with the flags that it has and the wished ones.
func (m mountPoint) add(readOnly, noExec bool) error {
	flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT)
	for _, o := range strings.Split(m.options, ",") {
		flags |= optionFlags[o]
	}
	if readOnly {
		flags |= syscall.MS_RDONLY
	}
	if noExec {
		flags |= syscall.MS_NOEXEC
	}
	return syscall.Mount("", m.path, "", flags, "")
}

// reachable reports whether the path of m leads to m. What is hidden below another mount cannot be reached, by the
// unit neither. A mount of which that cannot be found out counts as reachable.
func (m mountPoint) reachable() bool {
	fd, err := syscall.Open(m.path, oPath|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err != syscall.ENOENT && err != syscall.ENOTDIR
	}
	defer syscall.Close(fd)
	info, err := os.ReadFile("/proc/thread-self/fdinfo/" + strconv.Itoa(fd))
	_, rest, ok := strings.Cut(string(info), "mnt_id:")
	id, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	return err != nil || !ok || id == m.id
}

// mountPoints lists where something is mounted in this namespace, parents first.
func mountPoints() ([]mountPoint, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []mountPoint
	for _, line := range bytes.Split(text, []byte{'\n'}) {
		if f := bytes.Fields(line); len(f) > 5 {
			out = append(out, mountPoint{string(f[0]), unescape(string(f[4])), string(f[5])})
		}
	}
	return out, nil
}

func isMount(path string) (bool, error) {
	all, err := mountPoints()
	for _, m := range all {
		if m.path == path {
			return true, err
		}
	}
	return false, err
}

// unescape undoes the \ooo of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
