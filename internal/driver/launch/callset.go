package launch

import (
	_ "embed" // the table of groups
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flota/internal/service"
)

//go:embed syscalls.txt
var groupTable string

// callGroups reads the table of groups: for each, its calls and other groups.
func callGroups() map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(groupTable) {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "@") {
			out[f[0]] = f[1:]
		}
	}
	return out
}

// expand gives the calls that a name stands for, groups within groups included.
func expand(groups map[string][]string, name string) []string {
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	var out []string
	for _, n := range groups[name] {
		out = append(out, expand(groups, n)...)
	}
	return out
}

// callFilter makes the programs of SystemCallFilter=, one per architecture. Names that an architecture lacks, and names that nobody
// knows, are skipped, as systemd does.
func callFilter(f service.Filter, action string) [][]byte {
	groups := callGroups()
	refuse := answerOf(action)
	var out [][]byte
	for _, m := range machines() {
		answers := map[int]uint32{}
		for _, r := range f.Rules {
			name, special, _ := strings.Cut(r.Name, ":")
			answer := refuse
			if special != "" {
				answer = answerOf(special)
			}
			for _, call := range expand(groups, name) {
				nr, ok := m.numbers[call]
				switch {
				case !ok:
				case f.Deny && r.Remove, !f.Deny && r.Remove && special == "":
					delete(answers, nr)
				case f.Deny, r.Remove:
					answers[nr] = answer
				default:
					answers[nr] = retAllow
				}
			}
		}
		other := refuse
		if f.Deny {
			other = retAllow
		}
		out = append(out, compile(m, answers, other))
	}
	return out
}

// compile makes a program out of the answer to each number, runs of the same answer together.
func compile(m machine, answers map[int]uint32, other uint32) []byte {
	p := newProgram(m)
	var numbers []int
	for nr, a := range answers {
		if a != other {
			numbers = append(numbers, nr)
		}
	}
	slices.Sort(numbers)
	for i := 0; i < len(numbers); {
		j := i + 1
		for j < len(numbers) && numbers[j] == numbers[j-1]+1 && answers[numbers[j]] == answers[numbers[i]] {
			j++
		}
		p.between(numbers[i], numbers[j-1], answers[numbers[i]])
		i = j
	}
	return p.end(other)
}

// answerOf reads SystemCallErrorNumber=: an errno by name or number, or "kill", which "" is too.
func answerOf(s string) uint32 {
	if s == "" || s == "kill" {
		return retKill
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < 4096 {
		return errno(syscall.Errno(n))
	}
	for e := syscall.Errno(1); e < 256; e++ {
		if unix.ErrnoName(e) == s {
			return errno(e)
		}
	}
	return retKill
}
