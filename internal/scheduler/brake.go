package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// brakeMin is the smallest number of machines lost at once that is more likely the network than the machines.
// Source: DESIGN.md section 5.
const brakeMin = 3

// findBrake finds the machines that were lost together: at least brakeMin, and at least half of all known ones, within one
// lease of each other. held[m] is until when nothing is moved off machine m; the zero time for machines not held at now.
// A machine that has come back is evidence still: when a quorum returns, all leases may end at once, and one machine after
// the other is back within a second or two.
func findBrake(machines []Machine, lease time.Duration, now time.Time) (held []time.Time, brake *Brake) {
	held = make([]time.Time, len(machines))
	var lost []int
	for i := range machines {
		if !machines[i].lostLast().IsZero() {
			lost = append(lost, i)
		}
	}
	if len(lost) < brakeMin || 2*len(lost) < len(machines) {
		return held, nil
	}
	slices.SortStableFunc(lost, func(a, b int) int { return machines[a].lostLast().Compare(machines[b].lostLast()) })
	count, seen := 0, 0
	var last time.Time
	for first, end := 0, 0; first < len(lost); first++ {
		for end < len(lost) && machines[lost[end]].lostLast().Sub(machines[lost[first]].lostLast()) <= lease {
			end++
		}
		until := machines[lost[end-1]].lostLast().Add(BrakeFor)
		if n := end - first; n < brakeMin || 2*n < len(machines) || !until.After(now) {
			continue
		}
		for _, m := range lost[first:end] {
			if machines[m].Presence != nil {
				continue
			}
			seen = max(seen, end-first)
			if until.After(last) {
				last = until
			}
			if held[m].IsZero() {
				count++
			}
			if until.After(held[m]) {
				held[m] = until
			}
		}
	}
	if count == 0 {
		return held, nil
	}
	return held, &Brake{Until: last, Reason: fmt.Sprintf(
		"%d of %d machines were lost within %s of each other, which is more likely the network than the machines: "+
			"nothing is moved off the %d that are still away before %s", seen, len(machines), lease, count, clock(last))}
}

// lostLast is when the machine was lost last, be it back or not; zero for never or unknown.
func (m *Machine) lostLast() time.Time {
	if m.Presence == nil {
		return m.Lost
	}
	return m.Blinked
}

// clock prints a time of day as reasons do, in UTC.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// short is the cause in the middle of a sentence.
func (b *Brake) short() string { cause, _, _ := strings.Cut(b.Reason, ","); return cause }
