package service

import (
	"path"
	"strings"
	"syscall"
	"time"

	"flota/internal/fault"
	"flota/internal/setting"
)

// serviceKeys are the readers of [Service].
var serviceKeys = merge(runKeys(), contextKeys(), resourceKeys(), sandboxKeys())

// runKeys are the keys of commands and life cycle.
func runKeys() map[string]setter {
	return map[string]setter{
		"Type": func(p *parser, value string) error {
			err := choice(func(s *Service) *Type { return &s.Type }, Simple, Exec, Forking, Oneshot, Notify, DBus, Idle)(p, value)
			p.typeSet = p.typeSet || err == nil
			return err
		},
		"ExitType": choice(func(s *Service) *string { return &s.ExitType }, "main", "cgroup"),
		"BusName": func(p *parser, value string) error {
			v, err := p.expand(value)
			if err == nil && v != "" {
				err = setting.CheckBusName(v)
			}
			if err == nil {
				p.BusName = v
			}
			return err
		},

		"ExecCondition": exec(func(s *Service) *[]Command { return &s.ExecCondition }),
		"ExecStartPre":  exec(func(s *Service) *[]Command { return &s.ExecStartPre }),
		"ExecStart":     exec(func(s *Service) *[]Command { return &s.ExecStart }),
		"ExecStartPost": exec(func(s *Service) *[]Command { return &s.ExecStartPost }),
		"ExecReload":    exec(func(s *Service) *[]Command { return &s.ExecReload }),
		"ExecStop":      exec(func(s *Service) *[]Command { return &s.ExecStop }),
		"ExecStopPost":  exec(func(s *Service) *[]Command { return &s.ExecStopPost }),

		"RemainAfterExit": boolean(func(s *Service) *bool { return &s.RemainAfterExit }),
		"GuessMainPID":    boolean(func(s *Service) *bool { return &s.GuessMainPID }),
		"NonBlocking":     boolean(func(s *Service) *bool { return &s.NonBlocking }),
		"PIDFile":         pidFile,
		"NotifyAccess": choice(func(s *Service) *NotifyAccess { return &s.NotifyAccess },
			NotifyNone, NotifyMain, NotifyExec, NotifyAll),

		"Restart": choice(func(s *Service) *Restart { return &s.Restart }, RestartNo, RestartOnSuccess,
			RestartOnFailure, RestartOnAbnormal, RestartOnAbort, RestartOnWatchdog, RestartAlways),
		"RestartSec":               span(func(s *Service) *time.Duration { return &s.RestartDelay }, false),
		"StartLimitInterval":       span(startLimitInterval, false),
		"StartLimitBurst":          startLimitBurst,
		"StartLimitAction":         action(func(s *Service) *string { return &s.StartLimit.Action }),
		"FailureAction":            action(func(s *Service) *string { return &s.FailureAction }),
		"RestartForceExitStatus":   exits(func(s *Service) *setting.Exits { return &s.RestartForce }),
		"RestartPreventExitStatus": exits(func(s *Service) *setting.Exits { return &s.RestartNever }),
		"SuccessExitStatus":        exits(func(s *Service) *setting.Exits { return &s.Success }),

		"TimeoutStartSec": timeoutStart,
		"TimeoutStopSec":  span(func(s *Service) *time.Duration { return &s.TimeoutStop }, true),
		"TimeoutSec": func(p *parser, value string) error {
			if err := timeoutStart(p, value); err != nil {
				return err
			}
			p.TimeoutStop = p.TimeoutStart
			return nil
		},
		"TimeoutAbortSec": func(p *parser, value string) error {
			if value == "" {
				p.abortTimeoutSet = false
				return nil
			}
			err := span(func(s *Service) *time.Duration { return &s.TimeoutAbort }, false)(p, value)
			p.abortTimeoutSet = p.abortTimeoutSet || err == nil
			return err
		},
		"TimeoutStartFailureMode": choice(func(s *Service) *string { return &s.StartFailMode }, "terminate", "abort", "kill"),
		"TimeoutStopFailureMode":  choice(func(s *Service) *string { return &s.StopFailMode }, "terminate", "abort", "kill"),
		"RuntimeMaxSec":           span(func(s *Service) *time.Duration { return &s.RuntimeMax }, false),
		"WatchdogSec":             span(func(s *Service) *time.Duration { return &s.Watchdog }, false),
		"OOMPolicy": func(p *parser, value string) error {
			err := choice(func(s *Service) *string { return &s.OOMPolicy }, "continue", "stop", "kill")(p, value)
			p.oomPolicySet = p.oomPolicySet || err == nil
			return err
		},

		"KillMode": choice(func(s *Service) *KillMode { return &s.Kill.Mode },
			KillControlGroup, KillMixed, KillProcess, KillNone),
		"KillSignal": signal(func(s *Service) *syscall.Signal { return &s.Kill.Signal }),
		"RestartKillSignal": func(p *parser, value string) error {
			err := signal(func(s *Service) *syscall.Signal { return &s.Kill.Restart })(p, value)
			p.restartSignalSet = p.restartSignalSet || err == nil
			return err
		},
		"FinalKillSignal": signal(func(s *Service) *syscall.Signal { return &s.Kill.Final }),
		"WatchdogSignal":  signal(func(s *Service) *syscall.Signal { return &s.Kill.Watchdog }),
		"SendSIGHUP":      boolean(func(s *Service) *bool { return &s.Kill.SendHUP }),
		"SendSIGKILL":     boolean(func(s *Service) *bool { return &s.Kill.SendKILL }),
	}
}

func defaultKill() Kill {
	return Kill{Mode: KillControlGroup, Signal: syscall.SIGTERM, Final: syscall.SIGKILL, Watchdog: syscall.SIGABRT, SendKILL: true}
}

func timeoutStart(p *parser, value string) error {
	err := span(func(s *Service) *time.Duration { return &s.TimeoutStart }, true)(p, value)
	p.startTimeoutSet = p.startTimeoutSet || err == nil
	return err
}

// pidFile reads PIDFile=: relative paths are below the runtime directory, and /var/run means /run.
func pidFile(p *parser, value string) error {
	if value == "" {
		p.PIDFile = ""
		return nil
	}
	v, err := p.expand(value)
	if err != nil {
		return err
	}
	if v == "" {
		return fault.New(fault.Invalid, "the path is empty")
	}
	if !path.IsAbs(v) {
		v = path.Join("/", p.host.RuntimeDir) + "/" + v
	}
	if v, err = setting.Path(v); err != nil {
		return fatal{err} // systemd gives up on the file here
	}
	if below, ok := strings.CutPrefix(v, "/var/run/"); ok {
		v = "/run/" + below
	}
	p.PIDFile = v
	return nil
}
