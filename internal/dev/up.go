package dev

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flota/internal/api"
	"flota/internal/fault"
)

// Options says what Up makes.
type Options struct {
	Dir      string
	Base     string // default DefaultBase
	Machines int    // default 3
	Exe      string // the flota binary; default this process's
	Args     []string
	Progress func(format string, args ...any)
}

// readyWithin is how long Up waits for all machines. 60 s: three machines are ready in about 3 s on a quiet host; a busy one gets twenty times that.
const readyWithin = 60 * time.Second

// Up starts a new cluster, or the machines of the one in Dir that do not run, and waits until all are ready.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	c, err := Open(o.Dir)
	switch {
	case fault.Is(err, fault.NotFound):
		if c, err = plan(o); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case o.Machines != 0 && o.Machines != c.Machines, o.Base != "" && o.Base != c.Base:
		return nil, fault.WithHint(fault.New(fault.Conflict, "a dev cluster of %d machines at %s.1 is in %s already", c.Machines, c.Base, c.Dir),
			"remove it with: flota dev down --dir %s", c.Dir)
	}
	for _, name := range c.Names() {
		if _, running := c.agentPid(name); !running {
			if err := c.checkFree(ctx, name); err != nil {
				return nil, err
			}
		}
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	if err := c.launchAll(ctx, o); err != nil {
		return c, err
	}
	o.Progress("waiting for %d machines", c.Machines)
	if err := c.await(ctx, c.Names()); err != nil {
		return c, err
	}
	return c, c.awaitVoters(ctx, c.Machines)
}

// plan makes a cluster from options.
func plan(o Options) (*Cluster, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("dev folder: %w", err)
	}
	c := &Cluster{Dir: dir, Base: o.Base, Machines: o.Machines, ended: map[string]chan struct{}{}}
	if c.Base == "" {
		c.Base = DefaultBase
	}
	if c.Machines == 0 {
		c.Machines = 3
	}
	if c.Machines < 1 || c.Machines > maxMachines {
		return nil, fault.New(fault.Invalid, "%d machines: want 1 to %d", c.Machines, maxMachines)
	}
	return c, checkBase(c.Base)
}

// launch starts a machine's process unless it runs; it does not wait until the machine is ready. join are the flags of one that is new.
func (c *Cluster) launch(o Options, name string, join ...string) error {
	if _, running := c.agentPid(name); running {
		return nil
	}
	dir := c.MachineDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	exe := o.Exe
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return fmt.Errorf("find the flota binary: %w", err)
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "agent.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()
	if fi, err := log.Stat(); err == nil && fi.Size() > 10<<20 {
		_ = log.Truncate(0) // a log over 10 MB starts anew with the machine
	}
	cmd := exec.Command(exe, slices.Concat(c.upArgs(name), join, o.Args)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	ended := make(chan struct{})
	go func() { // reaps it if it ends before we do
		_ = cmd.Wait() // its log says why
		close(ended)
	}()
	c.ended[name] = ended
	return nil
}

// upArgs is the command line of a machine.
func (c *Cluster) upArgs(name string) []string {
	args := []string{"up", "--data-dir", c.MachineDir(name), "--name", name, "--addr", c.Addr(name), "--label", "dev=true",
		"--keys-addr", fmt.Sprintf("%s:%d", c.Addr(name), keysPort)}
	mem, cpu := c.share()
	return append(args, "--memory", strconv.FormatInt(mem, 10), "--cpu", strconv.FormatFloat(float64(cpu)/1000, 'f', 3, 64))
}

// share is the part of the host that each machine offers.
func (c *Cluster) share() (memBytes, cpuMillis int64) {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		memBytes = int64(si.Totalram) * int64(si.Unit) / int64(c.Machines)
	}
	return memBytes, int64(runtime.NumCPU()) * 1000 / int64(c.Machines)
}

// await waits until the named machines are ready, or says which are not and what their logs say.
func (c *Cluster) await(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	waiting := map[string]bool{}
	for _, n := range names {
		waiting[n] = true
	}
	var last error
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		for n := range waiting {
			if c.died(n) {
				tick.Stop()
				return fault.WithHint(fault.New(fault.Failed, "machine %s ended: %s", n, c.lastLog(n)), "see %s", filepath.Join(c.MachineDir(n), "agent.log"))
			}
			if last = c.isReady(ctx, n); last == nil {
				delete(waiting, n)
			}
		}
		if len(waiting) == 0 {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fault.WithHint(fault.Wrap(fault.TimedOut, last, "%d of %d machines are not ready", len(waiting), len(names)),
				"see %s", filepath.Join(c.Dir, "m*", "agent.log"))
		case <-tick.C:
		}
	}
}

// isReady asks a machine whether it sees a quorum and itself as present.
func (c *Cluster) isReady(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cl, err := api.NewClient([]string{"unix://" + c.Socket(name)}, api.ClientOptions{})
	if err != nil {
		return err
	}
	st, err := cl.Status(ctx)
	if err != nil {
		return err
	}
	if st.Leader == "" {
		return fault.New(fault.Unavailable, "%s sees no leader", name)
	}
	for _, m := range st.Machines {
		if m.Name == name && m.Presence != nil && !m.Presence.Restarting && !m.Presence.Leaving {
			return nil
		}
	}
	return fault.New(fault.Unavailable, "%s is not among the machines yet", name)
}
