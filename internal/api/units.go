package api

import (
	"context"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/service"
	"flota/internal/unit"
)

// unitOf is the unit as it is sent. waiting is its reason to wait, "" for none.
func (c *cluster) unitOf(name unit.Name, waiting string) Unit {
	u := c.units[name]
	p := c.prepare(name)
	out := Unit{Unit: u, Hash: p.Hash, Global: p.Fleet.Global || name.IsTemplate() && isGlobal(u), Waiting: waiting}
	for _, pl := range c.places[name] {
		out.Places = append(out.Places, Place{Machine: pl.Machine, Name: c.name(pl.Machine), Addr: c.alive[pl.Machine].Addr,
			Since: pl.Since, Reason: pl.Reason, Leaving: pl.Leaving})
	}
	for _, st := range c.states[name] {
		out.States = append(out.States, State{State: st, Name: c.name(st.Machine), Addr: c.alive[st.Machine].Addr})
	}
	if !out.Global {
		out.Current = c.current(name)
	}
	return out
}

// isGlobal reads Global= of a unit that the scheduler does not look into.
func isGlobal(u unit.Unit) bool {
	f, _ := u.File().Fleet(u.Name)
	return f.Global
}

// place gives the place of a unit that is not leaving, and what its machine reports; nil for none.
func (c *cluster) place(name unit.Name) (*unit.Place, *unit.State) {
	ps := c.places[name]
	if len(ps) == 0 || ps[0].Leaving {
		return nil, nil
	}
	for i, st := range c.states[name] {
		if st.Machine == ps[0].Machine {
			return &ps[0], &c.states[name][i]
		}
	}
	return &ps[0], nil
}

// current is fleet's currentState of a unit that is not global.
func (c *cluster) current(name unit.Name) unit.Target {
	p, st := c.place(name)
	return unit.CurrentState(c.units[name], p, st)
}

// listUnits answers GET /v1/units.
func (s *Server) listUnits(w http.ResponseWriter, r *http.Request) error {
	globs := r.URL.Query()["match"]
	for _, g := range globs {
		if _, err := path.Match(g, ""); err != nil {
			return fault.New(fault.Invalid, "pattern %q is malformed", clip(g))
		}
	}
	c, err := s.whole(r.Context())
	if err != nil {
		return err
	}
	waiting := s.waiting(c)
	list := List[Unit]{Items: []Unit{}, Stale: c.stale}
	for _, name := range slices.Sorted(maps.Keys(c.units)) {
		if matches(globs, string(name)) {
			list.Items = append(list.Items, c.unitOf(name, waiting[name]))
		}
	}
	return answerRead(w, c.stale, list)
}

// matches says whether one of the globs matches, or there are none.
func matches(globs []string, name string) bool {
	return len(globs) == 0 || slices.ContainsFunc(globs, func(g string) bool {
		ok, _ := path.Match(g, name)
		return ok
	})
}

// noUnit is the error for a unit that does not exist.
func noUnit(name unit.Name) error {
	return fault.WithHint(fault.New(fault.NotFound, "unit %q does not exist", string(name)), "flota list-unit-files shows what there is")
}

// pathUnit is the unit named in the path.
func pathUnit(r *http.Request) (unit.Name, error) { return unit.ParseName(r.PathValue("name")) }

// loadUnit reads the unit with everything about it; if it misses a place, the whole cluster.
func (s *Server) loadUnit(ctx context.Context, name unit.Name) (*cluster, Unit, error) {
	c, err := s.one(ctx, name)
	if err != nil {
		return nil, Unit{}, err
	}
	if _, ok := c.units[name]; !ok {
		return nil, Unit{}, noUnit(name)
	}
	waiting := ""
	if c.misses(name) {
		if c, err = s.whole(ctx); err != nil {
			return nil, Unit{}, err
		}
		if _, ok := c.units[name]; !ok {
			return nil, Unit{}, noUnit(name)
		}
		if c.misses(name) {
			waiting = s.waiting(c)[name]
		}
	}
	return c, c.unitOf(name, waiting), nil
}

// getUnit answers GET /v1/units/{name}.
func (s *Server) getUnit(w http.ResponseWriter, r *http.Request) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	c, u, err := s.loadUnit(r.Context(), name)
	if err != nil {
		return err
	}
	return answerRead(w, c.stale, u)
}

// putUnit answers PUT /v1/units/{name}.
func (s *Server) putUnit(w http.ResponseWriter, r *http.Request) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	var p PutUnit
	if err := body(r, &p); err != nil {
		return err
	}
	file, notes, err := s.content(r.Context(), name, p)
	if err != nil {
		return err
	}
	if p.Strict && len(notes) > 0 {
		return fault.WithHint(fault.New(fault.Invalid, "%s: %s", name, strings.Join(notes, "; ")), "without --strict these are only warnings")
	}
	_, created, err := modify(r.Context(), s, s.Store.Units, string(name), func(u unit.Unit, exists bool) (unit.Unit, act, error) {
		return replace(u, exists, name, file, p.Replace, time.Now().UTC())
	})
	if err != nil {
		return err
	}
	return s.answerUnit(w, r, name, created, notes)
}

// answerUnit answers a change with the unit as it is now, without why it waits: that would read and plan the whole cluster for each of a
// thousand units that are started together, when the leader has not seen the change yet.
func (s *Server) answerUnit(w http.ResponseWriter, r *http.Request, name unit.Name, created bool, notes []string) error {
	c, err := s.one(r.Context(), name)
	if err != nil {
		return err
	}
	if _, ok := c.units[name]; !ok {
		return noUnit(name) // somebody destroyed it meanwhile
	}
	u := c.unitOf(name, "")
	u.Notes = notes
	if created {
		return answer(w, http.StatusCreated, u)
	}
	return answer(w, http.StatusOK, u)
}

// replace gives the unit with the content of file.
func replace(u unit.Unit, exists bool, name unit.Name, file unit.File, over bool, now time.Time) (unit.Unit, act, error) {
	if !exists {
		return unit.Unit{Name: name, Options: file.Options, Target: unit.Inactive, Created: now, Changed: now}, put, nil
	}
	if u.Hash() == file.Hash() {
		return u, keep, nil
	}
	if !over {
		return u, keep, fault.WithHint(fault.New(fault.Conflict, "unit %q exists with another content", string(name)),
			"--replace overwrites it; flota cat %s shows it", name)
	}
	u.Options, u.Changed = file.Options, now
	if u.Target == unit.Launched {
		u.Run++
	}
	return u, put, nil
}

// content gives what is to be stored for a unit, and what a person should know of it.
func (s *Server) content(ctx context.Context, name unit.Name, p PutUnit) (unit.File, []string, error) {
	var file unit.File
	var notes []string
	switch {
	case p.Text != "" && len(p.Options) > 0:
		return file, nil, fault.New(fault.Invalid, "%s: text and options are both given", name)
	case p.Text != "":
		f, warnings, err := unit.Parse(name, []byte(p.Text))
		if err != nil {
			return file, nil, err
		}
		file = f
		for _, w := range warnings {
			notes = append(notes, w.String())
		}
	case len(p.Options) > 0:
		file = unit.File{Options: p.Options}
		for _, key := range file.Unknown() {
			notes = append(notes, key+"= is unknown, ignored")
		}
	default:
		f, err := s.fromTemplate(ctx, name)
		if err != nil {
			return file, nil, err
		}
		file = f
	}
	if len(file.Options) == 0 {
		return file, nil, fault.New(fault.Invalid, "%s: the unit file says nothing", name)
	}
	if err := unit.Validate(name, file); err != nil {
		if !strings.HasPrefix(err.Error(), string(name)) { // fleet's own words name no unit
			err = fault.Wrap(fault.KindOf(err), err, "%s", name)
		}
		return file, nil, err
	}
	return file, append(notes, judge(name, file)...), nil
}

// judge says what of a unit file systemd would not take.
func judge(name unit.Name, file unit.File) []string {
	if name.Kind() != unit.Service {
		return []string{"no driver here runs ." + string(name.Kind()) + " units: it can be stored, and not be started"}
	}
	if name.IsTemplate() {
		name = name.WithInstance("instance") // what a template says is judged as one of its instances
	}
	_, all, err := service.Parse(name, file, service.DefaultHost())
	var notes []string
	for _, n := range all {
		if n.Class == service.BadValue {
			notes = append(notes, n.String())
		}
	}
	if err != nil {
		notes = append(notes, "it cannot start: "+err.Error())
	}
	return notes
}

// fromTemplate gives the content for a unit that is put without any: what it has, or for an instance what its template has.
func (s *Server) fromTemplate(ctx context.Context, name unit.Name) (unit.File, error) {
	var u unit.Unit
	_, err := s.read(ctx, func(ctx context.Context, how storeRead) error {
		e, ok, err := s.Store.Units.Get(ctx, string(name), how)
		if !ok && err == nil && name.IsInstance() {
			e, ok, err = s.Store.Units.Get(ctx, string(name.Template()), how)
		}
		if ok {
			u = e.Value
		}
		return err
	})
	switch {
	case err != nil:
		return unit.File{}, err
	case u.Name != "":
		return u.File(), nil
	case name.IsInstance():
		return unit.File{}, fault.WithHint(fault.New(fault.NotFound, "neither unit %q nor its template %q exists", string(name), string(name.Template())),
			"submit the unit file of the template first")
	}
	return unit.File{}, fault.WithHint(fault.New(fault.Invalid, "%s: no content given", name), "send the unit file as text, or its options")
}

// deleteUnit answers DELETE /v1/units/{name}. The leader then takes it off its machines, which stop it.
func (s *Server) deleteUnit(w http.ResponseWriter, r *http.Request) error {
	name, err := pathUnit(r)
	if err != nil {
		return err
	}
	if err := s.destroy(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// destroy removes a unit.
func (s *Server) destroy(ctx context.Context, name unit.Name) error {
	_, _, err := modify(ctx, s, s.Store.Units, string(name), func(u unit.Unit, exists bool) (unit.Unit, act, error) {
		if !exists {
			return u, keep, noUnit(name)
		}
		return u, remove, nil
	})
	return err
}
