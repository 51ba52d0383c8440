package service

import (
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/setting"
)

// resourceKeys are the keys of limits, shares and scheduling.
func resourceKeys() map[string]setter {
	keys := map[string]setter{
		"MemoryMax":         memory(func(r *Resources) *int64 { return &r.MemoryMax }, setting.Unlimited, false),
		"MemoryHigh":        memory(func(r *Resources) *int64 { return &r.MemoryHigh }, setting.Unlimited, false),
		"MemorySwapMax":     memory(func(r *Resources) *int64 { return &r.MemorySwapMax }, setting.Unlimited, true),
		"MemoryLow":         memory(func(r *Resources) *int64 { return &r.MemoryLow }, 0, true),
		"MemoryMin":         memory(func(r *Resources) *int64 { return &r.MemoryMin }, 0, true),
		"TasksMax":          tasks,
		"CPUQuota":          cpuQuota,
		"CPUQuotaPeriodSec": cpuQuotaPeriod,
		"CPUWeight":         cpuWeight,
		"IOWeight":          weight(func(r *Resources) *int64 { return &r.IOWeight }),
		"Delegate":          delegate,
		"Slice":             text(func(s *Service) *string { return &s.Resources.Slice }),

		"Nice": settable(func(s *Service) (*int, *bool) { return &s.Resources.Nice, &s.Resources.NiceSet }, 0, -20, 19),
		"OOMScoreAdjust": settable(func(s *Service) (*int, *bool) {
			return &s.Resources.OOMScoreAdjust, &s.Resources.OOMScoreSet
		}, 0, -1000, 1000),
		"CPUSchedulingPolicy": wordOrNone(func(r *Resources) *string { return &r.CPUPolicy },
			"other", "batch", "idle", "fifo", "rr"),
		"CPUSchedulingPriority": integer(func(s *Service) *int { return &s.Resources.CPUPriority }, 0, 99),
		"IOSchedulingClass": wordOrNone(func(r *Resources) *string { return &r.IOClass },
			"none", "realtime", "best-effort", "idle"),
		"IOSchedulingPriority": settable(func(s *Service) (*int, *bool) {
			return &s.Resources.IOPriority, &s.Resources.IOPrioritySet
		}, 4, 0, 7),
		"CPUAffinity": cpuAffinity,
	}
	for resource := range strings.FieldsSeq(
		"CPU FSIZE DATA STACK CORE RSS NOFILE AS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME") {
		keys["Limit"+resource] = func(p *parser, value string) error {
			l, err := setting.ParseLimit(resource, value)
			if err == nil {
				p.Limits[resource] = l
			}
			return err
		}
	}
	return keys
}

// pageSize is what shares of memory are cut to. Source: systemd counts shares in pages.
const pageSize = 4096

// memory reads a limit or a protection of memory; empty sets it back to otherwise.
func memory(field func(*Resources) *int64, otherwise int64, zero bool) setter {
	return func(p *parser, value string) error {
		if value == "" {
			*field(&p.Resources) = otherwise
			return nil
		}
		amount, err := setting.MemoryAmount(value)
		if err != nil {
			return err
		}
		bytes := amount.Of(p.host.MemBytes)
		if amount.Share > 0 && bytes != setting.Unlimited {
			bytes -= bytes % pageSize
		}
		if bytes == 0 && !zero {
			return fault.New(fault.Invalid, "memory limit %q is out of range", value)
		}
		*field(&p.Resources) = bytes
		return nil
	}
}

func tasks(p *parser, value string) error {
	if value == "" {
		p.Resources.TasksMax = defaultTasks(p.host)
		return nil
	}
	amount, err := setting.TasksAmount(value)
	if err != nil {
		return err
	}
	n := amount.Of(p.host.MaxTasks)
	if n == 0 {
		return fault.New(fault.Invalid, "number of tasks %q must be above 0", value)
	}
	p.Resources.TasksMax = n
	return nil
}

func cpuQuota(p *parser, value string) error {
	if value == "" {
		p.Resources.CPUQuota = 0
		return nil
	}
	percent, err := setting.Percent(value)
	if err == nil && percent == 0 {
		err = fault.New(fault.Invalid, "quota %q must be above 0%%", value)
	}
	if err == nil {
		p.Resources.CPUQuota = percent
	}
	return err
}

// cpuQuotaPeriod reads CPUQuotaPeriodSec=; the kernel takes 1 ms to 1 s. Source: systemd.resource-control(5).
func cpuQuotaPeriod(p *parser, value string) error {
	if value == "" {
		p.Resources.CPUQuotaPeriod = 100 * time.Millisecond
		return nil
	}
	d, err := setting.Span(value)
	if err == nil {
		p.Resources.CPUQuotaPeriod = min(max(d, time.Millisecond), time.Second)
	}
	return err
}

func cpuWeight(p *parser, value string) error {
	if value == "idle" {
		p.Resources.CPUWeight, p.Resources.CPUIdle = 0, true
		return nil
	}
	err := weight(func(r *Resources) *int64 { return &r.CPUWeight })(p, value)
	if err == nil {
		p.Resources.CPUIdle = false
	}
	return err
}

func weight(field func(*Resources) *int64) setter {
	return func(p *parser, value string) error {
		n := int64(0)
		if value != "" {
			w, err := setting.Uint(value)
			if err != nil || w < 1 || w > 10000 {
				return fault.New(fault.Invalid, "%q is not a weight from 1 to 10000", value)
			}
			n = int64(w)
		}
		*field(&p.Resources) = n
		return nil
	}
}

// delegate reads a boolean or a list of controllers; the list, an empty one too, turns delegation on.
func delegate(p *parser, value string) error {
	if b, err := setting.Bool(value); err == nil {
		p.Resources.Delegate, p.Resources.DelegateControllers = b, nil
		return nil
	}
	r := &p.Resources
	if !r.Delegate || value == "" {
		r.DelegateControllers = []string{}
	}
	all := r.Delegate && r.DelegateControllers == nil
	r.Delegate = true
	words, err := p.expandWords(value)
	for _, w := range words {
		switch w {
		case "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids", "bpf-firewall", "bpf-devices",
			"bpf-foreign", "bpf-socket-bind", "bpf-restrict-network-interfaces":
			if !all && !slices.Contains(r.DelegateControllers, w) {
				r.DelegateControllers = append(r.DelegateControllers, w)
			}
		default:
			p.skip(fault.New(fault.Invalid, "%q is not a controller", w))
		}
	}
	return err
}

func wordOrNone(field func(*Resources) *string, words ...string) setter {
	return func(p *parser, value string) error {
		if value == "" {
			*field(&p.Resources) = ""
			return nil
		}
		return choice(func(s *Service) *string { return field(&s.Resources) }, words...)(p, value)
	}
}

// cpuAffinity adds processors; empty forgets those before.
func cpuAffinity(p *parser, value string) error {
	if value == "" {
		p.Resources.CPUAffinity = nil
		return nil
	}
	cpus, err := setting.CPUs(value)
	if err == nil {
		cpus = append(cpus, p.Resources.CPUAffinity...)
		slices.Sort(cpus)
		p.Resources.CPUAffinity = slices.Compact(cpus)
	}
	return err
}
