package launch

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"flota/internal/driver/launch/child"
	"flota/internal/setting"
)

// Capability numbers that decide what may be tuned. Source: linux/capability.h.
const (
	capSysNice     = 23
	capSysResource = 24
)

// limits sets the resource limits. Without CAP_SYS_RESOURCE no hard limit can be raised: it is clamped, and noted. systemd
// does the same where the hard limit is finite.
func (p *planner) limits() {
	for _, name := range slices.Sorted(maps.Keys(p.s.Limits)) {
		number, ok := setting.LimitNumber(name)
		if !ok {
			continue
		}
		want := p.s.Limits[name]
		l := child.Rlimit{Resource: number, Soft: want.Soft, Hard: want.Hard}
		if hard, known := p.c.Host.HardLimits[number]; known && l.Hard > hard && !p.c.Host.can(capSysResource) {
			p.note("Limit"+name, "this machine allows no more than %d", hard)
			l.Hard = hard
			l.Soft = min(l.Soft, hard)
		}
		p.Rlimits = append(p.Rlimits, l)
	}
}

// scheduling sets what concerns processor, disk and the choice of victims. What needs rights that are missing is left out and noted.
func (p *planner) scheduling() {
	r, h := &p.s.Resources, p.c.Host
	score := r.OOMScoreAdjust // 0 unless set: not the supervisor's own
	if r.OOMScoreSet && score < h.OOMFloor && !h.can(capSysResource) {
		p.note("OOMScoreAdjust", "this machine allows no less than %d", h.OOMFloor)
		score = h.OOMFloor
	}
	p.OOMScoreAdj = &score
	if r.NiceSet {
		if r.Nice < 0 && !h.can(capSysNice) {
			p.note("Nice", "not allowed here, 0 is used")
		} else {
			nice := r.Nice
			p.Nice = &nice
		}
	}
	policies := map[string]int{
		"other": unix.SCHED_NORMAL, "batch": unix.SCHED_BATCH, "idle": unix.SCHED_IDLE, "fifo": unix.SCHED_FIFO, "rr": unix.SCHED_RR,
	}
	if policy, ok := policies[r.CPUPolicy]; ok {
		if policy == unix.SCHED_FIFO || policy == unix.SCHED_RR {
			if !h.can(capSysNice) {
				p.note("CPUSchedulingPolicy", "%s is not allowed here, other is used", r.CPUPolicy)
				policy = unix.SCHED_NORMAL
			}
		}
		p.Sched = &child.Sched{Policy: policy}
		if policy == unix.SCHED_FIFO || policy == unix.SCHED_RR {
			p.Sched.Priority = r.CPUPriority
		}
	}
	p.CPUs = r.CPUAffinity
	p.ioPriority()
}

// ioPriority sets class and level as ioprio_set(2) takes them; best-effort is the default class, 4 the default level.
func (p *planner) ioPriority() {
	r := &p.s.Resources
	classes := map[string]int{"none": 0, "realtime": 1, "best-effort": 2, "idle": 3}
	class, ok := classes[r.IOClass]
	if !ok && !r.IOPrioritySet {
		return
	}
	if !ok {
		class = classes["best-effort"]
	}
	if class == classes["realtime"] && !p.c.Host.can(capSysNice) {
		p.note("IOSchedulingClass", "realtime is not allowed here, best-effort is used")
		class = classes["best-effort"]
	}
	level := r.IOPriority
	if class == 0 || class == classes["idle"] {
		level = 0
	}
	value := class<<13 | level
	p.IOPrio = &value
}
