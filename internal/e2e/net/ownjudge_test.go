package netbed

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/api"
	"flota/internal/machine"
	"flota/internal/unit"
)

// ms is a time on the books' clock.
func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// TestJudges gives fabricated histories to the judges: each must find what is wrong and nothing else.
func TestJudges(t *testing.T) {
	a := life{unit: "x", machine: "m1", start: ms(100), last: ms(500), stopped: true}
	tick := ms(10)
	with := func(l life, f func(*life)) life { f(&l); return l }
	for _, c := range []struct {
		name  string
		judge func() error
		want  string // "": nothing is wrong
	}{
		{"one after the other", func() error {
			return judgeExclusive([]life{a, {unit: "x", machine: "m2", start: ms(501), last: ms(900)}})
		}, ""},
		{"overlap", func() error {
			return judgeExclusive([]life{a, {unit: "x", machine: "m2", start: ms(500), last: ms(900)}})
		}, "lived at the same time"},
		{"overlap on one machine", func() error {
			return judgeExclusive([]life{a, {unit: "x", machine: "m1", start: ms(200), last: ms(300)}})
		}, "lived at the same time"},
		{"a short life within a long one", func() error {
			return judgeExclusive([]life{with(a, func(l *life) { l.last = ms(5000) }), {unit: "x", start: ms(600), last: ms(700)}, {unit: "x", start: ms(800), last: ms(900)}})
		}, "and x on  (pid 0, 0.800"},
		{"other units", func() error {
			return judgeExclusive([]life{a, {unit: "y", machine: "m2", start: ms(200), last: ms(900)}})
		}, ""},
		{"clash", func() error {
			return judgeExclusive([]life{a, {unit: "x", start: ms(600), last: ms(900), clashes: []time.Duration{ms(600)}}})
		}, "met another"},
		{"paused and woken", func() error {
			return judgeExclusive(pardonWaking([]life{a, {unit: "x", machine: "m2", start: ms(300), last: ms(900), clashes: []time.Duration{ms(300), ms(490)}}},
				"m1", span{ms(200), ms(450)}, ms(50)))
		}, ""},
		{"woken for too long", func() error {
			return judgeExclusive(pardonWaking([]life{a, {unit: "x", machine: "m2", start: ms(300), last: ms(900)}}, "m1", span{ms(200), ms(449)}, ms(50)))
		}, "lived at the same time"},
		{"clash before the pause", func() error {
			return judgeExclusive(pardonWaking([]life{with(a, func(l *life) { l.clashes = []time.Duration{ms(150)} })}, "m1", span{ms(200), ms(450)}, ms(50)))
		}, "met another"},
		{"another machine was paused", func() error {
			return judgeExclusive(pardonWaking([]life{a, {unit: "x", machine: "m2", start: ms(300), last: ms(900)}}, "m3", span{ms(200), ms(450)}, ms(50)))
		}, "lived at the same time"},
		{"undisturbed", func() error { return judgeUndisturbed([]life{a}, span{ms(200), ms(500)}, tick) }, ""},
		{"alive at the end", func() error {
			return judgeUndisturbed([]life{with(a, func(l *life) { l.stopped = false })}, span{ms(200), ms(520)}, tick)
		}, ""},
		{"stopped in between", func() error { return judgeUndisturbed([]life{a}, span{ms(200), ms(510)}, tick) }, "disturbed"},
		{"killed in between", func() error {
			return judgeUndisturbed([]life{with(a, func(l *life) { l.stopped = false })}, span{ms(200), ms(600)}, tick)
		}, "disturbed"},
		{"ended before", func() error { return judgeUndisturbed([]life{a}, span{ms(600), ms(900)}, tick) }, ""},
		{"begun in between", func() error { return judgeUndisturbed([]life{a}, span{ms(50), ms(900)}, tick) }, ""},
		{"lives", func() error {
			return judgeRestarts([]life{with(a, func(l *life) { l.stopped = false })}, nil, ms(510), tick)
		}, ""},
		{"ended with its machine", func() error { return judgeRestarts([]life{a}, map[string]time.Duration{"m1": ms(490)}, ms(9000), tick) }, ""},
		{"ended without", func() error { return judgeRestarts([]life{a}, map[string]time.Duration{"m2": ms(490)}, ms(9000), tick) }, "restarted"},
		{"ended before its machine left", func() error {
			return judgeRestarts([]life{a}, map[string]time.Duration{"m1": ms(800)}, ms(9000), tick)
		}, "restarted"},
		{"placed", func() error {
			return judgePlaces(map[string][]string{"x": {"m1"}}, map[string][]string{"x": {"m1"}})
		}, ""},
		{"elsewhere", func() error {
			return judgePlaces(map[string][]string{"x": {"m1"}}, map[string][]string{"x": {"m2"}})
		}, "is placed on [m1] and runs on [m2]"},
		{"twice", func() error {
			return judgePlaces(map[string][]string{"x": {"m1"}}, map[string][]string{"x": {"m1", "m1"}})
		}, "runs on [m1 m1]"},
		{"left over", func() error { return judgePlaces(nil, map[string][]string{"x": {"m1"}}) }, "has no place"},
		{"missing", func() error { return judgePlaces(map[string][]string{"x": {"m1"}}, nil) }, "runs on []"},
	} {
		err := c.judge()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestBooks reads good and bad books.
func TestBooks(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"x,m1,7,5", "start 5\ntick 6\nclash 7\nstop 8\n", ""},
		{"x,m1,7,5", "start 5\ntick 6\nti", ""},
		{"x,m1,7,5", "", ""},
		{"x,m1,7,5", "start 6\n", "starts with"},
		{"x,m1,7,5", "tick 5\n", "cannot come here"},
		{"x,m1,7,5", "start 5\nstart 6\n", "cannot come here"},
		{"x,m1,7,5", "start 5\nstop 6\ntick 7\n", "cannot come here"},
		{"x,m1,7,5", "start 5\ntick 4\n", "cannot come here"},
		{"x,m1,7,5", "start 5\ntock 6\n", "unknown word"},
		{"x,m1,7", "start 5\n", "want UNIT"},
	} {
		l, err := parseBook(c.name, c.text)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
		if strings.Contains(c.text, "stop 8") && (!l.stopped || len(l.clashes) != 1 || l.last != 8 || l.lines != 4) {
			t.Errorf("%q gives %+v", c.text, l)
		}
	}
}

// TestExclusiveForReal starts a unit twice with overlap and twice without, with real processes: the judge must tell the two apart.
func TestExclusiveForReal(t *testing.T) {
	b := newBed(t, 2)
	ledger, err := ledgerProgram()
	if err != nil {
		t.Fatal(err)
	}
	verdict := func() error {
		lives, err := readBooks(b.books())
		if err != nil {
			t.Fatal(err)
		}
		return judgeExclusive(lives)
	}
	start := func(i int) {
		b.launch(t, i, "/usr/bin/env", "FLOTA_MACHINE="+b.at(i).name, ledger, b.books(), "x", "20ms")
		within(t, patience, "start", func() error {
			return judgePlaces(map[string][]string{"x": {b.at(i).name}}, b.runningNames(i))
		})
	}
	start(1)
	b.Kill(t, 1)
	start(2)
	if !until(time.Second, func() bool { return b.ticks(t, 2) > 3 }) {
		t.Error("no ticks")
	}
	if err := verdict(); err != nil {
		t.Error("killed before the other started:", err)
	}
	start(1)
	if !until(5*time.Second, func() bool {
		said := fmt.Sprint(verdict())
		return strings.Contains(said, "met another") && strings.Contains(said, "same time")
	}) {
		t.Error("two at once, and the judge says:", verdict())
	}
}

// TestKeysJudge loses keys and changes them.
func TestKeysJudge(t *testing.T) {
	key := func(k, v string) *mvccpb.KeyValue { return &mvccpb.KeyValue{Key: []byte(k), Value: []byte(v)} }
	for _, c := range []struct {
		name  string
		acked []string
		have  []*mvccpb.KeyValue
		want  string
	}{
		{"all there", []string{"a"}, []*mvccpb.KeyValue{key("a", "of a"), key("b", "of b")}, ""},
		{"lost", []string{"a", "b"}, []*mvccpb.KeyValue{key("a", "of a")}, "lost: b"},
		{"changed", []string{"a"}, []*mvccpb.KeyValue{key("a", "of b")}, "lost: a"},
		{"nothing done", nil, nil, "nothing was ever acknowledged"},
	} {
		err := judgeKeys(c.acked, &clientv3.GetResponse{Kvs: c.have})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestPlacesJudge gives states of units to the judge of places.
func TestPlacesJudge(t *testing.T) {
	stay := func(m string) api.Place { return api.Place{Machine: machine.ID(m)} }
	leaving := func(m string) api.Place { return api.Place{Machine: machine.ID(m), Leaving: true} }
	for _, c := range []struct {
		name              string
		places            []api.Place
		exclusive, global bool
		good              bool
	}{
		{"none", nil, true, false, true},
		{"one", []api.Place{stay("1")}, true, false, true},
		{"one, and one it leaves", []api.Place{leaving("1"), stay("2")}, false, false, true},
		{"exclusive, one, and one it leaves", []api.Place{leaving("1"), stay("2")}, true, false, false},
		{"two", []api.Place{stay("1"), stay("2")}, false, false, false},
		{"global", []api.Place{stay("1"), stay("2")}, false, true, true},
	} {
		u := api.Unit{Unit: unit.Unit{Name: "x.service"}, Places: c.places, Global: c.global}
		if err := judgePlacesOf("m1", u, c.exclusive); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
