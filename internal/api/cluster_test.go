package api

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store/mem"
	"flota/internal/unit"
)

func TestMachines(t *testing.T) {
	r := newRig(t, 4)
	c := r.client(1)
	ctx := t.Context()
	yes := "yes"
	m, err := c.Label(ctx, "m4", map[string]*string{"ssd": &yes, "n": nil})
	if err != nil || m.All["ssd"] != "yes" || len(m.All) != 1 {
		t.Errorf("label: %v, %v", m.All, err)
	}
	if _, err := c.Label(ctx, "m4", map[string]*string{"a b": &yes}); !fault.Is(err, fault.Invalid) {
		t.Errorf("bad label: %v", err)
	}
	if m, err = c.Drain(ctx, "m4"); err != nil || m.Status != statusDrained {
		t.Errorf("drain: %s, %v", m.Status, err)
	}
	if m, err = c.Resume(ctx, string(idOf(4))); err != nil || m.Status != statusReady {
		t.Errorf("resume by id: %s, %v", m.Status, err)
	}
	if m, err = c.Machine(ctx, "4"); err != nil || m.Name != "m4" {
		t.Errorf("by the beginning of its id: %s, %v", m.Name, err)
	}
	all, err := c.Machines(ctx)
	if err != nil || len(all) != 4 || all[0].Name != "m1" || !all[0].Leader || all[0].Presence == nil {
		t.Errorf("all: %+v, %v", all, err)
	}
	for _, ref := range []string{"m9", "f"} {
		if _, err := c.Machine(ctx, ref); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if m, err := c.Machine(ctx, "m1"); err != nil || !m.Voter {
		t.Errorf("a voter: %+v, %v", m, err)
	}
	if m, err := c.Machine(ctx, "m4"); err != nil || m.Voter {
		t.Errorf("no voter: %+v, %v", m, err)
	}
	other := machine.ID("4" + strings.Repeat("1", 31))
	r.record(ctx, other, "other", false)
	if _, err := c.Machine(ctx, "4"); !fault.Is(err, fault.Invalid) {
		t.Errorf("two machines: %v", err)
	}
}

func TestNoQuorum(t *testing.T) {
	r := newRig(t, 3)
	c := r.client(1)
	ctx := t.Context()
	launch(t, c, "a.service", hello)
	for name, o := range map[string]mem.Outage{"refused": mem.NoQuorum, "hanging": mem.Hanging} {
		t.Run(name, func(t *testing.T) {
			r.boxes[0].kv.Cut(o)
			defer r.boxes[0].kv.Cut(mem.None)
			start := time.Now()
			_, _, err := c.PutUnit(ctx, "b.service", PutUnit{Text: hello})
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("a change is refused after %s", took)
			}
			if !fault.Is(err, fault.Unavailable) || fault.Hint(err) == "" {
				t.Fatalf("put: %v", err)
			}
			t.Log(err)
			if o != mem.NoQuorum {
				return
			}
			l, err := c.Units(ctx)
			if err != nil || !l.Stale || len(l.Items) != 1 {
				t.Errorf("list: %+v, %v", l, err)
			}
			w := r.do("GET", "/v1/units/a.service", "")
			if w.Code != 200 || w.Header().Get(StaleHeader) != "true" {
				t.Errorf("get: %d, stale %q", w.Code, w.Header().Get(StaleHeader))
			}
			if w := r.do("GET", "/fleet/v1/units", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "a.service") {
				t.Errorf("fleet list: %d %s", w.Code, w.Body)
			}
			w = r.do("PUT", "/fleet/v1/units/a.service", `{"desiredState":"loaded"}`)
			if w.Code != 503 || !strings.Contains(w.Body.String(), "unable to communicate with etcd") {
				t.Errorf("fleet change: %d %s", w.Code, w.Body)
			}
		})
	}
	if _, _, err := c.PutUnit(ctx, "b.service", PutUnit{Text: hello}); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

func TestNoQuorumMessage(t *testing.T) {
	r := newRig(t, 3)
	r.boxes[1].kill()
	r.boxes[2].kill()
	r.boxes[0].kv.Cut(mem.NoQuorum)
	var err error
	until(t, "both are down", func() bool {
		_, err = r.client(1).SetTarget(t.Context(), "a.service", SetTarget{Target: unit.Loaded})
		return strings.Contains(err.Error(), "1 of 3")
	})
	want := "no quorum: 1 of 3 voters answers; nothing was changed; running units are not affected"
	if err.Error() != want || !fault.Is(err, fault.Unavailable) {
		t.Errorf("%q, want %q", err, want)
	}
	st, err := r.client(1).Status(t.Context())
	if err != nil || !st.Stale || len(st.Attention) == 0 || !strings.Contains(st.Attention[0], "no quorum") {
		t.Errorf("status: %+v, %v", st, err)
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t, 3)
	r.hands()
	c := r.client(2)
	launch(t, c, "a.service", hello)
	active(t, c, "a.service", 1)
	launch(t, c, "b.service", hello+"[X-Fleet]\nMachineMetadata=n=9\n")
	if _, _, err := c.PutUnit(t.Context(), "t@.service", PutUnit{Text: hello}); err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(t.Context())
	if err != nil || st.Leader != "m1" || st.Answered != "m2" || len(st.Machines) != 3 || !st.Store.Quorum || st.Stale {
		t.Errorf("%+v, %v", st, err)
	}
	if st.Units["active"] != 1 || st.Units["waiting"] != 1 || st.Units["template"] != 1 {
		t.Errorf("units: %v", st.Units)
	}
	if len(st.Attention) != 1 || !strings.HasPrefix(st.Attention[0], "b.service waits: ") {
		t.Errorf("attention: %q", st.Attention)
	}
}

func TestPlan(t *testing.T) {
	r := newRig(t, 3)
	r.hands()
	c := r.client(2)
	launch(t, c, "a.service", hello)
	u := active(t, c, "a.service", 1)
	p, err := c.Plan(t.Context(), PlanRequest{Kill: []string{u.Places[0].Name}})
	if err != nil || len(p.Moves) != 1 || p.Moves[0].Unit != "a.service" || p.Names[p.Moves[0].From] != u.Places[0].Name {
		t.Errorf("kill: %+v, %v", p, err)
	}
	p, err = c.Plan(t.Context(), PlanRequest{Add: []AddUnit{{Name: "b.service", Text: hello}}})
	if err != nil || len(p.Moves) != 1 || p.Moves[0].Kind != scheduler.KindPlace {
		t.Errorf("add: %+v, %v", p, err)
	}
	for _, bad := range []PlanRequest{{Kill: []string{"m9"}}, {Add: []AddUnit{{Name: "b@.service", Text: hello}}}, {Add: []AddUnit{{Name: "x", Text: hello}}}} {
		if _, err := c.Plan(t.Context(), bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if p, err = c.Rebalance(t.Context(), false); err != nil || len(p.Moves) != 0 {
		t.Errorf("rebalance: %+v, %v", p, err)
	}
	if _, err := c.Rebalance(t.Context(), true); !fault.Is(err, fault.Conflict) {
		t.Errorf("a leader that cannot: %v", err)
	}
	called := false
	r.boxes[0].srv.Options.Rebalance = func(context.Context) (scheduler.Plan, error) {
		called = true
		return scheduler.Plan{}, nil
	}
	if _, err := c.Rebalance(t.Context(), true); err != nil || !called {
		t.Errorf("apply: called %v, %v", called, err)
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t, 3)
	r.hands()
	launch(t, r.client(1), "a.service", hello)
	active(t, r.client(1), "a.service", 1)
	r.do("GET", "/v1/units/zzz.service", "")
	w := r.do("GET", "/metrics", "")
	for _, want := range []string{
		`flota_machines{status="ready"} 3`, `flota_units{state="active"} 1`, "flota_leader 1", "flota_store_quorum 1",
		`flota_http_requests_total{code="404",method="GET",route="/v1/units/{name}"} 1`, "process_resident_memory_bytes", "go_goroutines",
		`flota_places{machine="m`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in %s", want, w.Body)
		}
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	r := newRig(t, 1)
	s := r.boxes[0].srv
	h := s.safe(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	w := ask(h, "GET", "/v1/units", "")
	p := decode[Problem](t, w.Body)
	if w.Code != 500 || strings.Contains(p.Detail, "boom") || !strings.Contains(p.Detail, "m1") {
		t.Errorf("%d %+v", w.Code, p)
	}
	if !strings.Contains(r.boxes[0].log.String(), "boom") {
		t.Errorf("the log says %q", r.boxes[0].log)
	}
}

// Every kind survives the wire, and statuses without a problem mean something.
func TestKindsCrossTheWire(t *testing.T) {
	for _, k := range []fault.Kind{fault.Internal, fault.Invalid, fault.NotFound, fault.Exists, fault.Conflict, fault.Denied,
		fault.Unavailable, fault.TimedOut, fault.Failed} {
		p := ProblemOf(fault.WithHint(fault.New(k, "it is so"), "do this"), "m1")
		if p.Status < 400 {
			t.Errorf("%q: status %d", k, p.Status)
		}
		err := p.Err()
		if fault.KindOf(err) != k || fault.Hint(err) == "" {
			t.Errorf("%q arrives as %q, hint %q", k, fault.KindOf(err), fault.Hint(err))
		}
		if k != fault.Internal && err.Error() != "it is so" {
			t.Errorf("%q: %q", k, err)
		}
		if got := KindOfStatus(p.Status); got != k && k != fault.Exists {
			t.Errorf("status %d is %q, want %q", p.Status, got, k)
		}
	}
	if err := parseProblem(502, []byte("<html>bad gateway")); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "502") {
		t.Error(err)
	}
}
