package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// hasInvocation reports whether a process was started with that INVOCATION_ID.
func hasInvocation(pid int, invocation string) bool {
	if invocation == "" {
		return false
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	want := []byte("INVOCATION_ID=" + invocation)
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) })
}

// membersByInvocation finds the processes with that INVOCATION_ID and all that descend from them, zombies left out.
// A descendant that changed its environment after its parents died is not found; only a control group would.
func membersByInvocation(invocation string) ([]int, error) {
	if invocation == "" {
		return nil, nil
	}
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children, zombie := map[int][]int{}, map[int]bool{}
	var found []int
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		state, parent, ok := procStat(pid)
		if !ok {
			continue
		}
		children[parent] = append(children[parent], pid)
		zombie[pid] = state == 'Z' || state == 'X'
		if hasInvocation(pid, invocation) {
			found = append(found, pid)
		}
	}
	member := map[int]bool{}
	for len(found) > 0 {
		pid := found[len(found)-1]
		found = found[:len(found)-1]
		if !member[pid] {
			member[pid] = true
			found = append(found, children[pid]...)
		}
	}
	var out []int
	for pid := range member {
		if !zombie[pid] {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out, nil
}

// procStat reads state and parent of a process.
func procStat(pid int) (state byte, parent int, ok bool) {
	f := statFields(pid)
	if len(f) < 2 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(f[1])
	return f[0][0], parent, err == nil
}

// statFields gives the fields of /proc/PID/stat from the third (state) on.
func statFields(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	// The command's name, in parentheses, may hold anything.
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// usage sums resident memory and processor time of processes.
func usage(pids []int) (memBytes, cpuMicros int64) {
	const tick = 10_000 // µs; USER_HZ is 100 on every architecture that Go runs Linux on
	const utime, stime, rss = 11, 12, 21
	page := int64(os.Getpagesize())
	for _, pid := range pids {
		f := statFields(pid)
		if len(f) <= rss {
			continue
		}
		u, _ := strconv.ParseInt(f[utime], 10, 64)
		s, _ := strconv.ParseInt(f[stime], 10, 64)
		r, _ := strconv.ParseInt(f[rss], 10, 64)
		cpuMicros += (u + s) * tick
		memBytes += r * page
	}
	return memBytes, cpuMicros
}
