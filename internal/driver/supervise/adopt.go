package supervise

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"flota/internal/driver/home"
	"flota/internal/driver/journal"
	"flota/internal/driver/launch/child"
	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
	"flota/internal/driver/relation"
	"flota/internal/unit"
)

// adopt loads all units of the data directory and goes on with what runs of them. It is the same after a re-exec in place,
// after a killed supervisor, and after a power cut: what differs is what is found.
//
// If none of the processes that the records name exists, the machine has lost power (or was rebooted): nothing is
// started, units that were under way are dead under run 0, and the agent decides. Otherwise a process that is
// gone has ended while nobody looked, and its unit goes on by its own rules.
func (s *supervisor) adopt() {
	var found []*actor
	survivors := 0
	entries, err := os.ReadDir(s.home.Units())
	if err != nil {
		s.log.Error("units of before cannot be read", "err", err)
	}
	for _, e := range entries {
		a := s.revive(filepath.Join(s.home.Units(), e.Name()))
		if a == nil {
			continue
		}
		found = append(found, a)
		if a.present() {
			survivors++
		}
	}
	s.mu.Lock()
	for _, a := range found {
		s.actors[a.name] = a
		s.bonds[a.name] = relation.Of(&a.loaded.svc)
	}
	s.mu.Unlock()
	for _, a := range found {
		a.start()
		a.post(func() { a.takeOver(survivors == 0) })
	}
	for _, a := range found { // before anybody is answered, the states are true
		_ = a.ask(s.ctx, func() error { return nil })
	}
	for _, a := range found {
		a.post(a.catchUp)
	}
	if !s.fence.Open() {
		s.fenceOut()
	}
}

// revive makes an actor of a unit's directory; nil if there is nothing to go on with.
func (s *supervisor) revive(dir string) *actor {
	var u unit.Unit
	if err := home.Read(filepath.Join(dir, "unit.json"), &u); err != nil || u.Name == "" || s.home.Unit(u.Name) != dir {
		s.log.Warn("directory is not a unit's; left alone", "dir", dir, "err", err)
		return nil
	}
	a, err := s.newActor(u.Name, s.define(u))
	if err != nil {
		s.log.Error("unit of before is lost", "unit", u.Name, "err", err)
		return nil
	}
	var r lifecycle.Stored
	if err := home.Read(filepath.Join(dir, "record.json"), &r); err != nil || r.Unit != u.Name {
		return a // loaded, and never started
	}
	a.rec = r.Record
	if r.Boot != proc.BootID() {
		a.rec.Main, a.rec.Control = lifecycle.Proc{}, lifecycle.Proc{}
	}
	var running unit.Unit
	if !a.rec.Resting() && home.Read(filepath.Join(dir, "running.json"), &running) == nil && running.Hash() != u.Hash() {
		a.running = s.define(running)
		a.m.Svc = &a.running.svc
	}
	if a.rec.Invocation != "" {
		a.group = s.tree.Group(string(a.name), a.rec.Invocation)
	}
	return a
}

// present reports whether any process of the unit is there, ended ones that wait to be reaped by us included.
func (a *actor) present() bool {
	if a.rec.Resting() {
		return false
	}
	for _, p := range []lifecycle.Proc{a.rec.Main, a.rec.Control} {
		if p.PID != 0 && here(p) {
			return true
		}
	}
	return a.left()
}

// here reports whether a process runs, or has ended and left its exit status for us. A zombie of somebody else's tells
// nothing any more.
func here(p lifecycle.Proc) bool {
	st, ok := proc.Look(p.PID)
	return ok && st.Ticks == p.Ticks && (!st.Zombie || st.Parent == os.Getpid())
}

// takeOver goes on with the unit where its record stands. cut: nothing at all was found running.
func (a *actor) takeOver(cut bool) {
	r := &a.rec
	switch {
	case cut:
		if r.Run != 0 || !r.Resting() {
			a.handle(lifecycle.Lost{})
		}
	case !r.Resting():
		a.goOn()
	}
	a.settle()
}

// goOn takes over a unit that is under way.
func (a *actor) goOn() {
	r := &a.rec
	if err := a.startEar(); err != nil {
		a.s.log.Error("a unit cannot notify any more", "unit", a.name, "err", err)
	}
	main, control := r.Main, r.Control
	switch r.Phase {
	case lifecycle.Condition, lifecycle.StartPre, lifecycle.Start:
		if main.PID == 0 && control.PID == 0 && !r.WaitsFile {
			// It died between two processes, or between a fork and writing that down: nobody can tell how far it came.
			a.killStrays()
			a.killAll()
			a.handle(lifecycle.Lost{})
			return
		}
	case lifecycle.AutoRestart:
		return // its timer runs on
	}
	for _, p := range []lifecycle.Proc{control, main} {
		if p.PID == 0 {
			continue
		}
		if here(p) {
			a.follow(p)
			a.mayHaveRun(p)
		} else {
			a.ended(p, lifecycle.Exit{Unknown: true})
		}
	}
	if r.WaitsFile {
		a.handle(a.pidFile())
	}
	if r.Main.PID == 0 || r.Phase.Active() == "deactivating" {
		a.waitEmpty()
	}
	if r.Result == lifecycle.Fenced && !r.Resting() {
		a.handle(a.killAll())
	}
}

// mayHaveRun tells the machine that a Type=exec process has begun its program: whoever started it was replaced before it knew.
func (a *actor) mayHaveRun(p lifecycle.Proc) {
	if exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.PID), "exe")); err == nil {
		if own, err := os.Readlink("/proc/self/exe"); err == nil && exe != own {
			a.handle(lifecycle.Executed{PID: p.PID})
		}
	}
}

// killStrays ends processes that an earlier supervisor forked for this unit and that have neither joined its group nor stand in
// its record: helpers between fork and exec. They hold the unit's output open.
func (a *actor) killStrays() {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	for _, dir := range all {
		name, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || strings.TrimRight(string(name), "\x00") != child.Name {
			continue
		}
		fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
		for _, fd := range fds {
			to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			if pid, _ := strconv.Atoi(filepath.Base(dir)); err == nil && to == journal.FIFO(a.dir) {
				if st, ok := proc.Look(pid); ok && proc.Signal(pid, st.Ticks, syscall.SIGKILL) {
					a.s.log.Info("ended a process that was only being started", "unit", a.name, "pid", pid)
				}
				break
			}
		}
	}
}
