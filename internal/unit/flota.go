package unit

import (
	"math"
	"strconv"
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// xFlota is the section with Flota's own options.
const xFlota = "X-Flota"

// Flota is what [X-Flota] says of a unit; the zero value is a unit without that section.
type Flota struct {
	// Exclusive units never run twice, not even across a partition; their machine stops them when it loses
	// the cluster.
	Exclusive bool
	// Needs is what the unit asks of a machine, found as File.Needs finds it.
	Needs Needs
}

// Needs is what a unit asks of the machine that it is placed on. Zero asks for nothing.
type Needs struct {
	MemBytes  int64 `json:"memBytes,omitempty"`
	CPUMillis int64 `json:"cpuMillis,omitempty"` // thousandths of a core
}

// Flota reads [X-Flota]; n stands in messages. Unlike systemd's keys, a bad value is an error: fault.Invalid,
// naming the unit and the key. An empty value is as if the key were not there.
func (f File) Flota(n Name) (Flota, error) {
	var own Flota
	if text, _ := f.Last(xFlota, "Exclusive"); text != "" {
		yes, err := setting.Bool(text)
		if err != nil {
			return Flota{}, fault.Wrap(fault.Invalid, err, "%s: [X-Flota] Exclusive=", n)
		}
		own.Exclusive = yes
	}
	needs, err := f.Needs()
	if err != nil {
		return Flota{}, fault.Wrap(fault.Invalid, err, "%s", n)
	}
	own.Needs = needs
	return own, nil
}

// Needs gives what the unit asks of its machine: Memory= and CPU= of [X-Flota], else the limits the unit sets
// itself: MemoryMax= and CPUQuota= of [Service] and, before them, Memory= of [Container]. "infinity", and a share
// of the machine's memory, ask for nothing, and so does 0 in [X-Flota]. A bad value in [X-Flota] is
// fault.Invalid; elsewhere it is ignored, as systemd does.
func (f File) Needs() (Needs, error) {
	var needs Needs
	if text, _ := f.Last(xFlota, "Memory"); text != "" {
		mem, err := setting.Size(text)
		if err != nil {
			return Needs{}, fault.Wrap(fault.Invalid, err, "[X-Flota] Memory=")
		}
		needs.MemBytes = finite(mem)
	} else if mem := f.limit("Container", "Memory", memory); mem > 0 {
		needs.MemBytes = mem
	} else {
		needs.MemBytes = f.limit("Service", "MemoryMax", memory)
	}
	if text, _ := f.Last(xFlota, "CPU"); text != "" {
		cpu, err := cores(text)
		if err != nil {
			return Needs{}, fault.Wrap(fault.Invalid, err, "[X-Flota] CPU=")
		}
		needs.CPUMillis = cpu
	} else {
		needs.CPUMillis = f.limit("Service", "CPUQuota", quota)
	}
	return needs, nil
}

// limit gives the value that systemd would use of a key: the last good one, 0 after an empty assignment.
func (f File) limit(section, key string, read func(string) (int64, bool)) int64 {
	var value int64
	for _, text := range f.All(section, key) {
		if text == "" {
			value = 0
		} else if v, ok := read(text); ok {
			value = v
		}
	}
	return value
}

// memory reads MemoryMax=; 0 for infinity and for a share of the machine.
func memory(text string) (int64, bool) {
	amount, err := setting.MemoryAmount(text)
	if err != nil || amount == (setting.Amount{}) { // systemd refuses 0
		return 0, false
	}
	return finite(amount.Absolute), true
}

// quota reads CPUQuota=, percent of one core, as thousandths of a core. systemd refuses 0%.
func quota(text string) (int64, bool) {
	percent, err := setting.Percent(text)
	if err != nil || percent == 0 {
		return 0, false
	}
	return int64(math.Ceil(percent * 10)), true
}

// finite makes 0, "none", of setting.Unlimited.
func finite(bytes int64) int64 {
	if bytes == setting.Unlimited {
		return 0
	}
	return bytes
}

// maxCores bounds CPU=, to catch a number of bytes or percent put there. No machine has a million cores.
const maxCores = 1e6

// cores reads CPU=: cores ("2", "0.5") or percent of one core ("50%"), as thousandths of a core, rounded up.
func cores(text string) (int64, error) {
	if strings.HasSuffix(text, "%") {
		percent, err := setting.Percent(text)
		if err != nil {
			return 0, err
		}
		return int64(math.Ceil(percent * 10)), nil
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "0123456789.") != "" || number > maxCores {
		return 0, fault.New(fault.Invalid, "%q is not a number of cores (such as 2, 0.5 or 50%%)", clip(text))
	}
	return int64(math.Ceil(number * 1000)), nil
}
