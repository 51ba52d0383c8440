package fleet

import (
	"net/http"

	"flota/internal/fault"
	"flota/internal/unit"
)

// wireState is what a machine reports of a unit, as fleet sends it.
type wireState struct {
	Name               string `json:"name,omitempty"`
	Hash               string `json:"hash,omitempty"`
	MachineID          string `json:"machineID,omitempty"`
	SystemdLoadState   string `json:"systemdLoadState,omitempty"`
	SystemdActiveState string `json:"systemdActiveState,omitempty"`
	SystemdSubState    string `json:"systemdSubState,omitempty"`
}

// stateOf gives the state as fleet sends it.
func stateOf(st unit.State) wireState {
	return wireState{Name: string(st.Unit), Hash: st.Hash, MachineID: string(st.Machine),
		SystemdLoadState: st.Load, SystemdActiveState: st.Active, SystemdSubState: st.Sub}
}

// listStates answers GET state.
func (h *handler) listStates(w http.ResponseWriter, r *http.Request) {
	page, err := pageOf(r)
	if err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	all, err := h.b.States(r.Context())
	if err != nil {
		h.failed(w, r, err)
		return
	}
	name, id := r.URL.Query().Get("unitName"), r.URL.Query().Get("machineID")
	var fits []wireState
	for _, st := range all {
		if (name == "" || name == string(st.Unit)) && (id == "" || id == string(st.Machine)) {
			fits = append(fits, stateOf(st))
		}
	}
	var out struct {
		States        []wireState `json:"states,omitempty"`
		NextPageToken string      `json:"nextPageToken,omitempty"`
	}
	out.States, out.NextPageToken = cut(fits, page)
	send(w, http.StatusOK, out)
}

// getState answers GET state/<unit> with what the unit's machine reports, or the first that reports anything. fleet crashes when there is nothing,
// and fleetctl 1.0.0 crashes over the 404 that fleet meant to give: a unit of which nothing is reported is shown as systemd shows a
// unit that it does not know.
func (h *handler) getState(w http.ResponseWriter, r *http.Request, item string) {
	none := wireState{Name: item, SystemdLoadState: "not-found", SystemdActiveState: "inactive", SystemdSubState: "dead"}
	name, err := unit.ParseName(item)
	if err != nil {
		send(w, http.StatusOK, none)
		return
	}
	u, err := h.b.Unit(r.Context(), name)
	switch {
	case fault.Is(err, fault.NotFound):
		send(w, http.StatusOK, none)
	case err != nil:
		h.failed(w, r, err)
	case u.State != nil:
		send(w, http.StatusOK, stateOf(*u.State))
	case len(u.States) > 0:
		send(w, http.StatusOK, stateOf(u.States[0]))
	default:
		send(w, http.StatusOK, none)
	}
}
