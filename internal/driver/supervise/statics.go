package supervise

import (
	"strconv"
	"strings"
	"syscall"

	"flota/internal/driver/lifecycle"
	"flota/internal/setting"
)

// statics gives the variables that depend on where in its life the unit is.
func (a *actor) statics(do lifecycle.Run) (env []string) {
	add := func(name, value string) { env = append(env, name+"="+value) }
	svc := &a.running.svc
	add("INVOCATION_ID", a.rec.Invocation)
	if a.ear != nil {
		add("NOTIFY_SOCKET", a.ear.Path)
	}
	if svc.Watchdog > 0 && svc.Watchdog < setting.Infinity && do.Kind == lifecycle.CmdStart {
		add("WATCHDOG_USEC", strconv.FormatInt(svc.Watchdog.Microseconds(), 10))
	}
	if a.rec.Main.PID > 0 && !do.Main {
		add("MAINPID", strconv.Itoa(a.rec.Main.PID))
	}
	if do.Kind != lifecycle.CmdStop && do.Kind != lifecycle.CmdStopPost {
		return env
	}
	add("SERVICE_RESULT", string(a.rec.Result))
	if a.rec.Main.PID != 0 || !a.rec.MainKnown || a.rec.LastExit.Unknown {
		return env
	}
	switch e := a.rec.LastExit; {
	case e.Core:
		add("EXIT_CODE", "dumped")
		add("EXIT_STATUS", signalWord(e.Signal))
	case e.Signal != 0:
		add("EXIT_CODE", "killed")
		add("EXIT_STATUS", signalWord(e.Signal))
	default:
		add("EXIT_CODE", "exited")
		add("EXIT_STATUS", strconv.Itoa(e.Code))
	}
	return env
}

// signalWord gives a signal's name as $EXIT_STATUS has it: TERM.
func signalWord(n int) string {
	return strings.TrimPrefix(setting.SignalName(syscall.Signal(n)), "SIG")
}
