package netbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// life is what one process of a unit wrote of itself (testdata/ledger). Times are of the clock that counts from boot, which is one for the
// whole host; start is also the fencing number, by which lives have an order.
type life struct {
	unit, machine string
	pid           int
	start, last   time.Duration   // the first line and the last; it may have lived on for one period of its ticks
	stopped       bool            // the last line says that it was told to end and did; else it was killed, or is there
	clashes       []time.Duration // when it saw another process of its unit
	lines         int
}

// String is for messages.
func (l life) String() string {
	end := "?"
	if l.stopped {
		end = "stop"
	}
	return fmt.Sprintf("%s on %s (pid %d, %.3f to %.3f %s)", l.unit, l.machine, l.pid, l.start.Seconds(), l.last.Seconds(), end)
}

// sinceBoot is the clock that books are written by.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // every Linux has it
	return time.Duration(ts.Nano())
}

// readBooks reads all books of a folder, in the order of their starts. A line that makes no sense is an error: a checker that passes over
// what it cannot read proves nothing.
func readBooks(dir string) (lives []life, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.book"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		l, err := parseBook(strings.TrimSuffix(filepath.Base(f), ".book"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		if l.lines > 0 { // else it was killed, or looked at, before the first line
			lives = append(lives, l)
		}
	}
	slices.SortFunc(lives, func(a, b life) int { return int(a.start - b.start) })
	return lives, nil
}

// parseBook reads one book. Only its last line may lack its end.
func parseBook(name, text string) (l life, err error) {
	part := strings.Split(name, ",")
	if len(part) != 4 {
		return l, errors.New("want UNIT,MACHINE,PID,START.book")
	}
	l.unit, l.machine = part[0], part[1]
	if l.pid, err = strconv.Atoi(part[2]); err != nil {
		return l, err
	}
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		word, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		ns, err := strconv.ParseInt(number, 10, 64)
		at := time.Duration(ns)
		if err != nil || at < l.last || l.stopped || (word == "start") != (l.lines == 0) {
			return l, fmt.Errorf("line %d, %q, cannot come here", l.lines+1, line)
		}
		switch word {
		case "start":
			if number != part[3] {
				return l, fmt.Errorf("starts with %q", line)
			}
			l.start = at
		case "tick":
		case "clash":
			l.clashes = append(l.clashes, at)
		case "stop":
			l.stopped = true
		default:
			return l, fmt.Errorf("line %d, %q, has an unknown word", l.lines+1, line)
		}
		l.last = at
		l.lines++
	}
	return l, nil
}

// running gives who runs now, by unit: the machines in whose namespaces a process of the unit is. This is what is, whatever books, the
// store or the API say.
func (b *bed) running() map[string][]int {
	on := map[string][]int{}
	for _, p := range b.processes(b.root) {
		if p.is("ledger") && len(p.args) == 4 {
			on[p.args[2]] = append(on[p.args[2]], p.machine)
		}
	}
	for _, is := range on {
		slices.Sort(is)
	}
	return on
}
