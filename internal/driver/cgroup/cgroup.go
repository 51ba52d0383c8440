// Package cgroup keeps the processes of each unit together, limits what they use, counts it, and ends them without leaving
// one behind.
//
// A Tree is the groups of one machine data directory, …/flota/KEY/UNIT in every hierarchy that is needed: v2, v1 or both
// (hybrid, where a v2 tree without controllers counts and kills while v1 limits). Without a usable file system, or the
// right to it, the mode is none: members are then found by INVOCATION_ID in their environment and by descent, nothing is limited, and
// Support says so for the notes.
//
// The invariant: a process that was in a group when KillAll began, and everything it forks meanwhile, is gone when KillAll
// returns nil. Groups outlive this process; a Tree opened again finds them.
//
// It writes the few files itself instead of through a library: a unit costs four directories, 1.3 ms to make and remove, and
// processes join by themselves (launch.Spec.CgroupProcs) before they run anything.
//
// Nothing here polls: waiting is by inotify on cgroup.events or by pidfd. Start reading at Open, then Tree.Create.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"flota/internal/fault"
)

// Options says where the groups of one machine data directory live.
type Options struct {
	// Key tells this data directory's groups from others': [a-z0-9-]. Groups are …/flota/<Key>/<unit>.
	Key string
	// Mounts is where the cgroup file systems are found; "" is /proc/self/mountinfo. For tests.
	Mounts string
	// Self is where the own groups are found; "" is /proc/self/cgroup. For tests.
	Self string
}

// Mode is how this machine does control groups.
type Mode string

// The modes. None: no usable cgroup file system, or no right to it.
const (
	V1     Mode = "v1"
	Hybrid Mode = "hybrid" // v1 controllers beside a v2 tree that counts and kills
	V2     Mode = "v2"
	None   Mode = "none"
)

// Support is what is possible here. A limit whose controller is missing is not enforced and belongs into the notes.
type Support struct {
	Mode       Mode
	Memory     bool
	Swap       bool
	CPU        bool
	IO         bool
	Pids       bool
	MemoryHigh bool   // MemoryHigh, MemoryLow and MemoryMin: v2 alone has them
	Reason     string // why Mode is None or a controller is missing, in an operator's words; empty if nothing is
}

// Tree is the groups of one data directory. Safe for concurrent use; a Group is used by one goroutine at a time.
type Tree struct {
	key     string
	v2      string            // directory of the key in the v2 tree; "" for none
	v1      map[string]string // directory of the key by v1 controller
	parents []string          // directories above that were made and are removed when empty
	on      map[string]bool   // v2 controllers that the groups have
	support Support

	mu sync.Mutex // serialises making and removing directories
}

// Open finds the hierarchies, makes this key's directories and turns on the controllers on the way to them. On v2 that may
// move the processes of the own group into its child flota-self, since a group with limits on its children may hold
// none. It fails only for a bad Key (fault.Invalid); what is not possible is told by Support.
func Open(o Options) (*Tree, error) {
	if o.Key == "" || strings.Trim(o.Key, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fault.New(fault.Invalid, "cgroup key %q is not of a-z, 0-9 and -", o.Key)
	}
	l, err := find(o)
	t := &Tree{key: o.Key, v1: map[string]string{}, support: Support{Mode: None}}
	if err != nil {
		t.support.Reason = err.Error()
		return t, nil
	}
	var failed []error
	for _, c := range []string{"memory", "cpu", "pids", "cpuacct", "freezer", "blkio"} {
		if at, ok := l.v1[c]; ok {
			if err := t.openV1(c, at); err != nil {
				failed = append(failed, err)
			}
		}
	}
	if l.v2 != "" {
		if err := t.openV2(l); err != nil {
			failed = append(failed, err)
		}
	}
	t.trim()
	t.look(errors.Join(failed...))
	return t, nil
}

// Support says what is possible here.
func (t *Tree) Support() Support { return t.support }

// Probe says what is possible here without leaving anything behind.
func Probe() Support {
	t, err := Open(Options{Key: fmt.Sprintf("probe-%d", os.Getpid())})
	if err != nil {
		return Support{Mode: None, Reason: err.Error()}
	}
	t.Destroy()
	return t.Support()
}

// openV1 makes the key's directory in one v1 hierarchy, below its root or, where that is forbidden, the own group.
func (t *Tree) openV1(controller string, at place) error {
	for _, other := range t.v1 { // cpu and cpuacct may be one hierarchy
		if filepath.Dir(filepath.Dir(other)) == at.root {
			t.v1[controller] = other
			return nil
		}
	}
	var first error
	for _, base := range slices.Compact([]string{at.root, at.own}) {
		dir := filepath.Join(base, "flota", t.key)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			t.v1[controller] = dir
			t.parents = append(t.parents, dir, filepath.Dir(dir))
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// trim forgets v1 hierarchies that the v2 tree makes needless: each one costs every start.
func (t *Tree) trim() {
	if t.v2 == "" {
		return
	}
	for _, c := range []string{"cpuacct", "freezer"} {
		dir := t.v1[c]
		if dir == "" || c == "freezer" && !exists(filepath.Join(t.v2, "cgroup.kill")) || c == "cpuacct" && t.v1["cpu"] == dir {
			continue
		}
		delete(t.v1, c)
		os.Remove(dir)
		os.Remove(filepath.Dir(dir))
	}
}

// look fills Support from what was opened.
func (t *Tree) look(failed error) {
	s := &t.support
	switch {
	case t.v2 != "" && len(t.v1) > 0:
		s.Mode = Hybrid
	case t.v2 != "":
		s.Mode = V2
	case len(t.v1) > 0:
		s.Mode = V1
	}
	t.on = t.controllers()
	on := t.on
	_, mem := t.v1["memory"]
	s.Memory = mem || on["memory"]
	s.MemoryHigh = on["memory"]
	s.Swap = on["memory"] || mem && exists(filepath.Join(t.v1["memory"], "memory.memsw.limit_in_bytes"))
	s.CPU = t.v1["cpu"] != "" || on["cpu"]
	s.Pids = t.v1["pids"] != "" || on["pids"]
	s.IO = on["io"] || t.v1["blkio"] != "" && weightFile(t.v1["blkio"]) != ""
	if dir := t.v1["blkio"]; dir != "" && !s.IO {
		delete(t.v1, "blkio")
		os.Remove(dir)
		os.Remove(filepath.Dir(dir))
	}
	if s.Mode == None && errors.Is(failed, os.ErrPermission) {
		s.Reason = "this user may not make control groups"
	} else if failed != nil {
		s.Reason = strings.ReplaceAll(failed.Error(), "\n", "; ")
	} else if s.Mode == None {
		s.Reason = "no control group file system is mounted"
	} else if !s.Memory || !s.CPU || !s.Pids {
		s.Reason = "the kernel gives no controller for it here"
	}
}

// controllers are those that the v2 groups of this key have.
func (t *Tree) controllers() map[string]bool {
	on := map[string]bool{}
	if t.v2 != "" {
		text, _ := os.ReadFile(filepath.Join(t.v2, "cgroup.subtree_control"))
		for _, c := range strings.Fields(string(text)) {
			on[c] = true
		}
	}
	return on
}

// dirs are the key's directories, each once.
func (t *Tree) dirs() []string {
	var out []string
	if t.v2 != "" {
		out = append(out, t.v2)
	}
	for _, c := range []string{"pids", "memory", "freezer", "cpu", "cpuacct", "blkio"} {
		if d := t.v1[c]; d != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// Destroy removes the key's own directories if they are empty; what is not empty stays, which is no error.
func (t *Tree) Destroy() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, dir := range t.parents {
		err := os.Remove(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !busy(err) {
			return fmt.Errorf("remove control group: %w", err)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
