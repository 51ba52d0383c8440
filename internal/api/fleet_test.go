package api

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"flota/internal/machine"
	"flota/internal/unit"
)

// fleetUnit is a unit of fleet's API.
type fleetJSON struct {
	Name, DesiredState, CurrentState, MachineID string
	Options                                     []unit.Option
}

const fleetOptions = `"options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 1000"}]`

// fleetMessage gives the message of an error in fleet's form.
func fleetMessage(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	e := decode[struct {
		Error struct {
			Code    int
			Message string
		}
	}](t, w.Body)
	if e.Error.Code != w.Code || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("error of %d says %d, content type %q", w.Code, e.Error.Code, w.Header().Get("Content-Type"))
	}
	return e.Error.Message
}

func TestMachinesList(t *testing.T) {
	r := newRig(t, 2)
	for _, path := range []string{"/fleet/v1/machines", "/v1-alpha/machines?alt=json"} {
		w := r.do("GET", path, "")
		got := decode[struct {
			Machines []struct{ ID, PrimaryIP string }
		}](t, w.Body)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || len(got.Machines) != 2 ||
			got.Machines[0].ID != string(idOf(1)) || got.Machines[0].PrimaryIP != "127.0.0.1" {
			t.Errorf("%s: %d %+v", path, w.Code, got)
		}
		if w.Header().Get("Server") != "fleetd/1.0.0" {
			t.Errorf("server %q", w.Header().Get("Server"))
		}
	}
}

func TestMachinesListBadNextPageToken(t *testing.T) {
	r := newRig(t, 1)
	for path, want := range map[string]string{
		"/machines?nextPageToken=EwBMLg==":                     "token limit must be 100",
		"/units?nextPageToken=ZAAAAA==":                        "token page must be greater than zero",
		"/state?nextPageToken=ZAABAA==&nextPageToken=ZAABAA==": "too many values for page token",
		"/units?nextPageToken=%21":                             "illegal base64 data at input byte 0",
		"/units?nextPageToken=ZA==":                            "unexpected EOF",
		"/units?nextPageToken=AgACAA==":                        "token limit must be 100",
	} {
		w := r.do("GET", "/fleet/v1"+path, "")
		if got := fleetMessage(t, w); w.Code != 400 || got != want {
			t.Errorf("%s: %d %q, want %q", path, w.Code, got, want)
		}
	}
}

// metadata gives what fleet's API shows of each machine.
func metadata(t *testing.T, r *rig) map[string]map[string]string {
	t.Helper()
	got := decode[struct {
		Machines []struct {
			ID       string
			Metadata map[string]string
		}
	}](t, r.do("GET", "/fleet/v1/machines", "").Body)
	out := map[string]map[string]string{}
	for _, m := range got.Machines {
		out[m.ID[:1]] = m.Metadata
	}
	return out
}

// patch is one operation of PATCH machines.
func patch(op string, id machine.ID, key, value string) string {
	s := fmt.Sprintf(`{"op":%q,"path":"/%s/metadata/%s"`, op, id, key)
	if value != "" {
		s += fmt.Sprintf(`,"value":{"value":%q}`, value)
	}
	return s + "}"
}

func TestMachinesPatchAddModify(t *testing.T) {
	r := newRig(t, 2)
	w := r.do("PATCH", "/fleet/v1/machines", "["+patch("add", idOf(1), "foo", "bar")+","+patch("replace", idOf(2), "n", "nine")+"]")
	if w.Code != 204 || w.Body.Len() != 0 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := metadata(t, r); got["1"]["foo"] != "bar" || got["2"]["n"] != "nine" {
		t.Errorf("%v", got)
	}
	// A machine that is to come; it stays unseen until it does, and keeps what was set then.
	id := machine.ID(strings.Repeat("e", 32))
	if w = r.do("PATCH", "/fleet/v1/machines", "["+patch("add", id, "foo", "bar")+"]"); w.Code != 204 {
		t.Errorf("unknown machine: %d %s", w.Code, w.Body)
	}
	if all, err := r.client(1).Machines(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("a machine that is not there is listed: %+v, %v", all, err)
	}
	if _, err := r.st.Machines.Update(t.Context(), string(id), func(m *machine.Machine) error { m.Name = "late"; return nil }); err != nil {
		t.Fatal(err)
	}
	if m, err := r.client(1).Machine(t.Context(), "late"); err != nil || m.All["foo"] != "bar" {
		t.Errorf("when it came: %+v, %v", m, err)
	}
}

func TestMachinesPatchDelete(t *testing.T) {
	r := newRig(t, 2)
	r.do("PATCH", "/fleet/v1/machines", "["+patch("add", idOf(1), "foo", "bar")+"]")
	w := r.do("PATCH", "/fleet/v1/machines", "["+patch("remove", idOf(1), "foo", "")+","+patch("remove", idOf(2), "n", "")+"]")
	if w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := metadata(t, r); len(got["1"]) != 1 || len(got["2"]) != 0 {
		t.Errorf("%v", got)
	}
}

func TestMachinesPatchBad(t *testing.T) {
	r := newRig(t, 1)
	good := patch("add", idOf(1), "foo", "bar")
	for body, want := range map[string]string{
		"[" + good + "," + patch("noop", idOf(1), "a", "b") + "]":                   "invalid op: expect add, remove, or replace",
		`[{"op":"add","path":"/x/foo","value":{"value":"b"}}]`:                      "machine metadata path invalid",
		"[" + patch("add", "short", "a", "b") + "]":                                 "machine metadata path invalid",
		"[" + patch("add", idOf(1), "a b", "b") + "]":                               "machine metadata path invalid",
		"[" + good + "," + patch("add", idOf(1), "a", "") + "]":                     "invalid value: add and replace require a value",
		`[{"op":"add","path":"/` + string(idOf(1)) + `/metadata/a","value":"bar"}]`: "json: cannot unmarshal",
		"{}": "json: cannot unmarshal",
		"[":  "unexpected EOF",
	} {
		w := r.do("PATCH", "/fleet/v1/machines", body)
		if got := fleetMessage(t, w); w.Code != 400 || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %d %q, want %q", body, w.Code, got, want)
		}
	}
	if got := metadata(t, r); got["1"]["foo"] != "" {
		t.Error("the good half of a bad patch was done")
	}
}

func TestFleetUnits(t *testing.T) {
	r := newRig(t, 1)
	big := strings.Repeat("x", 257) + ".service"
	for _, x := range []struct {
		method, path, body string
		code               int
		message            string
	}{
		{"GET", "/units", "", 200, ""},
		{"GET", "/units/a.service", "", 404, "unit does not exist"},
		{"PUT", "/units/a.service", `{"desiredState":"loaded"}`, 409, "unit does not exist and options field empty"},
		{"PUT", "/units/a.service", `{"name":"b.service"}`, 400, `name in URL "a.service" differs from unit name in request body "b.service"`},
		{"PUT", "/units/a.service", `{`, 400, "unable to decode body: unexpected EOF"},
		{"PUT", "/units/a", `{` + fleetOptions + `}`, 400, `unit name must contain "."`},
		{"PUT", "/units/" + big, `{` + fleetOptions + `}`, 400, "unit name exceeds maximum length (255)"},
		{"PUT", "/units/a.service", `{"desiredState":"running",` + fleetOptions + `}`, 400, `invalid desiredState "running": expect inactive, loaded, or launched`},
		{"PUT", "/units/a.service", `{"options":[{"section":"X-Fleet","name":"Global","value":"true"},{"section":"X-Fleet","name":"MachineOf","value":"b.service"}]}`,
			400, "Global cannot be used with Peers"},
		{"PUT", "/units/a.service", `{` + fleetOptions + `}`, 201, ""},
		{"PUT", "/units/a.service", `{` + fleetOptions + `}`, 409, "must provide DesiredState to update existing unit"},
		{"PUT", "/units/a.service", `{"name":"a.service"}`, 409, "must provide DesiredState to update existing unit"},
		{"PUT", "/units/a.service", `{"desiredState":"launched",` + fleetOptions + `}`, 204, ""},
		{"PUT", "/units/a.service", `{"desiredState":"bogus"}`, 400, `invalid desiredState "bogus": expect inactive, loaded, or launched`},
		{"PUT", "/units/t@.service", `{` + fleetOptions + `}`, 201, ""},
		{"PUT", "/units/t@.service", `{"desiredState":"launched"}`, 400, `cannot activate template "t@.service"`},
		{"PUT", "/units/t%40.service", `{"desiredState":"inactive"}`, 204, ""},
		{"POST", "/units/a.service", `{}`, 405, "only GET, PUT and DELETE supported against this resource"},
		{"POST", "/units", `{}`, 405, "only GET supported against this resource"},
		{"GET", "/state", "", 200, ""},
		{"GET", "/state/a.service", "", 200, ""},
		{"GET", "/state/zzz.service", "", 200, ""},
		{"PUT", "/state", `{}`, 405, "only GET supported against this resource"},
		{"DELETE", "/machines", "", 405, "only GET and PATCH supported against this resource"},
		{"POST", "/discovery", `{}`, 400, "only HTTP GET supported against this resource"},
		{"GET", "", "", 405, ""},
		{"GET", "/", "", 405, ""},
		{"GET", "/nothing", "", 404, ""},
		{"GET", "/units/a/b", "", 404, ""},
		{"DELETE", "/units/zzz.service", "", 404, "unit does not exist"},
		{"DELETE", "/units/a.service", "", 204, ""},
	} {
		w := r.do(x.method, "/fleet/v1"+x.path, x.body)
		if w.Code != x.code {
			t.Errorf("%s %s %s: %d %s, want %d", x.method, x.path, x.body, w.Code, w.Body, x.code)
			continue
		}
		if x.code >= 400 {
			if got := fleetMessage(t, w); got != x.message {
				t.Errorf("%s %s %s: %q, want %q", x.method, x.path, x.body, got, x.message)
			}
		} else if (x.code == 201 || x.code == 204) && w.Body.Len() != 0 {
			t.Errorf("%s %s: body %s", x.method, x.path, w.Body)
		}
	}
	for _, ct := range []string{"text/plain", ""} {
		w := r.do("PUT", "/fleet/v1/units/a.service", `{`+fleetOptions+`}`, "Content-Type", ct)
		if got := fleetMessage(t, w); w.Code != 415 || got != "only acceptable Content-Type is application/json" {
			t.Errorf("content type %q: %d %q", ct, w.Code, got)
		}
	}
	if w := r.do("PUT", "/fleet/v1/units/b.service", `{`+fleetOptions+`}`, "Content-Type", "application/json; charset=utf-8"); w.Code != 201 {
		t.Errorf("content type with a parameter: %d %s", w.Code, w.Body)
	}
}

func TestFleetEmptyLists(t *testing.T) {
	r := newRig(t, 1)
	for _, path := range []string{"/units", "/state", "/units?nextPageToken=ZAACAA=="} {
		if w := r.do("GET", "/fleet/v1"+path, ""); w.Code != 200 || w.Body.String() != "{}" {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
}

func TestFleetReplace(t *testing.T) {
	r := newRig(t, 1)
	r.do("PUT", "/fleet/v1/units/a.service", `{"desiredState":"launched",`+fleetOptions+`}`)
	w := r.do("PUT", "/fleet/v1/units/a.service", `{"options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}`)
	if w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	u := decode[fleetJSON](t, r.do("GET", "/fleet/v1/units/a.service", "").Body)
	if u.DesiredState != "inactive" || u.Options[0].Value != "/bin/true" {
		t.Errorf("%+v", u)
	}
}

func TestFleetPages(t *testing.T) {
	r := newRig(t, 1)
	for i := range 250 {
		name := unit.Name(fmt.Sprintf("u%03d.service", i))
		u := unit.Unit{Name: name, Options: []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/true"}}, Target: unit.Inactive}
		if err := r.st.Units.Create(t.Context(), string(name), u); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	token, pages := "", 0
	for {
		path := "/fleet/v1/units"
		if token != "" {
			path += "?nextPageToken=" + token
		}
		page := decode[struct {
			Units         []fleetJSON
			NextPageToken string
		}](t, r.do("GET", path, "").Body)
		for _, u := range page.Units {
			names = append(names, u.Name)
		}
		pages++
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if len(names) != 250 || pages != 3 || names[100] != "u100.service" {
		t.Errorf("%d units on %d pages", len(names), pages)
	}
}

// The section "must-do" of the facts on fleet: what fleetctl relies on.
func TestFleetctlRelies(t *testing.T) {
	r := newRig(t, 2)
	r.hands()
	get := func(name string) fleetJSON {
		return decode[fleetJSON](t, r.do("GET", "/fleet/v1/units/"+name, "").Body)
	}
	put := func(name, body string) {
		t.Helper()
		if w := r.do("PUT", "/fleet/v1/units/"+name, body); w.Code/100 != 2 {
			t.Fatalf("put %s %s: %d %s", name, body, w.Code, w.Body)
		}
	}
	put("a.service", `{`+fleetOptions+`}`)
	if u := get("a.service"); u.CurrentState != "inactive" || u.DesiredState != "inactive" || u.MachineID != "" {
		t.Errorf("new: %+v", u)
	}
	st := decode[map[string]string](t, r.do("GET", "/fleet/v1/state/a.service", "").Body)
	if st["systemdActiveState"] != "inactive" {
		t.Errorf("state of a unit that is nowhere: %v", st)
	}
	put("a.service", `{"desiredState":"launched"}`)
	until(t, "launched", func() bool { return get("a.service").CurrentState == "launched" })
	until(t, "active", func() bool {
		st := decode[map[string]string](t, r.do("GET", "/fleet/v1/state/a.service", "").Body)
		return st["systemdActiveState"] == "active" && st["systemdLoadState"] == "loaded" && st["systemdSubState"] == "running" && len(st["hash"]) == 40
	})
	if get("a.service").MachineID == "" {
		t.Error("no machine")
	}

	// A quick pair of loaded and launched is a restart, and launched is still shown in between.
	before := r.running("a.service")
	put("a.service", `{"desiredState":"loaded"}`)
	asked := time.Now()
	until(t, "stopped", func() bool { return r.running("a.service") == 0 })
	if time.Since(asked) < 400*time.Millisecond && get("a.service").CurrentState != "launched" {
		t.Error("launched is not shown any more right after loaded was asked for")
	}
	put("a.service", `{"desiredState":"launched"}`)
	until(t, "started anew", func() bool { return r.running("a.service") > before })
	put("a.service", `{"desiredState":"loaded"}`)
	until(t, "loaded in the end", func() bool { return get("a.service").CurrentState == "loaded" })
	put("a.service", `{"desiredState":"inactive"}`)
	until(t, "inactive in the end", func() bool { return get("a.service").CurrentState == "inactive" })

	put("g.service", `{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 9"},{"section":"X-Fleet","name":"Global","value":"true"}]}`)
	until(t, "two states", func() bool {
		l := decode[struct{ States []map[string]string }](t, r.do("GET", "/fleet/v1/state?unitName=g.service", "").Body)
		return len(l.States) == 2 && l.States[0]["machineID"] < l.States[1]["machineID"]
	})
	if u := get("g.service"); u.CurrentState != "" || u.MachineID != "" || u.DesiredState != "launched" {
		t.Errorf("global: %+v", u)
	}
	l := decode[struct{ States []map[string]string }](t, r.do("GET", "/fleet/v1/state?unitName=g.service&machineID="+string(idOf(2)), "").Body)
	if len(l.States) != 1 {
		t.Errorf("of one machine: %v", l)
	}
}

// running gives the run that the unit is in, 0 if it does not run.
func (r *rig) running(name unit.Name) uint64 {
	for _, b := range r.boxes {
		if run := b.driver.Running()[name]; run != 0 {
			return run
		}
	}
	return 0
}

func TestFleetDiscovery(t *testing.T) {
	r := newRig(t, 1)
	doc := decode[struct {
		Kind, BaseURL string
		Schemas       map[string]any
		Resources     map[string]struct {
			Methods map[string]struct{ HTTPMethod, Path string }
		}
	}](t, r.do("GET", "/fleet/v1/discovery", "").Body)
	if doc.Kind != "discovery#restDescription" || doc.BaseURL != "http://127.0.0.1:7700/fleet/v1/" || len(doc.Schemas) != 7 {
		t.Errorf("%+v", doc)
	}
	for name, res := range doc.Resources {
		for m, x := range res.Methods {
			path := strings.ReplaceAll(x.Path, "{unitName}", "a.service")
			if w := r.do(x.HTTPMethod, "/fleet/v1/"+path, ""); w.Code == 405 {
				t.Errorf("%s.%s is described and not served", name, m)
			}
		}
	}
}
