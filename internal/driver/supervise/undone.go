package supervise

import (
	"slices"
	"strings"

	"flota/internal/setting"
	"flota/internal/unit"
)

// near are the keys that name other units and are acted on between units of one machine: see room relation.
var near = map[string]map[string]bool{"Unit": words("Wants Requires BindsTo BindTo PartOf"), "Install": words("WantedBy RequiredBy")}

// relations are the keys of [Unit] that name other units and that nothing acts on. After= and Before= are acted on for what starts because
// of WantedBy= and the like only.
var relations = words(`After Before Requisite Upholds Conflicts OnFailure OnSuccess PropagatesReloadTo PropagateReloadTo ReloadPropagatedFrom
	PropagateReloadFrom PropagatesStopTo StopPropagatedFrom JoinsNamespaceOf RequiresOverridable RequisiteOverridable`)

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

// undone gives a note for each key of [Unit] and [Install] that asks for something that is not done here, or only while the units that it
// names are on the same machine. MachineOf= keeps them there, so that a key which names the same unit as that is done.
func undone(f unit.File) (notes []string) {
	others := map[string][]string{}
	add := func(key, what, value string, but []string) {
		key += "=: " + what
		names, _ := setting.PlainWords(value) // what cannot be read has a note of its own
		for _, n := range names {
			if !usual[n] && !strings.HasPrefix(n, "systemd-") && !slices.Contains(but, n) && !slices.Contains(others[key], n) {
				others[key] = append(others[key], n)
			}
		}
	}
	together := named(f, "X-Fleet", "MachineOf", "X-ConditionMachineOf")
	startedFor := named(f, "Install", "WantedBy", "RequiredBy")
	for _, o := range f.Options {
		key := "[" + o.Section + "] " + o.Name
		switch {
		case near[o.Section][o.Name]:
			add(key, "acted on only while on the same machine", o.Joined(), together)
		case o.Section != "Unit":
		case o.Name == "After":
			add(key, "not acted on", o.Joined(), startedFor)
		case relations[o.Name]:
			add(key, "not acted on", o.Joined(), nil)
		case actions[o.Name] && o.Value != "" && o.Value != "none", unacted[o.Name] && o.Value != "":
			others[key+"=: not acted on"] = []string{o.Joined()}
		}
	}
	for key, names := range others {
		notes = append(notes, key+" ("+strings.Join(names, ", ")+")")
	}
	slices.Sort(notes)
	return notes
}

// named gives the words of the keys of a section.
func named(f unit.File, section string, keys ...string) (all []string) {
	for _, key := range keys {
		for _, value := range f.All(section, key) {
			all = append(all, strings.Fields(value)...)
		}
	}
	return all
}
