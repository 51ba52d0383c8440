package track

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/setting"
	"flota/internal/unit"
)

// errEmpty ends the watch of Empty.
var errEmpty = errors.New("empty")

// leavers are the units on machines that are to be empty, each with its reason to be still there.
type leavers struct {
	ids  map[machine.ID]bool
	on   map[unit.Name]string
	tell func(u unit.Name, text string)
}

// Empty waits until no unit is on the machines, and tells what moves and what cannot. fault.TimedOut after patience.
func Empty(ctx context.Context, src Source, ids map[machine.ID]bool, patience time.Duration, tell func(u unit.Name, text string)) error {
	if patience != setting.Infinity {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	l := &leavers{ids: ids, on: map[unit.Name]string{}, tell: tell}
	first, err := src.Units(ctx)
	if err != nil {
		return err
	}
	for _, u := range first.Items {
		l.see(u, false)
	}
	for len(l.on) > 0 {
		err := src.Watch(ctx, func(u api.Unit, deleted bool) error {
			l.see(u, deleted)
			if len(l.on) == 0 {
				return errEmpty
			}
			return nil
		})
		switch {
		case errors.Is(err, errEmpty):
			return nil
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return l.late(patience)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		select { // the connection broke
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// see looks at one unit.
func (l *leavers) see(u api.Unit, deleted bool) {
	here, to := false, ""
	for _, p := range u.Places {
		if l.ids[p.Machine] {
			here = true
		} else if !p.Leaving {
			to = p.Name
		}
	}
	why, was := l.on[u.Name]
	switch {
	case here:
		l.on[u.Name] = u.Waiting
		if u.Waiting != "" && u.Waiting != why {
			l.tell(u.Name, u.Waiting)
		}
	case was:
		delete(l.on, u.Name)
		if deleted || to == "" {
			l.tell(u.Name, "off")
		} else {
			l.tell(u.Name, "moved to "+to)
		}
	}
}

// late is the error when patience has run out.
func (l *leavers) late(patience time.Duration) error {
	var left []string
	for name, why := range l.on {
		left = append(left, strings.TrimSuffix(string(name)+": "+why, ": "))
	}
	slices.Sort(left)
	return fault.WithHint(fault.New(fault.TimedOut, "not empty after %s, %d left: %s", Seconds(patience), len(left), strings.Join(left[:min(5, len(left))], "; ")),
		"the machine stays drained; flota machine resume takes that back")
}
