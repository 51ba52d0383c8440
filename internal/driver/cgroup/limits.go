package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Unlimited is "no limit" in Limits. The largest int64 is too.
const Unlimited = -1

// Limits of one unit. The zero value limits nothing, and neither does Unlimited in any field.
type Limits struct {
	MemMax, MemHigh int64 // bytes
	MemLow, MemMin  int64 // bytes that are protected
	SwapMax         int64 // bytes of swap beside MemMax; counts only with SwapSet, and 0 is then none
	SwapSet         bool
	CPUQuota        int64 // thousandths of one processor: 1500 is 150 %
	CPUPeriodMicros int64 // 0 is 100,000
	CPUWeight       int64 // 1..10000; 0 is 100
	CPUIdle         bool  // CPUWeight=idle
	IOWeight        int64 // 1..10000; 0 is 100
	TasksMax        int64
}

// limited gives n as text, or none for no limit.
func limited(n int64, none string) string {
	if n <= 0 || n == math.MaxInt64 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

// Set puts limits on the group, also while it runs; only what differs from the last Set is written. A limit whose
// controller is missing is passed over: Support tells. The error joins what the kernel refused; the other limits are set.
func (g *Group) Set(l Limits) error {
	old := g.set
	if old == nil {
		old = &Limits{}
	}
	all := g.set == nil
	on := g.tree.on
	var failed []error
	try := func(changed bool, set func() error) {
		if all || changed {
			failed = append(failed, set())
		}
	}
	mem := l.MemMax != old.MemMax || l.SwapMax != old.SwapMax || l.SwapSet != old.SwapSet
	cpu := l.CPUQuota != old.CPUQuota || l.CPUPeriodMicros != old.CPUPeriodMicros
	weight := l.CPUWeight != old.CPUWeight || l.CPUIdle != old.CPUIdle
	if on["memory"] {
		try(mem, func() error { return g.memoryV2(l) })
		try(l.MemHigh != old.MemHigh, func() error { return g.put("", "memory.high", limited(l.MemHigh, "max")) })
		try(l.MemLow != old.MemLow, func() error { return g.put("", "memory.low", limited(l.MemLow, "0")) })
		try(l.MemMin != old.MemMin, func() error { return g.put("", "memory.min", limited(l.MemMin, "0")) })
	} else if g.tree.v1["memory"] != "" {
		try(mem, func() error { return g.memoryV1(l) })
	}
	if on["cpu"] || g.tree.v1["cpu"] != "" {
		try(cpu, func() error { return g.quota(l, on["cpu"]) })
		try(weight, func() error { return g.weight(l, on["cpu"]) })
	}
	if on["pids"] {
		try(l.TasksMax != old.TasksMax, func() error { return g.put("", "pids.max", limited(l.TasksMax, "max")) })
	} else if g.tree.v1["pids"] != "" {
		try(l.TasksMax != old.TasksMax, func() error { return g.put("pids", "pids.max", limited(l.TasksMax, "max")) })
	}
	if g.tree.support.IO {
		try(l.IOWeight != old.IOWeight, func() error { return g.ioWeight(l, on["io"]) })
	}
	if err := errors.Join(failed...); err != nil {
		g.set = nil
		return fmt.Errorf("limit %s: %w", g.name, err)
	}
	g.set = &l
	return nil
}

func (g *Group) put(controller, file, value string) error {
	return write(g.in(controller, file), value)
}

func (g *Group) memoryV2(l Limits) error {
	err := g.put("", "memory.max", limited(l.MemMax, "max"))
	swap := "max"
	if l.SwapSet {
		swap = limited(l.SwapMax, "max")
		if l.SwapMax == 0 {
			swap = "0"
		}
	}
	swapErr := g.put("", "memory.swap.max", swap)
	if errors.Is(swapErr, os.ErrNotExist) {
		swapErr = nil // a kernel without swap has nothing to limit
	}
	return errors.Join(err, swapErr)
}

// memoryV1 sets memory, and memory with swap, which must never be the smaller of the two: the order depends on the direction.
func (g *Group) memoryV1(l Limits) error {
	max := limited(l.MemMax, "-1")
	both := "-1"
	if l.SwapSet && max != "-1" && l.SwapMax >= 0 && l.SwapMax < math.MaxInt64-l.MemMax {
		both = strconv.FormatInt(l.MemMax+l.SwapMax, 10)
	}
	memsw := func() error {
		err := g.put("memory", "memory.memsw.limit_in_bytes", both)
		if errors.Is(err, os.ErrNotExist) {
			return nil // swap is not counted on this machine
		}
		return err
	}
	err := g.put("memory", "memory.limit_in_bytes", max)
	if errors.Is(err, syscall.EINVAL) {
		if err := memsw(); err != nil {
			return err
		}
		return g.put("memory", "memory.limit_in_bytes", max)
	}
	if err != nil {
		return err
	}
	return memsw()
}

const defaultPeriod = 100_000 // µs, the kernel's and systemd's

func (g *Group) quota(l Limits, v2 bool) error {
	period := l.CPUPeriodMicros
	if period <= 0 {
		period = defaultPeriod
	}
	quota := int64(-1)
	if l.CPUQuota > 0 && l.CPUQuota != math.MaxInt64 {
		quota = max(l.CPUQuota*period/1000, 1000) // the kernel takes no less than 1 ms
	}
	if v2 {
		return g.put("", "cpu.max", limited(quota, "max")+" "+strconv.FormatInt(period, 10))
	}
	return errors.Join(
		g.put("cpu", "cpu.cfs_period_us", strconv.FormatInt(period, 10)),
		g.put("cpu", "cpu.cfs_quota_us", strconv.FormatInt(quota, 10)))
}

// weight sets CPUWeight=; v1's shares are 1024 where a weight is 100. Source: systemd's conversion.
func (g *Group) weight(l Limits, v2 bool) error {
	w := l.CPUWeight
	if w <= 0 {
		w = 100
	}
	idle := "0"
	if l.CPUIdle {
		idle, w = "1", 1
	}
	controller, file, value := "", "cpu.weight", strconv.FormatInt(w, 10)
	if !v2 {
		controller, file, value = "cpu", "cpu.shares", strconv.FormatInt(min(max(w*1024/100, 2), 262144), 10)
	}
	err := g.put(controller, "cpu.idle", idle)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // kernels before 5.15: the smallest weight is the nearest
	}
	if l.CPUIdle && err == nil && exists(g.in(controller, "cpu.idle")) {
		return nil // an idle group takes no weight
	}
	return errors.Join(err, g.put(controller, file, value))
}

// ioWeight sets IOWeight=; v1 has 500 where a weight is 100, and 10 to 1000. Source: systemd's conversion.
func (g *Group) ioWeight(l Limits, v2 bool) error {
	w := l.IOWeight
	if w <= 0 {
		w = 100
	}
	if v2 {
		return g.put("", "io.weight", "default "+strconv.FormatInt(w, 10))
	}
	dir := filepath.Join(g.tree.v1["blkio"], g.name)
	return write(filepath.Join(dir, weightFile(dir)), strconv.FormatInt(min(max(w*5, 10), 1000), 10))
}

// weightFile is the file for weights in a v1 group, by the scheduler that the kernel has; "" for none.
func weightFile(dir string) string {
	for _, name := range []string{"blkio.bfq.weight", "blkio.weight"} {
		if exists(filepath.Join(dir, name)) {
			return name
		}
	}
	return ""
}
