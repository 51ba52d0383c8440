package supervise

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"flota/internal/driver/cgroup"
	"flota/internal/driver/launch"
	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
	"flota/internal/driver/setup"
	"flota/internal/service"
	"flota/internal/setting"
)

// run starts one command. The answer is Spawned or SpawnFailed.
func (a *actor) run(do lifecycle.Run) lifecycle.Event {
	if do.First || a.rec.Invocation == "" || a.group == nil {
		if err := a.newRun(); err != nil {
			return failedTo(err)
		}
	}
	// On disk before the fork: whoever comes after a crash knows the group to look into.
	a.write()
	list := lifecycle.Commands(&a.running.svc, do.Kind)
	if do.Index >= len(list) {
		return lifecycle.SpawnFailed{Result: lifecycle.Resources, Why: fmt.Sprintf("there is no %s= number %d", do.Kind, do.Index+1)}
	}
	p, err := a.launch(list[do.Index], do)
	if err != nil {
		return failedTo(err)
	}
	return lifecycle.Spawned{Proc: p, Invocation: a.rec.Invocation}
}

// failedTo turns an error of starting a process into an event.
func failedTo(err error) lifecycle.Event {
	var f *launch.Failure
	if errors.As(err, &f) {
		return lifecycle.SpawnFailed{Exit: lifecycle.Exit{Code: f.Code, Why: f.Message}}
	}
	return lifecycle.SpawnFailed{Result: lifecycle.Resources, Why: err.Error()}
}

// newRun prepares what all commands of a run share: invocation, control group, who, directories.
func (a *actor) newRun() error {
	var id [16]byte
	rand.Read(id[:]) // never fails
	a.rec.Invocation = hex.EncodeToString(id[:])
	svc := &a.running.svc
	var err error
	if a.group, err = a.s.tree.Create(string(a.name), a.rec.Invocation, limits(&svc.Resources)); a.group == nil {
		return fmt.Errorf("make control group: %w", err)
	}
	if err != nil { // the group is there; a limit could not be set
		a.s.log.Warn("a unit runs without all of its limits", "unit", a.name, "err", err)
		a.out.Say("Not all limits could be set: " + err.Error() + ".")
	}
	a.rec.OOMBefore, _ = a.group.OOMKills()
	if err := a.lookUp(); err != nil {
		return err
	}
	if err := a.setup().MakeDirs(); err != nil {
		return err
	}
	return a.startEar()
}

// lookUp finds out who the run is; again after a new supervisor took the run over.
func (a *actor) lookUp() error {
	if a.from == a.rec.Invocation {
		return nil
	}
	svc := &a.running.svc
	who, err := launch.Identify(svc, string(a.name))
	if err != nil {
		return err
	}
	a.who, a.tmp = who, ""
	if svc.Sandbox.PrivateTmp {
		if a.tmp, err = launch.MakeTmp(filepath.Join(a.dir, "tmp")); err != nil {
			return fmt.Errorf("make private directories: %w", err)
		}
	}
	a.from = a.rec.Invocation
	return nil
}

// setup is what the run finds.
func (a *actor) setup() setup.Run {
	return setup.Run{Svc: &a.running.svc, Host: &a.s.host, Who: a.who}
}

// launch makes the process and gives it an owner before anybody can take its end.
func (a *actor) launch(cmd service.Command, do lifecycle.Run) (lifecycle.Proc, error) {
	if err := a.lookUp(); err != nil {
		return lifecycle.Proc{}, err
	}
	env, err := a.setup().Environment(a.statics(do))
	if err != nil {
		return lifecycle.Proc{}, err
	}
	c := launch.Context{Host: a.s.can, Identity: a.who, Start: do.Kind == lifecycle.CmdStart,
		Env: env, Cgroup: a.group.Join(), TmpDir: a.tmp, Writable: a.setup().Writable(), MainPID: a.rec.Main.PID}
	if !cmd.NoEnv {
		c.Argv = setting.Substitute(cmd.Argv, func(name string) (string, bool) { return setting.LookupEnv(env, name) })
	}
	spec, _, err := launch.Plan(&a.running.svc, cmd, c)
	if err != nil {
		return lifecycle.Proc{}, err
	}
	out, err := a.out.Child()
	if err != nil {
		return lifecycle.Proc{}, fmt.Errorf("open output: %w", err)
	}
	defer out.Close()
	if a.running.svc.Flota.Exclusive && !a.s.fence.Open() && starts(do.Kind) {
		return lifecycle.Proc{}, errors.New("the fence has run out")
	}
	a.s.reaper.Forking.RLock()
	defer a.s.reaper.Forking.RUnlock()
	child, err := launch.Start(spec, []*os.File{out})
	if err != nil {
		return lifecycle.Proc{}, err
	}
	st, _ := proc.Look(child.PID) // not reaped yet, so it is there
	p := lifecycle.Proc{PID: child.PID, Ticks: st.Ticks}
	a.own(p, child)
	return p, nil
}

// starts reports whether a command belongs to the beginning of a run.
func starts(k lifecycle.Kind) bool {
	return k == lifecycle.CmdCondition || k == lifecycle.CmdStartPre || k == lifecycle.CmdStart
}

// own takes the child's end, and tells what happened before its program began.
func (a *actor) own(p lifecycle.Proc, child *launch.Child) {
	executed := make(chan error, 1)
	a.s.flight.Go(func() {
		err := child.Exec(a.s.patience)
		child.Close()
		executed <- err
		if err == nil {
			a.post(func() { a.handle(lifecycle.Executed{PID: p.PID}) })
		}
	})
	a.s.reaper.Own(p.PID, func(e lifecycle.Exit) {
		a.s.flight.Go(func() {
			var f *launch.Failure
			if errors.As(<-executed, &f) {
				e.Why = f.Message
			}
			a.post(func() { a.ended(p, e) })
		})
	})
}

// ended tells the machine of the end of a process that was one of its two.
func (a *actor) ended(p lifecycle.Proc, e lifecycle.Exit) {
	if p != a.rec.Main && p != a.rec.Control {
		return
	}
	if e.Signal == int(syscall.SIGKILL) && a.group != nil {
		if n, err := a.group.OOMKills(); err == nil && n > a.rec.OOMBefore {
			e.OOM = true
		}
	}
	ev := lifecycle.Ended{PID: p.PID, Exit: e}
	if p == a.rec.Main && a.running.svc.Type == service.Forking && a.running.svc.PIDFile != "" && a.rec.Phase.Active() != "deactivating" {
		ev.Moved, _ = a.readPIDFile()
	}
	before := a.rec.Main
	a.handle(ev)
	if a.rec.Main != before && a.rec.Main.PID != 0 && ev.Moved == a.rec.Main {
		a.follow(a.rec.Main)
	}
}

// follow takes the end of a process that was not started as a child here.
func (a *actor) follow(p lifecycle.Proc) {
	a.s.reaper.Follow(a.s.ctx, p, func(e lifecycle.Exit) { a.post(func() { a.ended(p, e) }) })
}

// limits gives the control group's limits of a unit.
func limits(r *service.Resources) cgroup.Limits {
	max := func(v int64) int64 {
		if v == setting.Unlimited {
			return cgroup.Unlimited
		}
		return v
	}
	l := cgroup.Limits{MemMax: max(r.MemoryMax), MemHigh: max(r.MemoryHigh), MemLow: max(r.MemoryLow), MemMin: max(r.MemoryMin),
		TasksMax: max(r.TasksMax), CPUQuota: int64(r.CPUQuota * 10), CPUPeriodMicros: r.CPUQuotaPeriod.Microseconds(),
		CPUWeight: r.CPUWeight, CPUIdle: r.CPUIdle, IOWeight: r.IOWeight}
	if r.MemorySwapMax != setting.Unlimited {
		l.SwapMax, l.SwapSet = r.MemorySwapMax, true
	}
	return l
}

// finish clears up after a run.
func (a *actor) finish(keep bool) {
	svc := &a.running.svc
	a.stopEar(true)
	if svc.PIDFile != "" && svc.Type == service.Forking {
		os.Remove(svc.PIDFile)
	}
	if preserve := svc.Dirs.RuntimePreserve; preserve != "yes" && !(preserve == "restart" && keep) {
		if err := a.setup().RemoveRuntime(); err != nil {
			a.s.log.Warn("runtime directories of a unit stay behind", "unit", a.name, "err", err)
		}
	}
	if a.tmp != "" && !a.left() {
		if err := os.RemoveAll(a.tmp); err != nil {
			a.s.log.Warn("private directories of a unit stay behind", "unit", a.name, "err", err)
		}
		a.from = ""
	}
	if a.running.svc.Sandbox.RemoveIPC && a.who.Switch && !keep {
		if err := launch.RemoveIPC(a.who); err != nil {
			a.s.log.Warn("IPC objects of a unit stay behind", "unit", a.name, "err", err)
		}
	}
	if a.group != nil && !keep && !a.left() {
		if err := a.group.Destroy(); err != nil {
			a.s.log.Debug("control group of a unit stays", "unit", a.name, "err", err)
		}
	}
}

// remove takes away all that is left of an unloaded unit.
func (a *actor) remove(ctx context.Context) error {
	if a.group == nil {
		a.group = a.s.tree.Group(string(a.name), a.rec.Invocation)
	}
	if a.left() { // KillMode=process leaves some
		if err := a.group.KillAll(ctx); err != nil {
			return fmt.Errorf("end what is left of %s: %w", a.name, err)
		}
	}
	if a.rec.Invocation != "" {
		if err := a.group.Destroy(); err != nil {
			a.s.log.Debug("control group of a unit stays", "unit", a.name, "err", err)
		}
	}
	return nil
}
