package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"flota/internal/api"
	"flota/internal/driver/process"
	"flota/internal/fault"
)

// haltWithin bounds a clean stop of one machine: its units have that long to start elsewhere and to stop here.
const haltWithin = 2 * time.Minute

// downWithin bounds the clean stop of all units in Down; what is left then is killed.
const downWithin = 10 * time.Second

// Stop shuts a machine down as an operator would: its units start elsewhere, then it stops them and ends.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	if err := c.has(name); err != nil {
		return err
	}
	pid, running := c.agentPid(name)
	if !running {
		return fault.New(fault.Conflict, "machine %s does not run", name)
	}
	ctx, cancel := context.WithTimeout(ctx, haltWithin)
	defer cancel()
	cl, err := api.NewClient([]string{"unix://" + c.Socket(name)}, api.ClientOptions{})
	if err != nil {
		return err
	}
	if err := cl.Halt(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := awaitEnd(ctx, pid); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return process.PowerCut(c.MachineDir(name)) // nothing is left but what refused to end
}

// Kill cuts a machine's power: agent, supervisor and units, all SIGKILLed.
func (c *Cluster) Kill(name string) error {
	if err := c.has(name); err != nil {
		return err
	}
	if err := c.killAgent(name); err != nil {
		return err
	}
	return process.PowerCut(c.MachineDir(name))
}

// killAgent kills the agent first, so that it cannot start its supervisor again.
func (c *Cluster) killAgent(name string) error {
	pid, running := c.agentPid(name)
	if !running {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill agent of %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return awaitEnd(ctx, pid)
}

// Start starts a machine that does not run and waits until it is ready.
func (c *Cluster) Start(ctx context.Context, name string, o Options) error {
	if err := c.has(name); err != nil {
		return err
	}
	if pid, running := c.agentPid(name); running {
		return fault.New(fault.Conflict, "machine %s runs already (pid %d)", name, pid)
	}
	if err := c.checkFree(ctx, name); err != nil {
		return err
	}
	join, err := c.joinFlags(ctx, name)
	if err != nil {
		return err
	}
	if err := c.launch(o, name, join...); err != nil {
		return err
	}
	return c.await(ctx, []string{name})
}

// Down ends the whole cluster, units included, and removes its folder.
func (c *Cluster) Down(ctx context.Context) error {
	for _, n := range c.Names() {
		if err := c.killAgent(n); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, downWithin)
	defer cancel()
	errs := make([]error, c.Machines)
	var wg sync.WaitGroup
	for i, n := range c.Names() {
		wg.Go(func() {
			_ = process.Shutdown(ctx, c.MachineDir(n)) // units that do not stop in time are killed next
			errs[i] = process.PowerCut(c.MachineDir(n))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end units: %w", err)
	}
	return os.RemoveAll(c.Dir)
}

// agentPid reads a machine's agent.pid; running is false when no such process is a flota.
func (c *Cluster) agentPid(name string) (pid int, running bool) {
	b, err := os.ReadFile(filepath.Join(c.MachineDir(name), "agent.pid"))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, false
	}
	cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid, err == nil && bytes.Contains(cmd, []byte("\x00"+c.MachineDir(name)+"\x00"))
}

// died reports whether a machine that this process started has ended already.
func (c *Cluster) died(name string) bool {
	select {
	case <-c.ended[name]: // nil for one that was not started here: never ready
		return true
	default:
		return false
	}
}

// lastLog is the last line of a machine's log.
func (c *Cluster) lastLog(name string) string {
	b, _ := os.ReadFile(filepath.Join(c.MachineDir(name), "agent.log")) // for a message
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// awaitEnd waits until a process that is not our child has ended.
func awaitEnd(ctx context.Context, pid int) error {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || isZombie(pid) {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fault.New(fault.TimedOut, "process %d does not end", pid)
		case <-tick.C:
		}
	}
}

// isZombie reports whether a process has ended and only waits to be reaped.
func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := bytes.Cut(b, []byte(") "))
	return ok && len(rest) > 0 && rest[0] == 'Z'
}
