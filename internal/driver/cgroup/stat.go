package cgroup

import (
	"os"
	"strconv"
	"strings"
)

// Stat is what a group uses now.
type Stat struct {
	MemBytes  int64 // with the page cache that it fills; without a controller the resident memory of its processes
	CPUMicros int64 // since it was made; without a controller of the processes that are there now
	Tasks     int   // threads; without a controller processes
}

// Stat reads what the group uses. A group that is not there uses nothing.
func (g *Group) Stat() (Stat, error) {
	s := Stat{MemBytes: -1, CPUMicros: -1, Tasks: -1}
	on := g.tree.on
	if on["memory"] {
		s.MemBytes = g.number("", "memory.current")
	} else if g.tree.v1["memory"] != "" {
		s.MemBytes = g.number("memory", "memory.usage_in_bytes")
	}
	if on["pids"] {
		s.Tasks = int(g.number("", "pids.current"))
	} else if g.tree.v1["pids"] != "" {
		s.Tasks = int(g.number("pids", "pids.current"))
	}
	if g.tree.v2 != "" {
		s.CPUMicros = g.field("", "cpu.stat", "usage_usec")
	} else if g.tree.v1["cpuacct"] != "" {
		s.CPUMicros = g.number("cpuacct", "cpuacct.usage") / 1000
	}
	if s.MemBytes >= 0 && s.CPUMicros >= 0 && s.Tasks >= 0 {
		return s, nil
	}
	pids, err := g.Procs()
	if err != nil {
		return Stat{}, err
	}
	mem, cpu := usage(pids)
	if s.MemBytes < 0 {
		s.MemBytes = mem
	}
	if s.CPUMicros < 0 {
		s.CPUMicros = cpu
	}
	if s.Tasks < 0 {
		s.Tasks = len(pids)
	}
	return s, nil
}

// OOMKills is how many processes of the group the kernel killed for lack of memory since it was made; 0 where it does not count.
func (g *Group) OOMKills() (int, error) {
	n := int64(0)
	if g.tree.on["memory"] {
		n = g.field("", "memory.events", "oom_kill")
	} else if g.tree.v1["memory"] != "" {
		n = g.field("memory", "memory.oom_control", "oom_kill")
	}
	return int(n), nil
}

// number reads a file that holds one; 0 if it is not there.
func (g *Group) number(controller, file string) int64 {
	text, _ := os.ReadFile(g.in(controller, file))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}

// field reads one line "name number" of a file; 0 if it is not there.
func (g *Group) field(controller, file, name string) int64 {
	text, _ := os.ReadFile(g.in(controller, file))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
