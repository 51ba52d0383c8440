package supervise

import (
	"slices"
	"strings"

	"flota/internal/setting"
	"flota/internal/unit"
)

// relations are the keys of [Unit] that name other units. A machine runs each unit on its own, whatever becomes of others, so that none of
// them is acted on.
var relations = words(`After Before Wants Requires Requisite BindsTo BindTo Upholds PartOf Conflicts OnFailure OnSuccess PropagatesReloadTo
	PropagateReloadTo ReloadPropagatedFrom PropagateReloadFrom PropagatesStopTo StopPropagatedFrom JoinsNamespaceOf RequiresOverridable
	RequisiteOverridable`)

// actions are the keys that have systemd end the whole machine, and "none" by default.
var actions = words("SuccessAction FailureAction StartLimitAction JobTimeoutAction")

// unacted are further keys of [Unit] that would change what happens to the unit.
var unacted = words("StopWhenUnneeded RefuseManualStart RefuseManualStop JobTimeoutSec JobRunningTimeoutSec")

// usual are units of the host that are there, or have been started, before any unit of Flota is: naming them asks for nothing.
// Source: systemd.special(7), and what Debian 12's own services name.
var usual = words(`-.mount -.slice apparmor.service basic.target boot-complete.target cloud-config.target cloud-init.target cryptsetup.target
	dbus.service dbus.socket default.target emergency.target exit.target final.target first-boot-complete.target getty.target graphical.target
	halt.target initrd.target kexec.target local-fs-pre.target local-fs.target machines.target multi-user.target network-online.target
	network-pre.target network.target nss-lookup.target nss-user-lookup.target paths.target poweroff.target reboot.target remote-fs-pre.target
	remote-fs.target rescue.target rpcbind.target rsyslog.service shutdown.target sleep.target slices.target sockets.target swap.target
	sysinit.target syslog.service syslog.socket syslog.target system.slice time-set.target time-sync.target timers.target umount.target`)

// undone gives a note for each key of [Unit] that asks for something that is not done here.
func undone(f unit.File) (notes []string) {
	others := map[string][]string{}
	for _, o := range f.Options {
		if o.Section != "Unit" {
			continue
		}
		switch {
		case relations[o.Name]:
			names, _ := setting.PlainWords(o.Joined()) // what cannot be read has a note of its own
			for _, n := range names {
				if !usual[n] && !strings.HasPrefix(n, "systemd-") && !slices.Contains(others[o.Name], n) {
					others[o.Name] = append(others[o.Name], n)
				}
			}
		case actions[o.Name] && o.Value != "" && o.Value != "none", unacted[o.Name] && o.Value != "":
			others[o.Name] = []string{o.Joined()}
		}
	}
	for key, names := range others {
		notes = append(notes, "[Unit] "+key+"=: not acted on ("+strings.Join(names, ", ")+")")
	}
	slices.Sort(notes)
	return notes
}
