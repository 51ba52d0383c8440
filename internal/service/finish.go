package service

import (
	"fmt"
	"hash/fnv"
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// finish sets the defaults that depend on other keys, and refuses what systemd refuses to load.
func (p *parser) finish() error {
	if !p.typeSet {
		p.Type = Oneshot
		if len(p.ExecStart) > 0 {
			p.Type = Simple
		}
		if p.BusName != "" {
			p.Type = DBus
		}
	}
	if err := p.check(); err != nil {
		return err
	}
	if p.Type == Oneshot && !p.startTimeoutSet {
		p.TimeoutStart = setting.Infinity
	}
	if !p.abortTimeoutSet {
		p.TimeoutAbort = p.TimeoutStop
	}
	if !p.restartSignalSet {
		p.Kill.Restart = p.Kill.Signal
	}
	if p.NotifyAccess == NotifyNone && (p.Type == Notify || p.Watchdog > 0) {
		p.NotifyAccess = NotifyMain
	}
	if p.Resources.Delegate && !p.oomPolicySet {
		p.OOMPolicy = "continue"
	}
	if r := &p.Resources; (r.CPUPolicy == "fifo" || r.CPUPolicy == "rr") && r.CPUPriority == 0 {
		r.CPUPriority = 1
	}
	p.finishSandbox()
	return nil
}

// check refuses what cannot be a service. Source: the rules of systemd 252 by its messages in the golden cases.
func (p *parser) check() error {
	none := p.SuccessAction == "none"
	switch {
	case len(p.ExecStart) == 0 && len(p.ExecStop) == 0 && none:
		return fault.New(fault.Invalid, "no ExecStart=, ExecStop= or SuccessAction=")
	case len(p.ExecStart) == 0 && p.Type != Oneshot && none:
		return fault.New(fault.Invalid, "no ExecStart=, which only Type=oneshot allows")
	case len(p.ExecStart) == 0 && !p.RemainAfterExit && none:
		return fault.New(fault.Invalid, "no ExecStart= and no SuccessAction=, which needs RemainAfterExit=yes")
	case len(p.ExecStart) > 1 && p.Type != Oneshot:
		return fault.New(fault.Invalid, "more than one ExecStart=, which only Type=oneshot allows")
	case p.Type == Oneshot && (p.Restart == RestartAlways || p.Restart == RestartOnSuccess):
		return fault.New(fault.Invalid, "Restart=%s does not go with Type=oneshot", p.Restart)
	case p.Type == Oneshot && len(p.RestartForce.Codes)+len(p.RestartForce.Signals) > 0:
		return fault.New(fault.Invalid, "RestartForceExitStatus= does not go with Type=oneshot")
	case p.Type == Oneshot && p.ExitType == "cgroup":
		return fault.New(fault.Invalid, "ExitType=cgroup does not go with Type=oneshot")
	case p.Type == DBus && p.BusName == "":
		return fault.New(fault.Invalid, "Type=dbus needs BusName=")
	}
	return nil
}

// finishSandbox adds what some sandbox keys imply. Source: systemd.exec(5), DynamicUser=, PrivateDevices=,
// ProtectKernelModules=, ProtectKernelLogs=, ProtectClock=.
func (p *parser) finishSandbox() {
	b := &p.Sandbox
	if p.namespaces != nil && len(p.namespaces) < len(namespaceKinds()) {
		b.NamespacesSet, b.Namespaces = true, []string{}
		for _, kind := range namespaceKinds() {
			if p.namespaces[kind] {
				b.Namespaces = append(b.Namespaces, kind)
			}
		}
	}
	if p.Identity.Dynamic {
		b.PrivateTmp, b.RemoveIPC, b.RestrictSUIDSGID, p.Identity.NoNewPrivs = true, true, true, true
		b.ProtectSystem = "strict"
		if b.ProtectHome == "" {
			b.ProtectHome = "read-only"
		}
		if p.Identity.User == "" {
			p.Identity.User = dynamicUser(p.Name.Prefix())
		}
		if p.Identity.Group == "" {
			p.Identity.Group = p.Identity.User
		}
	}
	for _, implied := range []struct {
		by   bool
		caps string
	}{
		{b.PrivateDevices, "~CAP_MKNOD CAP_SYS_RAWIO"},
		{b.ProtectKernelModules, "~CAP_SYS_MODULE"},
		{b.ProtectKernelLogs, "~CAP_SYSLOG"},
		{b.ProtectClock, "~CAP_SYS_TIME CAP_WAKE_ALARM"},
	} {
		if implied.by {
			p.Identity.Bounding, _ = setting.MergeCaps(p.Identity.Bounding, setting.AllCaps, implied.caps)
		}
	}
	if b.ProtectClock {
		b.Devices = append(b.Devices, Device{Name: "char-rtc", Read: true})
	}
	if b.PrivateDevices && b.DevicePolicy == "auto" {
		b.DevicePolicy = "closed"
	}
}

// dynamicUser gives the user name of DynamicUser= without User=: the unit's prefix if that can be a user name (letters,
// digits, - and _, 31 at most), else one made of its hash.
func dynamicUser(prefix string) string {
	letters := strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
	if prefix != "" && letters && len(prefix) <= 31 && prefix[0] != '-' && (prefix[0] < '0' || prefix[0] > '9') {
		return prefix
	}
	hash := fnv.New64a()
	hash.Write([]byte(prefix)) // never fails
	return fmt.Sprintf("_du%016x", hash.Sum64())
}
