package supervise

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"flota/internal/driver/cgroup"
	"flota/internal/driver/condition"
	"flota/internal/driver/home"
	"flota/internal/driver/lifecycle"
	"flota/internal/service"
	"flota/internal/setting"
	"flota/internal/unit"
)

// definition is a unit's content and what it means here.
type definition struct {
	unit.Unit
	svc   service.Service
	bad   string   // why it can never start; empty for none
	notes []string // what is not honoured
}

// define reads a unit. It never fails: a bad unit is loaded with the reason.
func (s *supervisor) define(u unit.Unit) *definition {
	d := &definition{Unit: u}
	svc, notes, err := service.Parse(u.Name, u.File(), s.host)
	d.svc = svc
	for _, n := range notes {
		d.notes = append(d.notes, n.String())
	}
	switch {
	case u.Name.Kind() != unit.Service:
		d.bad = "no driver on this machine runs ." + string(u.Name.Kind()) + " units"
	case err != nil:
		d.bad = err.Error()
	case svc.Type == service.DBus:
		d.bad = "Type=dbus: there is no system bus here to wait on; use Type=notify or simple"
	}
	d.notes = append(d.notes, s.unhonoured(&d.svc)...)
	d.notes = append(d.notes, undone(u.File())...)
	return d
}

// restricting is the end of a note on a key whose loss weakens the unit's isolation.
const restricting = "not honoured (" + string(service.Restricting) + ")"

// strict gives the notes that make a strict driver refuse a unit.
func (d *definition) strict() (out []string) {
	for _, n := range d.notes {
		if strings.HasSuffix(n, restricting) {
			out = append(out, n)
		}
	}
	return out
}

// own are the [Service] keys that the supervisor itself carries out, for what launch and the control groups do not.
var own = words(`Type ExitType ExecCondition ExecStartPre ExecStart ExecStartPost ExecReload ExecStop ExecStopPost
	RemainAfterExit PIDFile GuessMainPID NotifyAccess Restart RestartSec StartLimitInterval StartLimitBurst
	RestartForceExitStatus RestartPreventExitStatus SuccessExitStatus TimeoutStartSec TimeoutStopSec TimeoutSec TimeoutAbortSec
	TimeoutStartFailureMode TimeoutStopFailureMode RuntimeMaxSec WatchdogSec OOMPolicy KillMode KillSignal RestartKillSignal
	FinalKillSignal WatchdogSignal SendSIGHUP SendSIGKILL Environment EnvironmentFile PassEnvironment UnsetEnvironment
	RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve StateDirectory StateDirectoryMode CacheDirectory
	CacheDirectoryMode LogsDirectory LogsDirectoryMode ConfigurationDirectory ConfigurationDirectoryMode RemoveIPC
	SyslogIdentifier NonBlocking`)

// quiet are keys that have nothing to act on here; leaving them out changes nothing a unit could see.
var quiet = words(`Slice SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax CPUAccounting MemoryAccounting IOAccounting
	BlockIOAccounting TasksAccounting IPAccounting BusName`)

// unhonoured gives a note for each key of the file that nothing here carries out.
func (s *supervisor) unhonoured(svc *service.Service) (notes []string) {
	launched := s.can.Honoured()
	grouped := grouped(s.tree.Support())
	for key := range svc.Keys {
		honoured, known := launched[key]
		if !known {
			if honoured, known = grouped[key]; !known {
				honoured = own[key] || quiet[key]
			}
		}
		if !honoured {
			notes = append(notes, key+"=: not honoured ("+string(service.Class(key))+")")
		}
	}
	for _, c := range svc.Conditions {
		if !condition.Known(c.Kind) {
			notes = append(notes, "Condition"+c.Kind+"=: not known here, taken as true")
		}
	}
	slices.Sort(notes)
	return notes
}

// grouped tells for each key that control groups carry out whether they do with what the host's groups can.
func grouped(can cgroup.Support) map[string]bool {
	return map[string]bool{
		"MemoryMax": can.Memory, "MemoryLimit": can.Memory, "MemoryHigh": can.MemoryHigh, "MemoryMin": can.MemoryHigh,
		"MemoryLow": can.MemoryHigh, "MemorySwapMax": can.Swap, "TasksMax": can.Pids, "CPUQuota": can.CPU,
		"CPUQuotaPeriodSec": can.CPU, "CPUWeight": can.CPU, "CPUShares": can.CPU, "IOWeight": can.IO, "BlockIOWeight": can.IO, "Delegate": can.Mode != "none",
	}
}

// state gives the unit's state as the driver's interface wants it.
func (a *actor) state() unit.State {
	r := &a.rec
	st := unit.State{Unit: a.name, Hash: a.loaded.Hash(), Run: r.Run, Load: "loaded", Active: r.Phase.Active(), Sub: string(r.Phase),
		Result: string(r.Result), MainPID: max(0, r.Main.PID), ExitCode: r.LastExit.Code, Restarts: r.Restarts, Since: r.Since,
		Message: r.Message, Status: r.Status, Notes: a.loaded.notes}
	if r.Phase == "" {
		st.Sub = string(lifecycle.Dead)
	}
	if r.LastExit.Signal != 0 {
		st.Signal = setting.SignalName(syscall.Signal(r.LastExit.Signal))
	}
	if a.loaded.bad != "" {
		st.Load, st.Message = "bad-setting", a.loaded.bad
	}
	return st
}

// store writes the unit's content, as the next supervisor will load it.
func (a *actor) store() error {
	return home.Save(filepath.Join(a.dir, "unit.json"), a.loaded.Unit)
}

// words makes a set of the words of a text.
func words(text string) map[string]bool {
	all := map[string]bool{}
	for _, w := range strings.Fields(text) {
		all[w] = true
	}
	return all
}
