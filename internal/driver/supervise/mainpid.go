package supervise

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
)

// lookAgain is how often a PID file is looked for while a unit is starting; it ends with TimeoutStartSec=.
const lookAgain = 50 * time.Millisecond

// pidFile reads PIDFile= and looks again later while the machine waits for it.
func (a *actor) pidFile() lifecycle.Event {
	p, why := a.readPIDFile()
	if p.PID != 0 {
		a.s.reaper.Disown(a.rec.Main.PID)
		a.follow(p)
		return lifecycle.PIDFile{Proc: p}
	}
	invocation := a.rec.Invocation
	a.s.later(lookAgain, func() {
		a.post(func() {
			if a.rec.WaitsFile && a.rec.Invocation == invocation {
				a.handle(a.pidFile())
			}
		})
	})
	return lifecycle.PIDFile{Why: why}
}

// readPIDFile gives the process that PIDFile= names, if it is one of the unit's; a file that root owns may
// name any. Source: systemd.service(5), PIDFile=.
func (a *actor) readPIDFile() (lifecycle.Proc, string) {
	f, err := os.Open(a.running.svc.PIDFile)
	if err != nil {
		return lifecycle.Proc{}, "no such file yet"
	}
	defer f.Close()
	var text [64]byte
	n, _ := f.Read(text[:])
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil || pid <= 1 || pid == os.Getpid() {
		return lifecycle.Proc{}, "it holds no process id"
	}
	st, ok := proc.Look(pid)
	if !ok || st.Zombie {
		return lifecycle.Proc{}, "it names process " + strconv.Itoa(pid) + ", which does not run"
	}
	if a.group != nil && !a.group.Has(pid) {
		info, err := f.Stat()
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			return lifecycle.Proc{}, "it names process " + strconv.Itoa(pid) + ", which is not of this unit"
		}
	}
	return lifecycle.Proc{PID: pid, Ticks: st.Ticks}, ""
}

// guess gives the only process of the unit that was orphaned to us: the daemon that forked away. Zero if there is
// none or more than one.
func (a *actor) guess() (main lifecycle.Proc) {
	procs, err := a.group.Procs()
	if err != nil {
		return lifecycle.Proc{}
	}
	for _, pid := range procs {
		st, ok := proc.Look(pid)
		if !ok || st.Zombie || st.Parent != os.Getpid() || pid == a.rec.Control.PID {
			continue
		}
		if main.PID != 0 {
			return lifecycle.Proc{}
		}
		main = lifecycle.Proc{PID: pid, Ticks: st.Ticks}
	}
	if main.PID != 0 {
		a.follow(main)
	}
	return main
}
