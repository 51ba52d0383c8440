package service

import (
	"slices"
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// sandboxKeys are the keys of what a service may not do or see.
func sandboxKeys() map[string]setter {
	box := func(field func(*Sandbox) *bool) setter {
		return boolean(func(s *Service) *bool { return field(&s.Sandbox) })
	}
	readWrite := pathRules(func(b *Sandbox) *[]PathRule { return &b.ReadWrite })
	readOnly := pathRules(func(b *Sandbox) *[]PathRule { return &b.ReadOnly })
	inaccessible := pathRules(func(b *Sandbox) *[]PathRule { return &b.Inaccessible })
	return map[string]setter{
		"PrivateTmp":     box(func(b *Sandbox) *bool { return &b.PrivateTmp }),
		"PrivateDevices": box(func(b *Sandbox) *bool { return &b.PrivateDevices }),
		"PrivateNetwork": box(func(b *Sandbox) *bool { return &b.PrivateNetwork }),
		"PrivateUsers":   box(func(b *Sandbox) *bool { return &b.PrivateUsers }),
		"PrivateIPC":     box(func(b *Sandbox) *bool { return &b.PrivateIPC }),
		"PrivateMounts":  box(func(b *Sandbox) *bool { return &b.PrivateMounts }),

		"ProtectSystem": choiceOrBool(func(s *Service) *string { return &s.Sandbox.ProtectSystem }, "", "full", "strict"),
		"ProtectHome":   choiceOrBool(func(s *Service) *string { return &s.Sandbox.ProtectHome }, "", "read-only", "tmpfs"),
		"ProtectProc": defaulted(func(b *Sandbox) *string { return &b.ProtectProc }, "default",
			"noaccess", "invisible", "ptraceable"),
		"ProcSubset": defaulted(func(b *Sandbox) *string { return &b.ProcSubset }, "all", "pid"),

		"ProtectControlGroups":  box(func(b *Sandbox) *bool { return &b.ProtectControlGroups }),
		"ProtectKernelTunables": box(func(b *Sandbox) *bool { return &b.ProtectKernelTunables }),
		"ProtectKernelModules":  box(func(b *Sandbox) *bool { return &b.ProtectKernelModules }),
		"ProtectKernelLogs":     box(func(b *Sandbox) *bool { return &b.ProtectKernelLogs }),
		"ProtectClock":          box(func(b *Sandbox) *bool { return &b.ProtectClock }),
		"ProtectHostname":       box(func(b *Sandbox) *bool { return &b.ProtectHostname }),

		"ReadWritePaths": readWrite, "ReadWriteDirectories": readWrite,
		"ReadOnlyPaths": readOnly, "ReadOnlyDirectories": readOnly,
		"InaccessiblePaths": inaccessible, "InaccessibleDirectories": inaccessible,
		"ExecPaths":           pathRules(func(b *Sandbox) *[]PathRule { return &b.Exec }),
		"NoExecPaths":         pathRules(func(b *Sandbox) *[]PathRule { return &b.NoExec }),
		"BindPaths":           binds(false),
		"BindReadOnlyPaths":   binds(true),
		"TemporaryFileSystem": tmpfs,
		"MountFlags": choice(func(s *Service) *string { return &s.Sandbox.MountFlags },
			"", "shared", "slave", "private"),

		"RestrictAddressFamilies": families,
		"RestrictFileSystems":     fileSystems,
		"RestrictNamespaces":      restrictNamespaces,
		"RestrictRealtime":        box(func(b *Sandbox) *bool { return &b.RestrictRealtime }),
		"RestrictSUIDSGID":        box(func(b *Sandbox) *bool { return &b.RestrictSUIDSGID }),
		"LockPersonality":         box(func(b *Sandbox) *bool { return &b.LockPersonality }),
		"MemoryDenyWriteExecute":  box(func(b *Sandbox) *bool { return &b.NoWriteExec }),
		"SystemCallFilter":        systemCalls,
		"SystemCallErrorNumber":   systemCallErrno,
		"SystemCallArchitectures": list(func(s *Service) *[]string { return &s.Sandbox.SystemCallArchs }, checkArch),
		"RemoveIPC":               box(func(b *Sandbox) *bool { return &b.RemoveIPC }),
		"DevicePolicy": choice(func(s *Service) *string { return &s.Sandbox.DevicePolicy },
			"auto", "closed", "strict"),
		"DeviceAllow":     deviceAllow,
		"IPAddressAllow":  list(func(s *Service) *[]string { return &s.Sandbox.IPAllow }, setting.CheckPrefix),
		"IPAddressDeny":   list(func(s *Service) *[]string { return &s.Sandbox.IPDeny }, setting.CheckPrefix),
		"AppArmorProfile": text(func(s *Service) *string { return &s.Sandbox.AppArmor }),
		"KeyringMode": choice(func(s *Service) *string { return &s.Sandbox.KeyringMode },
			"inherit", "private", "shared"),
	}
}

// defaulted is for a word out of several, the first of which is stored as "".
func defaulted(field func(*Sandbox) *string, first string, words ...string) setter {
	return func(p *parser, value string) error {
		if value == first {
			*field(&p.Sandbox) = ""
			return nil
		}
		return choice(func(s *Service) *string { return field(&s.Sandbox) }, words...)(p, value)
	}
}

// deviceAllow reads DeviceAllow=: a device and what may be done with it, all when nothing is said.
func deviceAllow(p *parser, value string) error {
	if value == "" {
		p.Sandbox.Devices = nil
		return nil
	}
	words, err := p.expandWords(value)
	if err != nil {
		return err
	}
	if len(words) == 0 || len(words) > 2 {
		return fault.New(fault.Invalid, "%q is not a device and its rights", value)
	}
	d := Device{Name: words[0]}
	if !strings.HasPrefix(d.Name, "/dev/") && !strings.HasPrefix(d.Name, "char-") && !strings.HasPrefix(d.Name, "block-") ||
		slices.Contains(strings.Split(d.Name, "/"), "..") {
		return fault.New(fault.Invalid, "%q is not a device", d.Name)
	}
	rights := "rwm"
	if len(words) == 2 {
		rights = words[1]
	}
	if strings.Trim(rights, "rwm") != "" || rights == "" {
		return fault.New(fault.Invalid, "%q are not rights (r, w, m)", rights)
	}
	d.Read, d.Write = strings.Contains(rights, "r"), strings.Contains(rights, "w")
	d.Mknod = strings.Contains(rights, "m")
	p.Sandbox.Devices = append(p.Sandbox.Devices, d)
	return nil
}
