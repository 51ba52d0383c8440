// Package track follows units from a request until they are what was asked for, have failed, or cannot get there, and tells each
// step on the way: placed on m2, starting, active (running) on m2 after 0.3 s.
//
// The invariant: every unit that is followed ends in exactly one outcome, and within its time; no request waits in silence. What a
// unit did before the request is never taken for its answer: states count from the run that was asked for.
//
// Tracker is a state machine without clock or network (the time is an argument); Run feeds it from the API's stream.
// It prints nothing. Empty waits for machines to be drained, Logs merges what units print. Start reading at Tracker.
package track

import (
	"time"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/setting"
	"flota/internal/unit"
)

// Goal is what a unit shall be.
type Goal int

// The goals.
const (
	Up     Goal = iota // active, or ended well
	Loaded             // known to its machine and not running
	Down               // not running
	Off                // on no machine
)

// Kind says what sort of step it is.
type Kind int

// The kinds of step. Done and Failed end a unit, all others may repeat.
const (
	Note    Kind = iota // something worth knowing
	Placed              // it has a machine
	Working             // starting, stopping
	Waiting             // nothing happens, and Text says why
	Reached             // one of several machines is done
	Done
	Failed
)

// Step is one thing that happened to a unit.
type Step struct {
	Unit    unit.Name
	Kind    Kind
	Text    string // after the unit's name, such as "placed on m2 (spread over machines)"
	Machine string // name; empty when no machine has to do with it
	ID      machine.ID
	Addr    string
	Err     error // of Failed, with its kind
}

// The patience of a Tracker.
const (
	// settle is how long a unit that has no place and a reason to wait is given. 2 s: the leader plans within milliseconds, an
	// election takes 1 to 2 s.
	settle = 2 * time.Second
	// steady is how long a unit that says nothing of itself (Type=simple, exec) must be active to count as started: what crashes at
	// once has done so by then.
	steady = 500 * time.Millisecond
	// spread is how long a global unit's machines may come one after the other.
	spread = 500 * time.Millisecond
	// loop: so many automatic restarts in so long a time are a crash loop.
	loopRestarts, loopFor = 3, 3 * time.Second
	// Grace is what a wait takes at most besides the unit's own time-outs: to be placed and taken up by the machine.
	Grace = 30 * time.Second
	// defaultUnitPatience is systemd's DefaultTimeoutStartSec= and DefaultTimeoutStopSec=.
	defaultUnitPatience = 90 * time.Second
)

// Tracker follows units. Make one with New. Not safe for concurrent use.
type Tracker struct {
	goal    Goal
	timeout time.Duration // 0: by the unit's own time-outs
	tell    func(Step)
	units   map[unit.Name]*one
	open    int
}

// one is a unit that is followed.
type one struct {
	name    unit.Name
	asked   bool // the request has been answered
	ended   bool
	run     uint64 // asked for
	same    bool   // the request changed nothing
	first   bool   // it is judged for the first time
	began   time.Time
	limit   time.Time // zero: none
	seen    api.Unit
	known   bool
	news    time.Time                // when seen last changed
	was     map[machine.ID]bool      // places before the request
	said    map[machine.ID]string    // last text told of a machine
	active  map[machine.ID]time.Time // since when it is seen active under run
	reached map[machine.ID]bool
	lonely  time.Time // since when it has no place and a reason
	placed  time.Time // when the last place came
}

// New follows the named units to goal; tell is called with each step. timeout 0 takes each unit's own time-outs and Grace.
func New(goal Goal, names []unit.Name, timeout time.Duration, tell func(Step)) *Tracker {
	t := &Tracker{goal: goal, timeout: timeout, tell: tell, units: map[unit.Name]*one{}}
	for _, n := range names {
		if t.units[n] == nil {
			t.units[n] = &one{name: n, was: map[machine.ID]bool{}, said: map[machine.ID]string{},
				active: map[machine.ID]time.Time{}, reached: map[machine.ID]bool{}}
			t.open++
		}
	}
	return t
}

// Open is how many units have no outcome yet.
func (t *Tracker) Open() int { return t.open }

// Asked tells that the request for a unit, made at began, was answered with after; before is the unit before the request (nil: there was none).
func (t *Tracker) Asked(before *api.Unit, after api.Unit, began, now time.Time) {
	o := t.units[after.Name]
	if o == nil || o.ended {
		return
	}
	o.asked, o.run, o.began = true, after.Run, began
	if before != nil {
		o.same = before.Run == after.Run && before.Target == after.Target && before.Hash == after.Hash
		for _, p := range before.Places {
			o.was[p.Machine] = true
		}
	}
	patience := t.timeout
	if patience == 0 {
		patience = t.patience(after)
	}
	if patience != setting.Infinity {
		o.limit = began.Add(patience)
	}
	if !o.known || o.seen.Run < after.Run || o.seen.Changed.Before(after.Changed) {
		o.seen, o.known, o.news = after, true, now
	}
	o.first = true
	t.judge(o, now)
	o.first = false
}

// Refused tells that the request for a unit failed.
func (t *Tracker) Refused(name unit.Name, err error) {
	if o := t.units[name]; o != nil && !o.ended {
		t.end(o, Step{Kind: Failed, Text: err.Error(), Err: err})
	}
}

// See tells what is known of a unit now.
func (t *Tracker) See(u api.Unit, deleted bool, now time.Time) {
	o := t.units[u.Name]
	if o == nil || o.ended {
		return
	}
	if deleted {
		if o.asked && t.goal == Off {
			t.end(o, Step{Kind: Done, Text: "was destroyed"})
		} else if o.asked {
			t.end(o, Step{Kind: Failed, Text: "was destroyed meanwhile", Err: fault.New(fault.Conflict, "%s was destroyed meanwhile", o.name)})
		}
		return
	}
	if o.asked && u.Run < o.run {
		return // from before the request
	}
	o.seen, o.known, o.news = u, true, now
	if o.asked {
		t.judge(o, now)
	}
}

// Tick tells that time has passed.
func (t *Tracker) Tick(now time.Time) {
	for _, o := range t.units {
		if o.asked && !o.ended {
			t.judge(o, now)
		}
	}
}

// Quiet gives the units without an outcome of which nothing was heard for so long.
func (t *Tracker) Quiet(now time.Time, than time.Duration) []unit.Name {
	var out []unit.Name
	for _, o := range t.units {
		if o.asked && !o.ended && now.Sub(o.news) >= than {
			out = append(out, o.name)
		}
	}
	return out
}

// patience is how long a unit may take by its own words.
func (t *Tracker) patience(u api.Unit) time.Duration {
	file := u.File()
	span := func(key string, otherwise time.Duration) time.Duration {
		for _, k := range []string{key, "TimeoutSec"} {
			if s, ok := file.Last("Service", k); ok && s != "" {
				if d, err := setting.Span(s); err == nil {
					if d == 0 {
						return setting.Infinity // systemd reads 0 as no limit
					}
					return d
				}
			}
		}
		return otherwise
	}
	stop := span("TimeoutStopSec", defaultUnitPatience)
	start := defaultUnitPatience
	if kindOf(u) == "oneshot" {
		start = setting.Infinity
	}
	start = span("TimeoutStartSec", start)
	spans := []time.Duration{Grace, stop}
	if t.goal == Up {
		spans = append(spans, start)
	}
	var total time.Duration
	for _, d := range spans {
		if total > setting.Infinity-d {
			return setting.Infinity
		}
		total += d
	}
	return total
}

// kindOf is the unit's Type=.
func kindOf(u api.Unit) string {
	kind, _ := u.File().Last("Service", "Type")
	if kind == "" {
		if _, ok := u.File().Last("Service", "ExecStart"); !ok {
			return "oneshot"
		}
		return "simple"
	}
	return kind
}

// end gives a unit its outcome.
func (t *Tracker) end(o *one, s Step) {
	o.ended = true
	t.open--
	s.Unit = o.name
	t.tell(s)
}

// say tells a step of a unit on a machine once.
func (t *Tracker) say(o *one, p api.Place, kind Kind, text string) {
	if text == "" || o.said[p.Machine] == text {
		return
	}
	o.said[p.Machine] = text
	t.tell(Step{Unit: o.name, Kind: kind, Text: text, Machine: p.Name, ID: p.Machine, Addr: p.Addr})
}
