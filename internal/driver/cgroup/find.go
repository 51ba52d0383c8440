package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// place is one hierarchy: where it is mounted, and where in it this process is.
type place struct{ root, own string }

// layout is all hierarchies of the machine.
type layout struct {
	v1  map[string]place // by controller
	v2  string           // where the v2 tree is mounted; "" for none
	own string           // this process' group in it
}

// find reads the mounts and the own groups.
func find(o Options) (layout, error) {
	l := layout{v1: map[string]place{}}
	mounts, err := os.ReadFile(or(o.Mounts, "/proc/self/mountinfo"))
	if err != nil {
		return l, fmt.Errorf("find control groups: %w", err)
	}
	groups, err := os.ReadFile(or(o.Self, "/proc/self/cgroup"))
	if err != nil {
		return l, fmt.Errorf("find control groups: %w", err)
	}
	own := map[string]string{} // by controller; "" is v2
	for line := range strings.Lines(string(groups)) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			for _, c := range strings.Split(f[1], ",") {
				own[c] = f[2]
			}
		}
	}
	scan := bufio.NewScanner(bytes.NewReader(mounts))
	for scan.Scan() {
		front, back, ok := strings.Cut(scan.Text(), " - ")
		f, kind := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 5 || len(kind) < 3 {
			continue
		}
		inside, at := f[3], f[4]
		switch kind[0] {
		case "cgroup2":
			if l.v2 == "" {
				l.v2, l.own = at, below(at, inside, own[""])
			}
		case "cgroup":
			for _, c := range strings.Split(kind[2], ",") {
				if _, seen := l.v1[c]; !seen && own[c] != "" {
					l.v1[c] = place{at, below(at, inside, own[c])}
				}
			}
		}
	}
	return l, scan.Err()
}

// below gives where a group stands under a mount that shows the hierarchy from inside on.
func below(at, inside, group string) string {
	rel, ok := strings.CutPrefix(group, strings.TrimSuffix(inside, "/"))
	if !ok || strings.Contains(group, "..") {
		return at
	}
	return filepath.Join(at, rel)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// wanted are the v2 controllers that limits need.
var wanted = []string{"memory", "cpu", "pids", "io"}

// openV2 makes the key's directory in the v2 tree, below its root or, where that is forbidden, below the own group
// (which is then delegated to us), and turns on the controllers.
func (t *Tree) openV2(l layout) error {
	var first error
	for _, base := range []string{l.v2, l.own} {
		dir := filepath.Join(base, "flota", t.key)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		t.v2 = dir
		t.parents = append(t.parents, dir, filepath.Dir(dir))
		for _, d := range []string{base, filepath.Dir(dir), dir} {
			if err := enable(d, l.own); err != nil {
				return err
			}
		}
		return nil
	}
	return first
}

// enable turns on the wanted controllers for the children of dir, as far as dir has them itself.
func enable(dir, own string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	var failed []error
	for _, c := range strings.Fields(string(text)) {
		for _, w := range wanted {
			if c != w {
				continue
			}
			err := write(filepath.Join(dir, "cgroup.subtree_control"), "+"+c)
			if errors.Is(err, syscall.EBUSY) && dir == own {
				if err = vacate(dir); err == nil {
					err = write(filepath.Join(dir, "cgroup.subtree_control"), "+"+c)
				}
			}
			if err != nil {
				failed = append(failed, fmt.Errorf("turn on controller %s: %w", c, err))
			}
		}
	}
	return errors.Join(failed...)
}

// vacate moves the processes of the own group into a child of it.
func vacate(dir string) error {
	leaf := filepath.Join(dir, "flota-self")
	if err := os.Mkdir(leaf, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	const rounds = 10 // a process that forks meanwhile leaves a child behind
	for range rounds {
		pids, err := readPIDs(filepath.Join(dir, "cgroup.procs"))
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := write(filepath.Join(leaf, "cgroup.procs"), strconv.Itoa(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// write writes a value into a file of a group, which exists.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// readPIDs reads cgroup.procs. A group that is gone has none.
func readPIDs(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	var out []int
	for line := range strings.Lines(string(text)) {
		if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out, nil
}
