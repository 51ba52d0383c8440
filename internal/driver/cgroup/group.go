package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"flota/internal/fault"
)

// Group is one unit's control group. Make one with Tree.Create or Tree.Group.
type Group struct {
	tree       *Tree
	name       string
	invocation string  // INVOCATION_ID of the unit's run, for mode none
	set        *Limits // what was last set; nil is unknown
}

// Create makes the group of a unit with its limits, or takes over one that is there. invocation is the INVOCATION_ID in the environment of
// the processes to come. An error of a limit leaves the group made and usable.
func (t *Tree) Create(name, invocation string, l Limits) (*Group, error) {
	g := t.Group(name, invocation)
	fresh := true
	t.mu.Lock()
	for _, dir := range g.dirs() {
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			fresh, err = false, nil
		}
		if err != nil {
			t.mu.Unlock()
			return nil, fmt.Errorf("make control group: %w", err)
		}
	}
	t.mu.Unlock()
	if fresh {
		g.set = new(Limits)
	}
	return g, g.Set(l)
}

// Group gives the group of a unit that may or may not be there: for adoption, and to clear up.
func (t *Tree) Group(name, invocation string) *Group {
	return &Group{tree: t, name: name, invocation: invocation}
}

// dirs are the group's directories, the first being the one that members are read from.
func (g *Group) dirs() []string {
	all := g.tree.dirs()
	for i := range all {
		all[i] = filepath.Join(all[i], g.name)
	}
	return all
}

// in gives a file of the group in the hierarchy of a v1 controller, or in v2 for "".
func (g *Group) in(controller, file string) string {
	dir := g.tree.v2
	if controller != "" {
		dir = g.tree.v1[controller]
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, g.name, file)
}

// Path is the group's first directory, for records and people; "" in mode none.
func (g *Group) Path() string {
	if d := g.dirs(); len(d) > 0 {
		return d[0]
	}
	return ""
}

// Join gives the cgroup.procs files that a process of the unit writes itself into: launch.Spec.CgroupProcs. The files of
// hierarchies that only limit come first, so that a process that is counted is limited.
func (g *Group) Join() []string {
	var out []string
	for _, d := range g.dirs() {
		out = append(out, filepath.Join(d, "cgroup.procs"))
	}
	slices.Reverse(out)
	return out
}

// Procs gives the processes of the group and of groups below it (Delegate=), sorted. Zombies are not among them.
func (g *Group) Procs() ([]int, error) {
	dirs := g.dirs()
	if len(dirs) == 0 {
		return membersByInvocation(g.invocation)
	}
	var all []int
	err := filepath.WalkDir(dirs[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}
		pids, err := readPIDs(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, syscall.EOPNOTSUPP) {
			return nil // a threaded group: its processes are listed above it
		}
		all = append(all, pids...)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Has reports whether process pid belongs to the group now.
func (g *Group) Has(pid int) bool {
	if len(g.dirs()) == 0 {
		return hasInvocation(pid, g.invocation)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	defer f.Close()
	tail := "/flota/" + g.tree.key + "/" + g.name
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		at := scan.Text()
		if strings.HasSuffix(at, tail) || strings.Contains(at, tail+"/") {
			return true
		}
	}
	return false
}

// Destroy removes the group and the groups below it. fault.Conflict while processes are in it; one that is not there is no error.
func (g *Group) Destroy() error {
	g.tree.mu.Lock()
	defer g.tree.mu.Unlock()
	var failed []error
	for _, dir := range g.dirs() {
		if err := removeTree(dir); err != nil {
			failed = append(failed, err)
		}
	}
	err := errors.Join(failed...)
	if busy(err) {
		return fault.Wrap(fault.Conflict, err, "processes are left in %s", g.name)
	}
	if err != nil {
		return fmt.Errorf("remove control group: %w", err)
	}
	g.set = nil
	return nil
}

// removeTree removes a group, those below it first.
func removeTree(dir string) error {
	err := syscall.Rmdir(dir)
	if err == nil || err == syscall.ENOENT {
		return nil
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err = syscall.Rmdir(dir); err == nil || err == syscall.ENOENT {
		return nil
	}
	return &os.PathError{Op: "rmdir", Path: dir, Err: err}
}

func busy(err error) bool { return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ENOTEMPTY) }

// Sweep ends the processes of, and removes, every group of this key whose name keep refuses: what an earlier life left behind.
func (t *Tree) Sweep(ctx context.Context, keep func(name string) bool) error {
	names := map[string]bool{}
	for _, dir := range t.dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("list control groups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && !keep(e.Name()) {
				names[e.Name()] = true
			}
		}
	}
	var failed []error
	for name := range names {
		g := t.Group(name, "")
		err := g.KillAll(ctx)
		if err == nil {
			err = g.Destroy()
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// KillAll ends every process of every group of this key at once: the power cut. In mode none it finds none of them;
// the caller has their invocations and uses Group.KillAll.
func (t *Tree) KillAll(ctx context.Context) error {
	return t.Sweep(ctx, func(string) bool { return false })
}
