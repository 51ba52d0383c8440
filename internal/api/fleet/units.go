package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/unit"
)

// wireUnit is a unit as fleet sends it.
type wireUnit struct {
	Name         string        `json:"name,omitempty"`
	Options      []unit.Option `json:"options,omitempty"`
	DesiredState string        `json:"desiredState,omitempty"`
	CurrentState string        `json:"currentState,omitempty"` // absent for global units
	MachineID    string        `json:"machineID,omitempty"`    // absent for global units
}

// lingers is how long a unit that was launched is still shown so after it was asked to be loaded only. fleetctl restart asks for
// loaded, and then waits to see launched before it asks for launched: it never would if the unit stopped at once. It looks every 250 ms.
const lingers = 600 * time.Millisecond

// wire gives the unit as fleet sends it.
func (h *handler) wire(u Unit) wireUnit {
	out := wireUnit{Name: string(u.Name), Options: u.Options, DesiredState: string(u.Target)}
	if u.Global {
		return out
	}
	out.CurrentState = string(h.current(u))
	if u.Place != nil {
		out.MachineID = string(u.Place.Machine)
	}
	return out
}

// current is fleet's currentState of a unit that is not global.
func (h *handler) current(u Unit) unit.Target {
	now := unit.CurrentState(u.Unit, u.Place, u.State)
	if now == unit.Loaded && u.Target == unit.Loaded && u.Run != 0 && u.State.Run == u.Run {
		if age := h.now().Sub(u.Changed); age > -lingers && age < lingers {
			return unit.Launched
		}
	}
	return now
}

// listUnits answers GET units.
func (h *handler) listUnits(w http.ResponseWriter, r *http.Request) {
	page, err := pageOf(r)
	if err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	all, err := h.b.Units(r.Context())
	if err != nil {
		h.failed(w, r, err)
		return
	}
	var out struct {
		Units         []wireUnit `json:"units,omitempty"`
		NextPageToken string     `json:"nextPageToken,omitempty"`
	}
	all, out.NextPageToken = cut(all, page)
	for _, u := range all {
		out.Units = append(out.Units, h.wire(u))
	}
	send(w, http.StatusOK, out)
}

// getUnit answers GET units/<name>. A name that no unit can have is not there.
func (h *handler) getUnit(w http.ResponseWriter, r *http.Request, item string) {
	name, err := unit.ParseName(item)
	if err != nil {
		Fail(w, http.StatusNotFound, "unit does not exist")
		return
	}
	u, err := h.b.Unit(r.Context(), name)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	send(w, http.StatusOK, h.wire(u))
}

// deleteUnit answers DELETE units/<name>.
func (h *handler) deleteUnit(w http.ResponseWriter, r *http.Request, item string) {
	name, err := unit.ParseName(item)
	if err != nil {
		Fail(w, http.StatusNotFound, "unit does not exist")
		return
	}
	if err := h.b.Destroy(r.Context(), name); err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// contentType refuses what is not sent as JSON, in fleet's words.
func contentType(r *http.Request) error {
	values := r.Header["Content-Type"]
	if len(values) != 1 {
		return fmt.Errorf("expected 1 Content-Type, got %d", len(values))
	}
	kind, _, _ := strings.Cut(values[0], ";")
	if strings.TrimSpace(kind) != "application/json" {
		return errors.New("only acceptable Content-Type is application/json")
	}
	return nil
}

// putUnit answers PUT units/<name>: creates a unit, changes its content, or wants a state of it.
func (h *handler) putUnit(w http.ResponseWriter, r *http.Request, item string) {
	if err := contentType(r); err != nil {
		Fail(w, http.StatusUnsupportedMediaType, err.Error())
		return
	}
	var in wireUnit
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		Fail(w, http.StatusBadRequest, "unable to decode body: "+err.Error())
		return
	}
	if in.Name == "" {
		in.Name = item
	}
	if in.Name != item {
		Fail(w, http.StatusBadRequest, fmt.Sprintf("name in URL %q differs from unit name in request body %q", item, in.Name))
		return
	}
	name, err := unit.ParseName(item)
	if err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	old, err := h.b.Unit(r.Context(), name)
	exists := !fault.Is(err, fault.NotFound)
	if err != nil && exists {
		h.failed(w, r, err)
		return
	}
	content := unit.File{Options: in.Options}
	switch {
	case !exists && len(in.Options) == 0:
		Fail(w, http.StatusConflict, "unit does not exist and options field empty")
	case !exists, len(in.Options) > 0 && content.Hash() != old.Hash():
		h.create(w, r, name, content, in.DesiredState)
	case in.DesiredState == "":
		Fail(w, http.StatusConflict, "must provide DesiredState to update existing unit")
	default:
		h.update(w, r, name, in.DesiredState)
	}
}

// target reads a desired state. fleet answers an unknown one with an empty 500 when it creates a unit, and stores it for ever when it changes
// one; both are a 400 that names it here.
func target(s string) (unit.Target, error) {
	switch t := unit.Target(s); t {
	case unit.Inactive, unit.Loaded, unit.Launched:
		return t, nil
	}
	return "", fmt.Errorf("invalid desiredState %q: expect inactive, loaded, or launched", s)
}

// create stores a unit, or gives one that is there a new content; without a desired state it is inactive. fleet does not check the content of a unit
// that is there; here both are checked alike.
func (h *handler) create(w http.ResponseWriter, r *http.Request, name unit.Name, content unit.File, desired string) {
	if err := unit.Validate(name, content); err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	want := unit.Inactive
	if desired != "" {
		var err error
		if want, err = target(desired); err == nil && want != unit.Inactive {
			err = unit.CanActivate(name)
		}
		if err != nil {
			Fail(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	if err := h.b.Put(r.Context(), name, content.Options, want); err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// update wants a state of a unit.
func (h *handler) update(w http.ResponseWriter, r *http.Request, name unit.Name, desired string) {
	want, err := target(desired)
	if err == nil && want != unit.Inactive {
		err = unit.CanActivate(name)
	}
	if err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if err := h.b.SetTarget(r.Context(), name, want); err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
