package track

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"flota/internal/api"
	"flota/internal/fault"
)

// verdict is what one machine's report means for the goal.
type verdict int

const (
	pending verdict = iota
	reached
	failed
)

// judge looks at what is known of a unit, tells what is new, and ends it if there is an outcome.
func (t *Tracker) judge(o *one, now time.Time) {
	places := o.staying()
	for _, p := range places {
		if !o.was[p.Machine] {
			o.was[p.Machine], o.placed = true, now
			t.say(o, p, Placed, "placed on "+p.Name+inBrackets(p.Reason))
		}
	}
	var over bool
	switch t.goal {
	case Off:
		over = t.off(o, now)
	case Down:
		over = t.down(o, places, now)
	default:
		over = t.up(o, places, now)
	}
	if !over && !o.limit.IsZero() && now.After(o.limit) {
		t.late(o, places, now)
	}
}

// staying gives the places that are not being left.
func (o *one) staying() []api.Place {
	var out []api.Place
	for _, p := range o.seen.Places {
		if !p.Leaving {
			out = append(out, p)
		}
	}
	return out
}

// state is what a unit's machine reports.
func (o *one) state(p api.Place) (api.State, bool) {
	for _, s := range o.seen.States {
		if s.Machine == p.Machine {
			return s, true
		}
	}
	return api.State{}, false
}

// up judges Up and Loaded, on every machine that the unit is on.
func (t *Tracker) up(o *one, places []api.Place, now time.Time) (over bool) {
	if len(places) == 0 {
		return t.unplaced(o, now)
	}
	o.lonely = time.Time{}
	left := 0
	for _, p := range places {
		if o.reached[p.Machine] {
			continue
		}
		st, ok := o.state(p)
		v, text := pending, ""
		switch {
		case p.Addr == "" && o.seen.Waiting != "":
			text = "waiting: " + o.seen.Waiting
		case p.Addr == "":
			text = "waiting: its machine " + p.Name + " is gone"
		case !ok:
		case t.goal == Loaded:
			v, text = o.loaded(p, st, now)
		default:
			v, text = o.started(p, st, now)
		}
		switch v {
		case pending:
			left++
			kind := Working
			if strings.HasPrefix(text, "waiting") {
				kind = Waiting
			}
			t.say(o, p, kind, text)
		case failed:
			t.end(o, Step{Kind: Failed, Text: text, Machine: p.Name, ID: p.Machine, Addr: p.Addr, Err: fault.New(fault.Failed, "%s %s", o.name, text)})
			return true
		case reached:
			o.reached[p.Machine] = true
			if o.seen.Global {
				t.say(o, p, Reached, text)
				continue
			}
			t.end(o, Step{Kind: Done, Text: text, Machine: p.Name, ID: p.Machine, Addr: p.Addr})
			return true
		}
	}
	if left > 0 || !o.seen.Global || now.Sub(o.began) < spread || now.Sub(o.placed) < spread {
		return false
	}
	text := fmt.Sprintf("%s on %d machines", map[Goal]string{Up: "up", Loaded: "loaded"}[t.goal], len(places))
	if o.seen.Waiting != "" {
		text += "; " + o.seen.Waiting
	}
	t.end(o, Step{Kind: Done, Text: text})
	return true
}

// unplaced judges a unit that is on no machine.
func (t *Tracker) unplaced(o *one, now time.Time) (over bool) {
	for _, s := range o.seen.States {
		if running(s) {
			t.say(o, api.Place{}, Waiting, "waiting until it has stopped on "+s.Name)
			return false
		}
	}
	if len(o.seen.Places) > 0 {
		return false // it is being moved
	}
	if o.seen.Waiting == "" {
		o.lonely = time.Time{}
		if now.Sub(o.began) >= settle {
			t.say(o, api.Place{}, Waiting, "waiting for a machine: the cluster has not planned yet")
		}
		return false
	}
	if o.lonely.IsZero() {
		o.lonely = now
	}
	if now.Sub(o.lonely) < settle {
		return false
	}
	err := fault.WithHint(fault.New(fault.Failed, "%s cannot be placed: %s", o.name, o.seen.Waiting),
		"it is still wanted and starts as soon as a machine fits; take that back with: flota unload %s", o.name)
	t.end(o, Step{Kind: Failed, Text: "cannot be placed: " + o.seen.Waiting, Err: err})
	return true
}

// unusable says why a machine could not load the unit's present content.
func (o *one) unusable(p api.Place, st api.State) (string, bool) {
	if st.Load == "loaded" || st.Load == "" || st.Hash != "" && st.Hash != o.seen.Hash {
		return "", false
	}
	return fmt.Sprintf("cannot be loaded on %s: %s", p.Name, orElse(st.Message, st.Load)), true
}

// started judges what a machine reports of a unit that shall be active.
func (o *one) started(p api.Place, st api.State, now time.Time) (verdict, string) {
	if text, bad := o.unusable(p, st); bad {
		return failed, text
	}
	if st.Run < o.run {
		if st.Active == "deactivating" {
			return pending, "stopping on " + p.Name
		}
		return pending, ""
	}
	after := " after " + Seconds(now.Sub(o.began))
	if st.Active != "active" && st.Active != "reloading" {
		delete(o.active, p.Machine)
	}
	switch st.Active {
	case "active", "reloading":
		return o.running(p, st, now)
	case "failed":
		return failed, "failed on " + p.Name + ": " + Why(st.State)
	case "inactive":
		if st.ExitCode == 0 && st.Signal == "" && strings.Contains(strings.ToLower(st.Message), "condition") {
			return reached, "not started on " + p.Name + ": " + st.Message
		}
		return reached, fmt.Sprintf("finished (%s) on %s%s", ending(st), p.Name, after)
	case "activating":
		if st.Sub != "auto-restart" {
			if st.Restarts > 0 {
				return pending, "" // "restarting" has been said
			}
			return pending, "starting"
		}
		text := fmt.Sprintf("crashed on %s: %s; it is restarted", p.Name, Why(st.State))
		if st.Restarts >= loopRestarts && now.Sub(o.began) >= loopFor {
			return failed, fmt.Sprintf("keeps crashing on %s (%d restarts so far): %s", p.Name, st.Restarts, Why(st.State))
		}
		return pending, text
	}
	return pending, ""
}

// running judges an active unit: one that does not say itself that it is ready must stay active for a moment.
func (o *one) running(p api.Place, st api.State, now time.Time) (verdict, string) {
	if o.same && o.first && st.Restarts == 0 {
		return reached, fmt.Sprintf("is %s (%s) on %s already", st.Active, st.Sub, p.Name)
	}
	since, ok := o.active[p.Machine]
	if !ok {
		since = now
		o.active[p.Machine] = now
	}
	switch kindOf(o.seen) {
	case "simple", "exec", "idle":
		if st.Sub != "exited" && now.Sub(since) < steady {
			return pending, ""
		}
	}
	return reached, fmt.Sprintf("%s (%s) on %s after %s", st.Active, st.Sub, p.Name, Seconds(since.Sub(o.began)))
}

// loaded judges what a machine reports of a unit that shall be loaded and not run.
func (o *one) loaded(p api.Place, st api.State, _ time.Time) (verdict, string) {
	if text, bad := o.unusable(p, st); bad {
		return failed, text
	}
	switch {
	case st.Hash != "" && st.Hash != o.seen.Hash:
		return pending, ""
	case running(st):
		return pending, "stopping on " + p.Name
	}
	return reached, "loaded on " + p.Name
}

// down judges Down.
func (t *Tracker) down(o *one, places []api.Place, now time.Time) (over bool) {
	text := "stopped"
	for _, s := range o.seen.States {
		p := api.Place{Machine: s.Machine, Name: s.Name, Addr: s.Addr}
		if running(s) {
			t.say(o, p, Working, "stopping on "+s.Name)
			over = true
		}
		if s.Active == "failed" {
			text = "stopped, and failed at that: " + Why(s.State)
		}
	}
	if over {
		return false
	}
	var on api.Place
	for _, p := range places {
		on = p
		if _, ok := o.state(p); !ok && p.Addr != "" {
			return false // it has not reported yet
		}
		if p.Addr == "" {
			text = "stopped: its machine " + p.Name + " is gone"
		}
	}
	if o.same {
		text = "is not running"
	} else if len(o.said) > 0 {
		text += " after " + Seconds(now.Sub(o.began))
	}
	t.end(o, Step{Kind: Done, Text: text, Machine: on.Name, ID: on.Machine, Addr: on.Addr})
	return true
}

// off judges Off.
func (t *Tracker) off(o *one, now time.Time) (over bool) {
	for _, s := range o.seen.States {
		if running(s) {
			t.say(o, api.Place{Machine: s.Machine, Name: s.Name, Addr: s.Addr}, Working, "stopping on "+s.Name)
		}
	}
	if len(o.seen.Places)+len(o.seen.States) > 0 {
		return false
	}
	text := "unloaded"
	if o.same {
		text = "is not loaded"
	} else if len(o.said) > 0 {
		text += " after " + Seconds(now.Sub(o.began))
	}
	t.end(o, Step{Kind: Done, Text: text})
	return true
}

// late ends a unit whose time has run out.
func (t *Tracker) late(o *one, places []api.Place, now time.Time) {
	doing := "nothing was heard of it"
	switch {
	case o.seen.Waiting != "":
		doing = o.seen.Waiting
	case len(o.seen.States) > 0:
		s := o.seen.States[0]
		doing = fmt.Sprintf("it is %s (%s) on %s", s.Active, s.Sub, s.Name)
		if s.Message != "" {
			doing += ": " + s.Message
		}
	case len(places) > 0:
		doing = "it is on " + places[0].Name + ", which has reported nothing of it"
	case t.goal != Off:
		doing = "it has no machine"
	}
	want := map[Goal]string{Up: "active", Loaded: "loaded", Down: "stopped", Off: "unloaded"}[t.goal]
	text := fmt.Sprintf("is not %s after %s: %s", want, Seconds(now.Sub(o.began)), doing)
	s := Step{Kind: Failed, Text: text, Err: fault.WithHint(fault.New(fault.TimedOut, "%s %s", o.name, text), "the request stands; flota why %s tells more", o.name)}
	if len(places) > 0 {
		s.Machine, s.ID, s.Addr = places[0].Name, places[0].Machine, places[0].Addr
	}
	t.end(o, s)
}

// running says whether anything of a unit runs or is about to.
func running(s api.State) bool {
	switch s.Active {
	case "active", "reloading", "activating", "deactivating":
		return true
	}
	return false
}

// ending is how a unit's process ended.
func ending(st api.State) string {
	if st.Signal != "" {
		return "signal " + st.Signal
	}
	return "exit " + strconv.Itoa(st.ExitCode)
}

// inBrackets is " (text)", or nothing for nothing.
func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}
