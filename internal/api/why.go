package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/unit"
	"flota/internal/view"
)

// whyEvents is how many events an answer to why carries at most.
const whyEvents = 20

// whyUnit answers GET /v1/units/{name}/why.
func (s *Server) whyUnit(w http.ResponseWriter, r *http.Request) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	c, err := s.whole(r.Context())
	if err != nil {
		return err
	}
	if _, ok := c.units[name]; !ok {
		return noUnit(name)
	}
	if why, ok := s.askVoter(r, c, unitPath(string(name), "/why")); ok {
		return answerRead(w, c.stale, why)
	}
	now := time.Now()
	var plan scheduler.Plan
	if c.misses(name) {
		plan = s.think(c)
	}
	events := s.eventsOf(func(e view.Event) bool { return e.Unit == name })
	why := Why{Subject: string(name), Sentences: c.explainUnit(name, plan, events, s.lostSince(c, now), now), Events: c.sendEvents(events)}
	return answerRead(w, c.stale, why)
}

// whyMachine answers GET /v1/machines/{name}/why.
func (s *Server) whyMachine(w http.ResponseWriter, r *http.Request) error {
	c, m, err := s.pathMachine(r)
	if err != nil {
		return err
	}
	if why, ok := s.askVoter(r, c, machinePath(string(m.ID), "/why")); ok {
		return answerRead(w, c.stale, why)
	}
	now := time.Now()
	why := Why{Subject: c.name(m.ID), Sentences: c.explainMachine(m, s.lostSince(c, now), now)}
	why.Events = c.sendEvents(s.eventsOf(func(e view.Event) bool { return e.Machine == m.ID && e.Kind != view.KindState }))
	return answerRead(w, c.stale, why)
}

// askVoter asks a voter on a machine that is none: only voters remember what happened. ok is false if this machine has to
// answer itself.
func (s *Server) askVoter(r *http.Request, c *cluster, path string) (why Why, ok bool) {
	if s.view() != nil || forwarded(r) {
		return why, false
	}
	err := s.eachVoter(r.Context(), c, func(p *Client) error {
		_, _, err := p.call(r.Context(), freshPatience, http.MethodGet, path, nil, &why)
		return err
	})
	return why, err == nil
}

// eachVoter calls f for one voter after the other until one answers; the leader first.
func (s *Server) eachVoter(ctx context.Context, c *cluster, f func(*Client) error) error {
	err := fault.New(fault.Unavailable, "no voter is there")
	ids := []machine.ID{c.leader}
	for _, m := range c.sorted() {
		if m.Voter && m.ID != c.leader && m.ID != s.ID {
			ids = append(ids, m.ID)
		}
	}
	for _, id := range ids {
		p, miss := s.peerOf(c, id)
		if miss != nil {
			continue
		}
		err = at(c.name(id), f(p))
		p.Close()
		if !unavailable(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// eventsOf gives the events that fit, oldest first.
func (s *Server) eventsOf(fits func(view.Event) bool) []view.Event {
	v := s.view()
	if v == nil {
		return nil
	}
	all, _ := v.Events(0)
	return slices.DeleteFunc(all, func(e view.Event) bool { return !fits(e) })
}

// sendEvents gives the last whyEvents events as they are sent.
func (c *cluster) sendEvents(all []view.Event) []Event {
	var out []Event
	for _, e := range all[max(0, len(all)-whyEvents):] {
		out = append(out, c.event(e))
	}
	return out
}

// explainUnit says in sentences where and how a unit is, and why. plan is what the leader would do now; events are those of the unit.
func (c *cluster) explainUnit(name unit.Name, plan scheduler.Plan, events []view.Event, lost map[machine.ID]time.Time, now time.Time) []string {
	u := c.units[name]
	var out []string
	switch {
	case name.IsTemplate():
		return []string{fmt.Sprintf("%s is a template: only its instances run, such as %s", name, name.WithInstance("1"))}
	case u.Target == unit.Inactive:
		out = append(out, fmt.Sprintf("%s is not to run: its target is inactive since %s", name, moment(u.Changed, now)))
	}
	for _, p := range c.places[name] {
		out = append(out, c.explainPlace(u, p, movedFrom(p.Machine, events), lost, now)...)
	}
	for _, w := range plan.Waiting {
		if w.Unit == name {
			out = append(out, fmt.Sprintf("%s waits: %s", name, w.Reason))
		}
	}
	for _, m := range plan.Moves {
		if m.Unit == name {
			out = append(out, fmt.Sprintf("the leader is about to %s: %s", c.move(m), m.Reason))
		}
	}
	if plan.Brake != nil {
		out = append(out, plan.Brake.Reason)
	}
	if len(out) == 0 {
		out = append(out, fmt.Sprintf("%s has no place yet", name))
	}
	if c.leader == "" && u.Target != unit.Inactive {
		out = append(out, "no machine leads now, so that nothing is placed or moved")
	}
	if c.stale {
		out = append(out, "this is what was last known: no quorum answers")
	}
	return out
}

// move says what a move does.
func (c *cluster) move(m scheduler.Move) string {
	switch m.Kind {
	case scheduler.KindPlace:
		return "place it on " + c.name(m.To)
	case scheduler.KindMove, scheduler.KindLeave:
		return "move it from " + c.name(m.From) + " to " + c.name(m.To)
	case scheduler.KindUpdate:
		return "hand its changes to " + c.name(m.To)
	}
	return "take it off " + c.name(m.From)
}

// movedFrom gives the machine that a unit was moved from to the one that it is on now; "" for none, or when that was too long ago to be
// remembered. A move is a place that comes with or right after the end of another, nobody having asked anything of the unit between them.
func movedFrom(now machine.ID, events []view.Event) machine.ID {
	all := slices.DeleteFunc(slices.Clone(events), func(e view.Event) bool { return e.Kind != view.KindPlace && e.Kind != view.KindUnit })
	came := -1
	for i, e := range all {
		if e.Kind == view.KindPlace && e.Machine == now {
			came = i
		}
	}
	other := func(i int) bool {
		return came >= 0 && i >= 0 && i < len(all) && all[i].Kind == view.KindPlace && all[i].Machine != now
	}
	switch {
	case other(came - 1):
		return all[came-1].Machine
	case other(came+1) && all[came+1].Time.Equal(all[came].Time): // of one transaction
		return all[came+1].Machine
	}
	return ""
}

// explainPlace tells of one place of a unit and what is reported from there. from is the machine that it was moved from; "" for none.
func (c *cluster) explainPlace(u unit.Unit, p unit.Place, from machine.ID, lost map[machine.ID]time.Time, now time.Time) []string {
	where := c.name(p.Machine)
	if _, there := c.alive[p.Machine]; !there {
		text := fmt.Sprintf("%s is still placed on %s, which is gone", u.Name, where)
		if t, ok := lost[p.Machine]; ok {
			text += " since " + moment(t, now)
		}
		return []string{text}
	}
	if p.Leaving {
		return []string{fmt.Sprintf("%s is about to leave %s, as soon as it is active elsewhere: %s", u.Name, where, p.Reason)}
	}
	var st *unit.State
	for i := range c.states[u.Name] {
		if c.states[u.Name][i].Machine == p.Machine {
			st = &c.states[u.Name][i]
		}
	}
	out := []string{fmt.Sprintf("%s %s %s since %s: %s", u.Name, verb(u, st), where, moment(p.Since, now), p.Reason)}
	if from != "" {
		out = []string{
			fmt.Sprintf("%s was moved from %s to %s at %s: %s", u.Name, c.name(from), where, moment(p.Since, now), p.Reason),
			fmt.Sprintf("it %s %s now", verb(u, st), where)}
	}
	if st == nil {
		return out
	}
	return append(out, explainState(u, *st, where, now)...)
}

// verb says what the unit does at its place.
func verb(u unit.Unit, st *unit.State) string {
	if st == nil {
		return "is placed on"
	}
	switch {
	case st.Load != "loaded":
		return "cannot be loaded on"
	case st.Active == "active" && st.Sub == "exited":
		return "is done on"
	case st.Active == "active" || st.Active == "reloading":
		return "runs on"
	case st.Active == "activating":
		return "is starting on"
	case st.Active == "deactivating":
		return "is stopping on"
	case st.Active == "failed":
		return "has failed on"
	case u.Target != unit.Launched:
		return "is loaded on"
	case st.Run == u.Run:
		return "has ended on"
	}
	return "is to start on"
}

// explainState tells what a machine reports.
func explainState(u unit.Unit, st unit.State, where string, now time.Time) []string {
	text := fmt.Sprintf("%s reports it %s (%s) since %s", where, st.Active, st.Sub, moment(st.Since, now))
	if st.MainPID != 0 {
		text += fmt.Sprintf(", main process %d", st.MainPID)
	}
	if st.Restarts > 0 {
		text += fmt.Sprintf(", restarted %d %s by itself", st.Restarts, plural(st.Restarts, "time", "times"))
	}
	well := st.Active == "active" && (st.Message == st.Sub || st.Sub == "exited") // nothing to say beyond the state itself
	out := []string{text}
	switch {
	case st.Load != "loaded" || st.Active == "failed" || st.Sub == "auto-restart" || st.Active == "inactive" && st.Message != "":
		out = append(out, "the cause: "+failure(st))
	case !well && st.Message != "":
		out = append(out, where+" says of it: "+st.Message)
	}
	if st.Status != "" {
		out = append(out, fmt.Sprintf("it says of itself: %s", st.Status))
	}
	if st.Hash != "" && st.Hash != u.Hash() {
		out = append(out, where+" still has an older content of it")
	}
	if len(st.Notes) > 0 {
		var keys []string // which are what a note begins with
		for _, n := range st.Notes {
			key, _, _ := strings.Cut(n, ": ")
			keys = append(keys, key)
		}
		out = append(out, fmt.Sprintf("%s cannot honour (flota status %s tells more): %s", where, u.Name, strings.Join(keys, ", ")))
	}
	return out
}

// failure is the shortest account of what went wrong, in an operator's words.
func failure(st unit.State) string {
	switch {
	case st.Message != "":
		return st.Message
	case st.Load != "" && st.Load != "loaded":
		return st.Load
	case st.Result == "exit-code":
		return fmt.Sprintf("its main process exited with status %d", st.ExitCode)
	case st.Signal != "":
		return "its main process was killed by " + st.Signal
	case st.Result != "":
		return st.Result
	}
	return st.Sub
}

// explainMachine says in sentences how a machine is, and why.
func (c *cluster) explainMachine(m machine.Machine, lost map[machine.ID]time.Time, now time.Time) []string {
	name, units := c.name(m.ID), c.onMachine(m.ID)
	slices.Sort(units)
	p, there := c.alive[m.ID]
	var out []string
	switch c.status(m) {
	case statusGone:
		text := name + " is gone"
		if t, ok := lost[m.ID]; ok {
			text += ": no sign of life since " + moment(t, now)
		}
		out = append(out, text)
	case statusLeaving:
		out = append(out, name+" shuts down cleanly: its units start elsewhere first")
	case statusRestarting:
		out = append(out, name+" restarts its agent; its units go on meanwhile")
	case statusDrained:
		out = append(out, name+" is there and drained by an operator: it gets no units until flota machine resume "+name)
	default:
		out = append(out, fmt.Sprintf("%s is ready: its agent runs since %s", name, moment(p.Started, now)))
	}
	if c.leader == m.ID {
		out = append(out, name+" leads the cluster: it decides which machine runs which unit")
	}
	out = append(out, c.explainRole(m)...)
	switch n := len(units); {
	case n == 0 && there:
		out = append(out, "no unit is placed on it")
	case n > 0:
		text := fmt.Sprintf("%d %s placed on it: ", n, plural(n, "unit is", "units are"))
		for i, u := range units[:min(n, shown)] {
			if i > 0 {
				text += ", "
			}
			text += string(u)
		}
		if n > shown {
			text += fmt.Sprintf(" and %d more", n-shown)
		}
		out = append(out, text)
	}
	if l := machine.Labels(p, m); len(l) > 0 {
		out = append(out, "its labels are "+machine.PrintLabels(l))
	}
	if c.stale {
		out = append(out, "this is what was last known: no quorum answers")
	}
	return out
}

// moment prints a time and how long ago it was: "15:04:05 (12 s ago)", with the day if it is another.
func moment(t, now time.Time) string {
	t = t.In(now.Location())
	form := "15:04:05"
	if t.Format(time.DateOnly) != now.Format(time.DateOnly) {
		form = time.DateTime
	}
	return t.Format(form) + " (" + age(now.Sub(t)) + " ago)"
}

// age prints how long ago something was, in its largest unit.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
