package supervise

import (
	"fmt"
	"os"
	"path/filepath"

	"flota/internal/driver/ear"
	"flota/internal/driver/home"
	"flota/internal/driver/lifecycle"
	"flota/internal/driver/proc"
	"flota/internal/service"
)

// startEar binds the unit's notification socket, unless it is bound or nobody may notify.
func (a *actor) startEar() error {
	if a.ear != nil || a.running.svc.NotifyAccess == service.NotifyNone || a.running.svc.NotifyAccess == "" {
		return nil
	}
	e, err := ear.Open(filepath.Join(a.s.home.Sockets(), home.Hash(string(a.name))[:12]))
	if err != nil {
		return err
	}
	a.ear = e
	a.s.wg.Go(func() {
		e.Listen(func(m ear.Message) {
			if !a.post(func() { a.heard(m); m.Done() }) {
				m.Done()
			}
		})
	})
	return nil
}

// stopEar closes the socket; remove also takes its path away.
func (a *actor) stopEar(remove bool) {
	if a.ear == nil {
		return
	}
	a.ear.Close()
	if remove {
		os.Remove(a.ear.Path)
	}
	a.ear = nil
}

// maySpeak checks a sender against NotifyAccess=.
func (a *actor) maySpeak(pid int) bool {
	own := pid > 0 && pid == a.rec.Main.PID
	switch a.running.svc.NotifyAccess {
	case service.NotifyMain:
		return own
	case service.NotifyExec:
		return own || pid > 0 && pid == a.rec.Control.PID
	case service.NotifyAll:
		return own || pid > 0 && (pid == a.rec.Control.PID || a.group != nil && a.group.Has(pid))
	}
	return false
}

// heard obeys a message if its sender may send it.
func (a *actor) heard(m ear.Message) {
	if !a.maySpeak(int(m.Sender.Pid)) {
		a.s.log.Debug("notification refused", "unit", a.name, "sender", m.Sender.Pid)
		return
	}
	n := m.Note
	if m.Main > 1 {
		st, there := proc.Look(m.Main)
		if there && !st.Zombie && m.Main != os.Getpid() && (a.group != nil && a.group.Has(m.Main) || m.Sender.Uid == 0) {
			n.Main = lifecycle.Proc{PID: m.Main, Ticks: st.Ticks}
		} else {
			a.out.Say(fmt.Sprintf("MAINPID=%d refused: not a process of this unit.", m.Main))
		}
	}
	before := a.rec.Main
	a.handle(n)
	if a.rec.Main != before && a.rec.Main.PID != 0 && a.rec.Main == n.Main {
		a.s.reaper.Disown(before.PID)
		a.follow(a.rec.Main)
	}
}
