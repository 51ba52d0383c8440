package netbed

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// judgeExclusive says where two processes of one exclusive unit lived at the same time. Books can lie only in one direction: a process may
// have lived for one period after its last line. For that there are the clashes: the lock is the kernel's and held to the very end.
func judgeExclusive(lives []life) error {
	var errs []error
	latest := map[string]life{} // by unit, the life so far that lasted longest
	for _, l := range lives {   // in the order of their starts
		for _, at := range l.clashes {
			errs = append(errs, fmt.Errorf("exclusive: %v met another at %.3f", l, at.Seconds()))
		}
		before, ok := latest[l.unit]
		if ok && l.start <= before.last {
			errs = append(errs, fmt.Errorf("exclusive: %v and %v lived at the same time", before, l))
		}
		if !ok || l.last > before.last {
			latest[l.unit] = l
		}
	}
	return errors.Join(errs...)
}

// pardonWaking takes out of the lives what no fence can prevent: a process of a machine that was paused does not live meanwhile, though it holds its
// lock, and may do something in the first moment after it, before its supervisor, which was paused as well, can kill it. That is what fencing
// numbers are for. What it does later than grace after the end of the pause is not pardoned.
func pardonWaking(lives []life, machine string, pause span, grace time.Duration) (pardoned []life) {
	paused := map[string]bool{} // units
	for _, l := range lives {
		if l.machine == machine && l.start < pause.from && l.last <= pause.to+grace {
			l.last = min(l.last, pause.from)
			paused[l.unit] = true
		}
		pardoned = append(pardoned, l)
	}
	for i, l := range pardoned {
		if paused[l.unit] {
			pardoned[i].clashes = slices.DeleteFunc(slices.Clone(l.clashes), func(at time.Duration) bool { return pause.from <= at && at <= pause.to+grace })
		}
	}
	return pardoned
}

// span is a time in which something was so.
type span struct{ from, to time.Duration }

// judgeUndisturbed says which processes that lived when a span began did not live when it ended. tick is the period of the books; a process
// whose last line is younger may be alive.
func judgeUndisturbed(lives []life, s span, tick time.Duration) error {
	var errs []error
	for _, l := range lives {
		if l.start < s.from && l.last >= s.from && (l.last < s.to-5*tick || l.stopped && l.last < s.to) {
			errs = append(errs, fmt.Errorf("disturbed: %v did not live from %.3f to %.3f", l, s.from.Seconds(), s.to.Seconds()))
		}
	}
	return errors.Join(errs...)
}

// judgeRestarts says which units began another life without a reason: a life may end only on a machine that was left (at or after the time
// in left), and only then may another begin.
func judgeRestarts(lives []life, left map[string]time.Duration, now, tick time.Duration) error {
	var errs []error
	for _, l := range lives {
		if !l.stopped && l.last >= now-5*tick {
			continue // it lives
		}
		if at, ok := left[l.machine]; !ok || l.last < at-5*tick {
			errs = append(errs, fmt.Errorf("restarted: %v ended though its machine had not left", l))
		}
	}
	return errors.Join(errs...)
}

// only gives the lives of some units.
func only(lives []life, units ...string) (some []life) {
	want := map[string]bool{}
	for _, u := range units {
		want[u] = true
	}
	for _, l := range lives {
		if want[l.unit] {
			some = append(some, l)
		}
	}
	return some
}

// judgePlaces says where what runs is not what the store says: places is the store's word, unit to machine names; running is what is.
func judgePlaces(places, running map[string][]string) error {
	var errs []error
	for unit, on := range places {
		if fmt.Sprint(on) != fmt.Sprint(running[unit]) {
			errs = append(errs, fmt.Errorf("%s is placed on %v and runs on %v", unit, on, running[unit]))
		}
	}
	for unit, on := range running {
		if len(places[unit]) == 0 {
			errs = append(errs, fmt.Errorf("%s has no place and runs on %v", unit, on))
		}
	}
	return errors.Join(errs...)
}
