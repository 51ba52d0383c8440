package netbed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one process of a bed.
type process struct {
	pid     int
	machine int // whose namespace or control group it is in; 0: none's, it has only the bed's mark
	args    []string
}

// String is for messages.
func (p process) String() string { return fmt.Sprintf("%d of m%d: %q", p.pid, p.machine, p.args) }

// is reports whether the process runs a program of that name.
func (p process) is(program string) bool {
	return len(p.args) > 0 && filepath.Base(p.args[0]) == program
}

// keyOf is the name of the control groups and notification sockets of a data directory: twelve digits of the hash of its path.
func keyOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:])[:12]
}

// processes finds the processes of a bed whose folder is dir: those in a namespace that has an interface of the bed, those in a control
// group of a machine, those that bear its mark. No process ID is remembered, so none can be mistaken.
func (r record) processes(dir string) (ps []process) {
	all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	home, _ := os.Readlink("/proc/self/ns/net")
	keys := map[string]int{}
	for i, d := range r.Dirs {
		keys[keyOf(d)] = i + 1
	}
	mark := []byte(bedVar + "=" + dir + "\x00")
	for _, d := range all {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if pid == os.Getpid() {
			continue
		}
		ns, err := os.Readlink(d + "/ns/net")
		if err != nil {
			continue // it has ended
		}
		p := process{pid: pid}
		found := false
		if ns != home {
			p.machine, found = r.inside(d)
		}
		if !found {
			p.machine, found = grouped(d, keys)
		}
		if !found {
			env, _ := os.ReadFile(d + "/environ")
			found = bytes.Contains(append(env, 0), mark)
		}
		if found {
			cmd, _ := os.ReadFile(d + "/cmdline")
			p.args = strings.Split(strings.TrimSuffix(string(cmd), "\x00"), "\x00")
			ps = append(ps, p)
		}
	}
	return ps
}

// inside finds the machine in whose namespace a process is.
func (r record) inside(proc string) (machine int, ok bool) {
	text, _ := os.ReadFile(proc + "/net/dev")
	_, rest, ok := strings.Cut(string(text), r.ID+"m")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ":")
	machine, err := strconv.Atoi(number)
	return machine, err == nil
}

// grouped finds the machine in one of whose control groups a process is.
func grouped(proc string, keys map[string]int) (machine int, ok bool) {
	text, _ := os.ReadFile(proc + "/cgroup")
	for line := range strings.Lines(string(text)) {
		for _, part := range strings.Split(strings.TrimSpace(line), "/") {
			if machine, ok := keys[part]; ok {
				return machine, true
			}
		}
	}
	return 0, false
}
