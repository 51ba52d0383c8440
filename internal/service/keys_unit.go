package service

import (
	"math"
	"path"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/setting"
)

// unitKeys are the readers of [Unit].
var unitKeys = merge(conditionKeys(), map[string]setter{
	"Description": func(p *parser, value string) error {
		if value == "" {
			p.Description = string(p.Name)
			return nil
		}
		return text(func(s *Service) *string { return &s.Description })(p, value)
	},
	"After":                dependency(func(d *Deps) *[]string { return &d.After }),
	"Before":               dependency(func(d *Deps) *[]string { return &d.Before }),
	"Wants":                dependency(func(d *Deps) *[]string { return &d.Wants }),
	"Requires":             dependency(func(d *Deps) *[]string { return &d.Requires }),
	"Requisite":            dependency(func(d *Deps) *[]string { return &d.Requisite }),
	"BindsTo":              dependency(func(d *Deps) *[]string { return &d.BindsTo }),
	"BindTo":               dependency(func(d *Deps) *[]string { return &d.BindsTo }),
	"Upholds":              dependency(func(d *Deps) *[]string { return &d.Upholds }),
	"PartOf":               dependency(func(d *Deps) *[]string { return &d.PartOf }),
	"Conflicts":            dependency(func(d *Deps) *[]string { return &d.Conflicts }),
	"OnFailure":            dependency(func(d *Deps) *[]string { return &d.OnFailure }),
	"OnSuccess":            dependency(func(d *Deps) *[]string { return &d.OnSuccess }),
	"PropagatesReloadTo":   dependency(func(d *Deps) *[]string { return &d.PropagatesReloadTo }),
	"PropagateReloadTo":    dependency(func(d *Deps) *[]string { return &d.PropagatesReloadTo }),
	"ReloadPropagatedFrom": dependency(func(d *Deps) *[]string { return &d.ReloadPropagatedFrom }),
	"PropagateReloadFrom":  dependency(func(d *Deps) *[]string { return &d.ReloadPropagatedFrom }),
	"JoinsNamespaceOf":     dependency(func(d *Deps) *[]string { return &d.JoinsNamespaceOf }),
	"RequiresMountsFor": add(func(s *Service) *[]string { return &s.Deps.RequiresMountsFor }, func(w string) error {
		_, err := setting.Path(w)
		return err
	}),
	"StartLimitIntervalSec": span(startLimitInterval, false),
	"StartLimitInterval":    span(startLimitInterval, false),
	"StartLimitBurst":       startLimitBurst,
	"StartLimitAction":      action(func(s *Service) *string { return &s.StartLimit.Action }),
	"SuccessAction":         action(func(s *Service) *string { return &s.SuccessAction }),
	"FailureAction":         action(func(s *Service) *string { return &s.FailureAction }),
})

// leftUnitKeys are the [Unit] keys of systemd 252 that Parse has no use for.
var leftUnitKeys = set(`Documentation SourcePath PropagatesStopTo StopPropagatedFrom StopWhenUnneeded RefuseManualStart
	RefuseManualStop AllowIsolate DefaultDependencies OnFailureJobMode OnSuccessJobMode OnFailureIsolate IgnoreOnIsolate
	IgnoreOnSnapshot JobTimeoutSec JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument SuccessActionExitStatus
	FailureActionExitStatus RebootArgument CollectMode RequiresOverridable RequisiteOverridable`)

// installKeys are the readers of [Install].
var installKeys = map[string]setter{
	"WantedBy":        list(func(s *Service) *[]string { return &s.Install.WantedBy }, nil),
	"RequiredBy":      list(func(s *Service) *[]string { return &s.Install.RequiredBy }, nil),
	"Also":            list(func(s *Service) *[]string { return &s.Install.Also }, nil),
	"Alias":           list(func(s *Service) *[]string { return &s.Install.Alias }, nil),
	"DefaultInstance": text(func(s *Service) *string { return &s.Install.DefaultInstance }),
}

// dependency is for lists of unit names, which only ever grow.
func dependency(field func(*Deps) *[]string) setter {
	return add(func(s *Service) *[]string { return field(&s.Deps) }, func(w string) error {
		if dot := strings.LastIndexByte(w, '.'); dot <= 0 || dot == len(w)-1 || strings.ContainsAny(w, "/ ") {
			return fault.New(fault.Invalid, "%q is not a unit name", w)
		}
		return nil
	})
}

func startLimitInterval(s *Service) *time.Duration { return &s.StartLimit.Interval }

func startLimitBurst(p *parser, value string) error {
	n, err := setting.Uint(value)
	if err != nil || n > math.MaxUint32 {
		return fault.New(fault.Invalid, "%q is not a number of starts", value)
	}
	p.StartLimit.Burst = uint(n)
	return nil
}

// action is for what the manager does when a unit ends.
func action(field func(*Service) *string) setter {
	return choice(field, "none", "reboot", "reboot-force", "reboot-immediate", "poweroff", "poweroff-force",
		"poweroff-immediate", "exit", "exit-force")
}

// conditionKeys are the readers of Condition*= and Assert*=.
func conditionKeys() map[string]setter {
	keys := map[string]setter{}
	for kind := range strings.FieldsSeq(`PathExists PathExistsGlob PathIsDirectory PathIsSymbolicLink PathIsMountPoint
		PathIsReadWrite PathIsEncrypted DirectoryNotEmpty FileNotEmpty FileIsExecutable NeedsUpdate`) {
		keys["Condition"+kind], keys["Assert"+kind] = condition(kind, false, true), condition(kind, true, true)
	}
	for kind := range strings.FieldsSeq(`ACPower Architecture CPUFeature CPUPressure CPUs Capability
		ControlGroupController Credential Environment FirstBoot Firmware Group Host IOPressure KernelCommandLine
		KernelVersion Memory MemoryPressure OSRelease Security User Virtualization`) {
		keys["Condition"+kind], keys["Assert"+kind] = condition(kind, false, false), condition(kind, true, false)
	}
	return keys
}

// condition reads a condition, or an assertion; an empty value forgets all conditions, or all assertions.
func condition(kind string, assert, isPath bool) setter {
	return func(p *parser, value string) error {
		if value == "" {
			var kept []Condition
			for _, c := range p.Conditions {
				if c.Assert != assert {
					kept = append(kept, c)
				}
			}
			p.Conditions = kept
			return nil
		}
		c := Condition{Kind: kind, Assert: assert}
		if value, c.Trigger = strings.CutPrefix(value, "|"); c.Trigger {
			value = strings.TrimLeft(value, " \t")
		}
		if value, c.Negate = strings.CutPrefix(value, "!"); c.Negate {
			value = strings.TrimLeft(value, " \t")
		}
		var err error
		if c.Value, err = p.expand(value); err != nil {
			return err
		}
		if isPath && !path.IsAbs(c.Value) {
			return fault.New(fault.Invalid, "path %q is not absolute", c.Value)
		}
		if kind == "ACPower" || kind == "FirstBoot" {
			if _, err := setting.Bool(c.Value); err != nil {
				return err
			}
		}
		p.Conditions = append(p.Conditions, c)
		return nil
	}
}

func merge(tables ...map[string]setter) map[string]setter {
	all := map[string]setter{}
	for _, t := range tables {
		for key, row := range t {
			all[key] = row
		}
	}
	return all
}
