package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flota/internal/driver/cgroup"
	"flota/internal/driver/home"
	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
	"flota/internal/fault"
)

// powerPatience is how long PowerCut tries; SIGKILL takes milliseconds unless a process hangs in the kernel.
const powerPatience = 15 * time.Second

// PowerCut ends the supervisor of a data directory and every process of its units at once, by SIGKILL and without a word to
// them, and removes their control groups and mounts. Records stay on disk as a machine that lost power
// would leave them. It is safe to repeat. fault.Failed if something does not die.
func PowerCut(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	at, err := home.At(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), powerPatience)
	defer cancel()
	pid := at.PID()
	st, there := proc.Look(pid)
	doomed := recorded(at)
	if there {
		proc.Signal(pid, st.Ticks, syscall.SIGSTOP) // so that it starts nothing while its units die
		doomed = append(append(doomed, recorded(at)...), children(pid)...)
	}
	tree, err := cgroup.Open(cgroup.Options{Key: at.Key()})
	if err != nil {
		return fmt.Errorf("open control groups: %w", err)
	}
	if err := killAll(ctx, at, tree, doomed); err != nil {
		return fault.Wrap(fault.Failed, err, "end the units of %s", dir)
	}
	if there {
		proc.Signal(pid, st.Ticks, syscall.SIGKILL)
		if err := proc.Wait(ctx, pid, st.Ticks); err != nil {
			return fault.Wrap(fault.Failed, err, "end supervisor %d", pid)
		}
	}
	if err := tree.Sweep(ctx, func(string) bool { return false }); err != nil {
		return fault.Wrap(fault.Failed, err, "clear up after the units of %s", dir)
	}
	if err := tree.Destroy(); err != nil {
		return fmt.Errorf("clear up after %s: %w", dir, err)
	}
	os.Remove(at.Socket()) // a dead socket is in nobody's way
	return os.RemoveAll(at.Sockets())
}

// killAll ends those processes and all that are in the units' groups, and waits until they are gone.
func killAll(ctx context.Context, at home.Home, tree *cgroup.Tree, doomed []lifecycle.Proc) error {
	for _, p := range doomed {
		proc.Signal(p.PID, p.Ticks, syscall.SIGKILL)
	}
	for _, r := range records(at) {
		if r.Invocation != "" {
			if err := tree.Group(string(r.Unit), r.Invocation).KillAll(ctx); err != nil {
				return err
			}
		}
	}
	if err := tree.KillAll(ctx); err != nil {
		return err
	}
	for _, p := range doomed { // those between fork and their group were in none
		if err := proc.Wait(ctx, p.PID, p.Ticks); err != nil {
			return err
		}
	}
	return nil
}

// children gives the child processes of the stopped supervisor: all of them belong to units.
func children(pid int) (out []lifecycle.Proc) {
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range all {
		text, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(word)
			if st, ok := proc.Look(n); err == nil && ok {
				out = append(out, lifecycle.Proc{PID: n, Ticks: st.Ticks})
			}
		}
	}
	return out
}

// recorded gives the processes that the records name.
func recorded(at home.Home) (out []lifecycle.Proc) {
	for _, r := range records(at) {
		out = append(out, r.Main, r.Control)
	}
	return out
}

// records reads the records of this boot of all units.
func records(at home.Home) (out []lifecycle.Stored) {
	entries, _ := os.ReadDir(at.Units())
	boot := proc.BootID()
	for _, e := range entries {
		var r lifecycle.Stored
		if home.Read(filepath.Join(at.Units(), e.Name(), "record.json"), &r) == nil && r.Boot == boot {
			out = append(out, r)
		}
	}
	return out
}
