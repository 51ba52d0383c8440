package fleet

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"

	"flota/internal/machine"
)

// wireMachine is a machine as fleet sends it.
type wireMachine struct {
	ID        string            `json:"id,omitempty"`
	PrimaryIP string            `json:"primaryIP,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
}

// listMachines answers GET machines.
func (h *handler) listMachines(w http.ResponseWriter, r *http.Request) {
	page, err := pageOf(r)
	if err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	all, err := h.b.Machines(r.Context())
	if err != nil {
		h.failed(w, r, err)
		return
	}
	var out struct {
		Machines      []wireMachine `json:"machines,omitempty"`
		NextPageToken string        `json:"nextPageToken,omitempty"`
	}
	all, out.NextPageToken = cut(all, page)
	for _, m := range all {
		out.Machines = append(out.Machines, wireMachine{ID: string(m.ID), PrimaryIP: m.Addr, Metadata: m.Metadata})
	}
	send(w, http.StatusOK, out)
}

// wirePatch is one operation of PATCH machines. The value is nested, unlike in JSON Patch and in fleet's documentation.
type wirePatch struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value *struct {
		Value string `json:"value"`
	} `json:"value"`
}

// patchPath is the form of a path: a machine and a key of its metadata.
var patchPath = regexp.MustCompile(`^/([^/]+)/metadata/([A-Za-z0-9_.-]+$)`)

// maxMetadata is the longest key or value, in bytes; fleet knew no limit.
const maxMetadata = 253

// parsePatch checks one operation and gives what it does. The message is "" if all is well.
func parsePatch(p wirePatch) (id machine.ID, key string, value *string, message string) {
	if p.Op != "add" && p.Op != "remove" && p.Op != "replace" {
		return "", "", nil, "invalid op: expect add, remove, or replace"
	}
	part := patchPath.FindStringSubmatch(p.Path)
	if part == nil {
		return "", "", nil, "machine metadata path invalid"
	}
	// fleet takes anything for a machine, and keeps it for ever. Only an ID that a machine can have is taken here.
	id, err := machine.ParseID(part[1])
	if err != nil || len(part[2]) > maxMetadata {
		return "", "", nil, "machine metadata path invalid"
	}
	if p.Op == "remove" {
		return id, part[2], nil, ""
	}
	if p.Value == nil || p.Value.Value == "" {
		return "", "", nil, "invalid value: add and replace require a value"
	}
	if len(p.Value.Value) > maxMetadata {
		return "", "", nil, "invalid value: at most 253 bytes"
	}
	return id, part[2], &p.Value.Value, ""
}

// patchMachines answers PATCH machines. All operations are checked first; then those of one machine are done together. As in fleet no
// content type is asked for; a web page cannot send PATCH unasked.
func (h *handler) patchMachines(w http.ResponseWriter, r *http.Request) {
	var ops []wirePatch
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	var order []machine.ID
	sets := map[machine.ID]map[string]*string{}
	for _, op := range ops {
		id, key, value, message := parsePatch(op)
		if message != "" {
			Fail(w, http.StatusBadRequest, message)
			return
		}
		if sets[id] == nil {
			sets[id] = map[string]*string{}
			order = append(order, id)
		}
		maps.Copy(sets[id], map[string]*string{key: value})
	}
	for _, id := range order {
		if err := h.b.Label(r.Context(), id, sets[id]); err != nil {
			h.failed(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
