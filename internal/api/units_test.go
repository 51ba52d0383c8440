package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"flota/internal/driver/fake"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

func TestPutUnit(t *testing.T) {
	r := newRig(t, 1)
	c := r.client(1)
	ctx := t.Context()
	u, created, err := c.PutUnit(ctx, "hello.service", PutUnit{Text: hello})
	if err != nil || !created || u.Target != unit.Inactive || u.Current != unit.Inactive || len(u.Notes) != 0 {
		t.Fatalf("create: %+v %v %v", u, created, err)
	}
	if _, created, err = c.PutUnit(ctx, "hello.service", PutUnit{Text: "# a comment\n" + hello}); err != nil || created {
		t.Errorf("the same content again: created %v, %v", created, err)
	}
	_, _, err = c.PutUnit(ctx, "hello.service", PutUnit{Text: hello + "Restart=always\n"})
	if !fault.Is(err, fault.Conflict) || fault.Hint(err) == "" {
		t.Errorf("another content: %v, hint %q", err, fault.Hint(err))
	}
	u, err = c.SetTarget(ctx, "hello.service", SetTarget{Target: unit.Launched})
	if err != nil || u.Run != 1 {
		t.Fatalf("launch: run %d, %v", u.Run, err)
	}
	u, _, err = c.PutUnit(ctx, "hello.service", PutUnit{Text: hello + "Restart=always\n", Replace: true})
	if err != nil || u.Run != 2 || u.Target != unit.Launched {
		t.Errorf("replace: run %d, %s, %v", u.Run, u.Target, err)
	}
	for _, x := range []struct {
		name string
		put  PutUnit
		kind fault.Kind
		text string
	}{
		{"hello", PutUnit{Text: hello}, fault.Invalid, `must contain "."`},
		{"a/b.service", PutUnit{Text: hello}, fault.Invalid, "cannot contain"},
		{"..", PutUnit{Text: hello}, fault.Invalid, ""},
		{"x.service", PutUnit{}, fault.Invalid, "no content"},
		{"x@1.service", PutUnit{}, fault.NotFound, "x@.service"},
		{"x.service", PutUnit{Text: "# nothing\n"}, fault.Invalid, "says nothing"},
		{"x.service", PutUnit{Text: "[Service\nA=b"}, fault.Invalid, "x.service:1"},
		{"x.service", PutUnit{Text: "[X-Fleet]\nGlobal=true\nMachineOf=a.service\n"}, fault.Invalid, "x.service: Global cannot be used with Peers"},
		{"x.service", PutUnit{Text: hello, Options: []unit.Option{{Section: "A", Name: "b"}}}, fault.Invalid, "both"},
		{"x.service", PutUnit{Options: []unit.Option{{Section: "A", Name: "b\nc"}}}, fault.Invalid, ""},
		{"x.service", PutUnit{Text: "[Service]\nExecStart=relative/path\n", Strict: true}, fault.Invalid, "ExecStart"},
	} {
		_, _, err := c.PutUnit(ctx, x.name, x.put)
		if fault.KindOf(err) != x.kind || err == nil || !strings.Contains(err.Error(), x.text) {
			t.Errorf("%s %+v: %v, want %s with %q", x.name, x.put, err, x.kind, x.text)
		}
	}
	u, _, err = c.PutUnit(ctx, "bad.service", PutUnit{Text: "[Service]\nExecStart=relative/path\n"})
	if err != nil || len(u.Notes) != 1 || !strings.Contains(u.Notes[0], "cannot start") {
		t.Errorf("a unit that systemd could not start: notes %q, %v", u.Notes, err)
	}
}

func TestPutInstanceOfTemplate(t *testing.T) {
	r := newRig(t, 1)
	c := r.client(1)
	if _, _, err := c.PutUnit(t.Context(), "web@.service", PutUnit{Text: hello}); err != nil {
		t.Fatal(err)
	}
	u, created, err := c.PutUnit(t.Context(), "web@1.service", PutUnit{})
	if err != nil || !created || len(u.Options) != 1 {
		t.Errorf("instance: %+v %v %v", u, created, err)
	}
	_, err = c.SetTarget(t.Context(), "web@.service", SetTarget{Target: unit.Launched})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot activate template") {
		t.Errorf("start of a template: %v", err)
	}
}

// A write whose answer is lost and that is asked for again must not change anything twice.
func TestWritesAreSafeToRepeat(t *testing.T) {
	r := newRig(t, 1)
	c := r.client(1)
	r.boxes[0].kv.LoseNext(1)
	_, _, err := c.PutUnit(t.Context(), "a.service", PutUnit{Text: hello})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "may have been made or not") {
		t.Fatalf("lost answer: %v", err)
	}
	if _, created, err := c.PutUnit(t.Context(), "a.service", PutUnit{Text: hello}); err != nil || created {
		t.Errorf("again: created %v, %v", created, err)
	}
	r.boxes[0].kv.LoseNext(1)
	_, _ = c.SetTarget(t.Context(), "a.service", SetTarget{Target: unit.Launched})
	u, err := c.SetTarget(t.Context(), "a.service", SetTarget{Target: unit.Launched})
	if err != nil || u.Run != 1 {
		t.Errorf("launched twice: run %d, %v", u.Run, err)
	}
}

func TestSetTarget(t *testing.T) {
	r := newRig(t, 1)
	c := r.client(1)
	ctx := t.Context()
	if _, _, err := c.PutUnit(ctx, "a.service", PutUnit{Text: hello}); err != nil {
		t.Fatal(err)
	}
	state := func(active string, run uint64) {
		t.Helper()
		key := store.PlaceKey(idOf(1), "a.service")
		e, _, _ := r.st.Units.Get(ctx, "a.service", store.Read{})
		if err := r.st.Places.Put(ctx, key, unit.Place{Machine: idOf(1), Unit: e.Value}, 0); err != nil {
			t.Fatal(err)
		}
		if err := r.st.States.Put(ctx, key, unit.State{Unit: "a.service", Machine: idOf(1), Load: "loaded", Active: active, Run: run}, 0); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		active string // what is reported before, "" for what was
		run    uint64
		target SetTarget
		want   uint64
	}{
		{"", 0, SetTarget{Target: unit.Loaded}, 0},
		{"", 0, SetTarget{Target: unit.Launched}, 1},
		{"", 0, SetTarget{Target: unit.Launched, Anew: "down"}, 1}, // waits for a place
		{"inactive", 0, SetTarget{Target: unit.Launched, Anew: "down"}, 1},
		{"active", 1, SetTarget{Target: unit.Launched, Anew: "down"}, 1},
		{"activating", 1, SetTarget{Target: unit.Launched, Anew: "down"}, 1},
		{"failed", 1, SetTarget{Target: unit.Launched}, 1},
		{"failed", 1, SetTarget{Target: unit.Launched, Anew: "down"}, 2},
		{"failed", 1, SetTarget{Target: unit.Launched, Anew: "down"}, 2}, // the start asked for is still to come
		{"inactive", 2, SetTarget{Target: unit.Launched, Anew: "down"}, 3},
		{"active", 3, SetTarget{Target: unit.Launched, Anew: "always"}, 4},
		{"active", 4, SetTarget{Target: unit.Loaded}, 4},
		{"active", 4, SetTarget{Target: unit.Launched}, 5},
		{"active", 5, SetTarget{Target: unit.Inactive, Anew: "always"}, 5},
	}
	for i, s := range steps {
		if s.active != "" {
			state(s.active, s.run)
		}
		u, err := c.SetTarget(ctx, "a.service", s.target)
		if err != nil || u.Run != s.want || u.Target != s.target.Target {
			t.Errorf("step %d %+v: run %d, target %s, %v", i, s, u.Run, u.Target, err)
		}
	}
	for _, bad := range []SetTarget{{}, {Target: "running"}, {Target: unit.Launched, Anew: "often"}} {
		if _, err := c.SetTarget(ctx, "a.service", bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := c.SetTarget(ctx, "b.service", SetTarget{Target: unit.Loaded}); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown unit: %v", err)
	}
}

func TestListUnits(t *testing.T) {
	r := newRig(t, 2)
	r.hands()
	c := r.client(2)
	for _, n := range []string{"b@2.service", "a.service", "b@1.service"} {
		if _, _, err := c.PutUnit(t.Context(), n, PutUnit{Text: hello}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.SetTarget(t.Context(), n, SetTarget{Target: unit.Launched}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all are active", func() bool {
		l, err := c.Units(t.Context())
		if err != nil || len(l.Items) != 3 || l.Items[0].Name != "a.service" {
			return false
		}
		for _, u := range l.Items {
			if len(u.States) != 1 || u.States[0].Active != "active" || u.Current != unit.Launched || u.Places[0].Name == "" {
				return false
			}
		}
		return true
	})
	l, err := c.Units(t.Context(), "b@*", "nothing")
	if err != nil || len(l.Items) != 2 {
		t.Errorf("by glob: %d units, %v", len(l.Items), err)
	}
	if _, err := c.Units(t.Context(), "[a"); !fault.Is(err, fault.Invalid) {
		t.Errorf("bad glob: %v", err)
	}
	if err := c.Destroy(t.Context(), "a.service"); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(t.Context(), "a.service"); !fault.Is(err, fault.NotFound) {
		t.Errorf("destroy twice: %v", err)
	}
	until(t, "it is stopped", func() bool {
		for _, b := range r.boxes {
			if _, on := b.driver.Running()["a.service"]; on {
				return false
			}
		}
		return true
	})
}

func TestUnitThatWaits(t *testing.T) {
	r := newRig(t, 2)
	c := r.client(1)
	if _, _, err := c.PutUnit(t.Context(), "a.service", PutUnit{Text: hello + "[X-Fleet]\nMachineMetadata=disk=ssd\n"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetTarget(t.Context(), "a.service", SetTarget{Target: unit.Launched}); err != nil {
		t.Fatal(err)
	}
	u, err := c.Unit(t.Context(), "a.service")
	if err != nil || !strings.Contains(u.Waiting, "disk=ssd") {
		t.Errorf("waiting %q, %v", u.Waiting, err)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, 1)
	local, remote := r.boxes[0].srv.Handler(Local), r.boxes[0].srv.Handler(Plain)
	for _, x := range []struct {
		name, method, path, body string
		header                   []string
		local, remote            int
	}{
		{"unknown path", "GET", "/v1/nothing", "", nil, 404, 404},
		{"root", "GET", "/", "", nil, 404, 404},
		{"unknown method", "DELETE", "/v1/units", "", nil, 405, 405},
		{"method of a unit", "PATCH", "/v1/units/a.service", "{}", nil, 405, 405},
		{"no JSON", "PUT", "/v1/units/a.service", "{", nil, 400, 400},
		{"unknown field", "PUT", "/v1/units/a.service", `{"txet":"x"}`, nil, 400, 400},
		{"two documents", "PUT", "/v1/units/a.service", `{"text":"x"}{}`, nil, 400, 400},
		{"content type", "PUT", "/v1/units/a.service", "{}", []string{"Content-Type", "text/plain"}, 415, 415},
		{"post without content type", "POST", "/v1/machines/m1/drain", "", nil, 415, 415},
		{"origin", "GET", "/v1/units", "", []string{"Origin", "http://evil.example"}, 200, 403},
		{"rebinding", "GET", "/v1/units", "", []string{"Host", "evil.example:7700"}, 200, 403},
		{"rebinding fleet", "GET", "/fleet/v1/units", "", []string{"Host", "evil.example:7700"}, 200, 403},
		{"own name", "GET", "/v1/units", "", []string{"Host", "m1:7700"}, 200, 200},
		{"localhost", "GET", "/v1/units", "", []string{"Host", "localhost:7700"}, 200, 200},
		{"ipv6", "GET", "/v1/units", "", []string{"Host", "[::1]:7700"}, 200, 200},
		{"halt", "POST", "/v1/halt", "{}", nil, 503, 403},
		{"join tokens", "GET", "/v1/tokens", "", nil, 503, 403},
		{"a join token", "POST", "/v1/tokens", "{}", nil, 503, 403},
		{"the authority", "GET", "/v1/trust/authority", "", nil, 403, 403},
		{"a backup", "GET", "/v1/backup", "", nil, 503, 403},
		{"recovery", "POST", "/v1/recover", "{}", nil, 503, 403},
		{"leaving", "POST", "/v1/leave", "{}", nil, 503, 403},
		{"joining without TLS", "POST", "/v1/join", "{}", nil, 503, 403},
		{"store without upgrade", "GET", "/v1/store", "", nil, 426, 403},
		{"keys without upgrade", "GET", "/v1/keyfront", "", nil, 426, 403},
		{"a name with a slash", "GET", "/v1/units/a%2Fb.service", "", nil, 400, 400},
		{"dots", "GET", "/v1/units/..", "", nil, 400, 400},
		{"dots escaped", "GET", "/v1/units/%2e%2e", "", nil, 400, 400},
		{"bad number", "GET", "/v1/events?lines=x", "", nil, 400, 400},
	} {
		for where, h := range map[string]http.Handler{"local": local, "remote": remote} {
			want := x.local
			if where == "remote" {
				want = x.remote
			}
			w := ask(h, x.method, x.path, x.body, x.header...)
			if w.Code != want {
				t.Errorf("%s, %s: %d, want %d: %s", x.name, where, w.Code, want, w.Body)
			}
			if w.Code >= 400 && !strings.HasPrefix(x.path, "/fleet") {
				p := decode[Problem](t, w.Body)
				if w.Header().Get("Content-Type") != "application/problem+json" || p.Detail == "" || p.Status != w.Code || p.Kind == "" {
					t.Errorf("%s, %s: %+v", x.name, where, p)
				}
			}
		}
	}
}

// A change is answered without reading the whole cluster, however many units wait.
func TestChangesReadOneUnit(t *testing.T) {
	m := mem.New()
	defer m.Close()
	spy := &listSpy{KV: m}
	st := store.New(spy)
	for n := 1; n <= 9; n++ {
		if err := st.Machines.Put(t.Context(), string(idOf(n)), machine.Machine{ID: idOf(n), Name: fmt.Sprintf("m%d", n)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	h := New(Options{ID: idOf(1), Name: "m1", Store: st, Driver: fake.New(fake.Options{})}).Handler(Local)
	for _, x := range []struct{ method, path, body string }{
		{"PUT", "/v1/units/a.service", `{"text":"[Service]\nExecStart=/bin/true\n"}`},
		{"POST", "/v1/units/a.service/target", `{"target":"launched","anew":"down"}`},
	} {
		w := ask(h, x.method, x.path, x.body)
		if u := decode[Unit](t, w.Body); w.Code >= 300 || u.Name != "a.service" || u.Waiting != "" {
			t.Errorf("%s %s: %d %+v", x.method, x.path, w.Code, u)
		}
	}
	if n := spy.whole.Load(); n != 0 {
		t.Errorf("the whole store was read %d times", n)
	}
	if w := ask(h, "GET", "/v1/units/a.service", ""); decode[Unit](t, w.Body).Waiting == "" {
		t.Error("asked for the unit, why it waits is not told")
	}
}

// listSpy counts how often everything is read.
type listSpy struct {
	store.KV
	whole atomic.Int32
}

func (l *listSpy) List(ctx context.Context, prefix string, r store.Read) ([]store.Item, int64, error) {
	if prefix == store.Prefix {
		l.whole.Add(1)
	}
	return l.KV.List(ctx, prefix, r)
}
