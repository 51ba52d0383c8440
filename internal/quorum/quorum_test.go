package quorum

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// want fails unless the settled store is as given.
func (w *world) want(t *testing.T, want string) Plan {
	t.Helper()
	p := w.settle()
	if got := w.names(); got != want {
		t.Errorf("%s, want %s; last steps: %v; waiting: %q", got, want, w.done[max(0, len(w.done)-8):], p.Waiting)
	}
	return p
}

// kinds gives the steps made since n were done.
func (w *world) kinds(n int) string {
	var out []string
	for _, s := range w.done[n:] {
		out = append(out, string(s.Kind)+" "+s.Name)
	}
	return strings.Join(out, ", ")
}

func TestGrowAndShrink(t *testing.T) {
	w := testWorld(t)
	w.want(t, "[m1]")
	for _, want := range []string{"[m1]+[m2]", "[m1 m2 m3]", "[m1 m2 m3]", "[m1 m2 m3]", "[m1 m2 m3]", "[m1 m2 m3 m4 m5]", "[m1 m2 m3 m4 m5]"} {
		w.join("a")
		w.want(t, want)
	}
	for _, c := range []struct{ gone, want string }{
		{"m1", "[m2 m3 m4 m5 m6]"}, // seven are left
		{"m8", "[m2 m3 m4]"},
		{"m3", "[m2 m4 m5]"},
		{"m2", "[m4 m5 m6]"},
		{"m4", "[m5 m6 m7]"},
		{"m6", "[m5]+[m7]"},
		{"m5", "[m7]"},
	} {
		gone := w.machine(c.gone)
		gone.Removing = true
		w.settle()
		if memberOf(w, gone) != nil {
			t.Fatalf("%s is still a member", c.gone)
		}
		w.machines = slices.DeleteFunc(w.machines, func(m *Machine) bool { return m == gone })
		w.want(t, c.want)
	}
}

func TestThirdMachine(t *testing.T) {
	w := testWorld(t)
	w.join("a")
	w.want(t, "[m1]+[m2]")
	n := len(w.done)
	w.join("a")
	w.want(t, "[m1 m2 m3]")
	if got := w.kinds(n); got != "add m3, promote m3, promote m2" {
		t.Error(got)
	}
}

// five gives five settled machines m1 m2 m4 m3 m6, of which m1 m2 m4 vote.
func five(t *testing.T, zones string) *world {
	w := testWorld(t)
	w.machines[0].Zone = zones[:1]
	for i := range 4 {
		w.join(zones[i+1 : i+2])
	}
	w.settle()
	return w
}

func TestDeadVoterIsReplaced(t *testing.T) {
	w := five(t, "aaaaa")
	w.want(t, "[m1 m2 m3]")
	n := len(w.done)
	w.kill(w.machine("m2"))
	w.pass(DefaultReplace - time.Second)
	if p := Make(w.input(), w.now); len(p.Steps) > 0 || !p.Next.Equal(w.now.Add(time.Second)) {
		t.Fatalf("before its time: %+v", p)
	}
	w.want(t, "[m1 m3 m4]")
	if got := w.kinds(n); got != "add m4, remove m2, promote m4" {
		t.Error(got)
	}
	if took := w.now.Sub(w.machine("m2").Lost); took > DefaultReplace+10*time.Second {
		t.Errorf("took %v", took)
	}
	if r := w.done[n].Reason; r != "it takes the place of m2 (the machine is gone: no sign of life since 12:00:02)" && !strings.HasPrefix(r, "it takes the place of m2 (the machine is gone: no sign") {
		t.Error(r)
	}
	w.revive(w.machine("m2")) // it becomes a client
	w.want(t, "[m1 m3 m4]")
}

func TestNobodyTakesItsPlace(t *testing.T) {
	w := testWorld(t)
	w.join("a")
	w.join("a")
	w.want(t, "[m1 m2 m3]")
	w.kill(w.machine("m3"))
	p := w.want(t, "[m1 m2 m3]")
	if len(p.Waiting) != 1 || !strings.Contains(p.Waiting[0], "m3: the machine is gone: no sign of life since") || !strings.Contains(p.Waiting[0], "no machine can take its place") {
		t.Errorf("%q", p.Waiting)
	}
	w.kill(w.machine("m2"))
	p = w.want(t, "[m1 m2 m3]")
	if len(p.Waiting) != 1 || !strings.Contains(p.Waiting[0], "1 of 3 voters are there, which is no majority") {
		t.Errorf("%q", p.Waiting)
	}
	w.revive(w.machine("m2"))
	w.join("a") // a live machine after all
	w.want(t, "[m1 m2 m4]")
}

func TestHalfVanish(t *testing.T) {
	w := testWorld(t)
	for range 7 {
		w.join("a")
	}
	w.want(t, "[m1 m2 m3 m4 m5]")
	for _, name := range []string{"m1", "m2", "m6", "m7"} {
		w.kill(w.machine(name))
	}
	w.want(t, "[m1 m3 m4 m5 m8]") // m1 or m2 is replaced by the one that is left, the other stays a member
}

func TestWitness(t *testing.T) {
	w := testWorld(t)
	x := w.join("a")
	x.Witness = true
	w.want(t, "[m1]+[m2]")
	w.join("a")
	w.want(t, "[m1 m2 m3]")
	w.kill(w.machine("m1"))
	w.want(t, "[m1 m2 m3]")
	w.revive(w.machine("m1"))
	w.join("a")
	w.want(t, "[m1 m3 m4]") // the witness is no longer needed
}

func TestZones(t *testing.T) {
	w := five(t, "aaabc")
	w.want(t, "[m1 m4 m5]")
	w.kill(w.machine("m5"))
	w.pass(2 * time.Minute)
	w.settle()
	if got := w.names(); got != "[m1 m2 m4]" {
		t.Fatal(got)
	}
	w.revive(w.machine("m5"))
	if p := Make(w.input(), w.now); len(p.Steps) > 0 {
		t.Errorf("a machine that is back only just takes a vote: %v", p.Steps)
	}
	w.want(t, "[m1 m4 m5]") // some time later
}

func TestLeaving(t *testing.T) {
	w := five(t, "aaaaa")
	n := len(w.done)
	w.machine("m1").Leaving = true
	w.want(t, "[m2 m3 m4]")
	if got := w.kinds(n); got != "add m4, promote m4, release m1, remove m1" {
		t.Error(got)
	}
	w.machine("m2").Drained = true
	w.want(t, "[m3 m4 m5]")
	w.machine("m2").Drained = false
	w.want(t, "[m3 m4 m5]") // nothing moves back
}

func TestVoterOfTwoIsRemoved(t *testing.T) {
	w := testWorld(t)
	w.join("a")
	w.want(t, "[m1]+[m2]")
	n := len(w.done)
	w.machine("m1").Removing = true
	w.want(t, "[m2]")
	if got := w.kinds(n); got != "promote m2, release m1, remove m1" {
		t.Error(got)
	}
	w.machine("m2").Removing = true
	if p := w.want(t, "[m2]"); len(p.Waiting) == 0 || !strings.Contains(p.Waiting[0], "the only voter") {
		t.Errorf("%q", p.Waiting)
	}
}

// TestLostCopy has a machine that is there without the member that it should run.
func TestLostCopy(t *testing.T) {
	w := five(t, "aaaaa")
	w.machine("m2").Member = "none"
	w.pass(time.Minute)
	p := Make(w.input(), w.now)
	if len(p.Steps) != 1 || p.Steps[0].Kind != Add {
		t.Fatalf("%v", p.Steps)
	}
	if !strings.Contains(p.Steps[0].Reason, "m2 (its copy of the store is gone)") {
		t.Error(p.Steps[0].Reason)
	}
}

// TestStalledLearner has one machine that never gets ready: another is taken.
func TestStalledLearner(t *testing.T) {
	w := testWorld(t)
	w.join("a")
	w.want(t, "[m1]+[m2]")
	bad := w.join("a")
	w.pass(time.Second)
	p := Make(w.input(), w.now)
	w.do(p.Steps[0], false, 1000*time.Hour)
	if p := Make(w.input(), w.now); len(p.Steps) > 0 || !strings.Contains(strings.Join(p.Waiting, " "), bad.Name+": is to vote when its copy of the store has started") {
		t.Errorf("%v %q", p.Steps, p.Waiting)
	}
	w.join("a")
	w.pass(DefaultStall)
	for range 20 {
		for _, s := range Make(w.input(), w.now).Steps {
			if !w.do(s, false, time.Second) {
				break
			}
		}
		w.pass(time.Second)
	}
	if got := w.names(); got != "[m1 m2 m4]" {
		t.Error(got)
	}
}

func TestVotersSetting(t *testing.T) {
	w := five(t, "aaaaa")
	w.settings.Voters = 5
	w.want(t, "[m1 m2 m3 m4 m5]")
	w.settings.Voters = 1
	w.want(t, "[m1]+[m2]")
}

func TestOdd(t *testing.T) {
	for n, want := range []int{1, 1, 1, 3, 3, 5, 5, 7} {
		if got := odd(n); got != want {
			t.Errorf("odd(%d) = %d, want %d", n, got, want)
		}
	}
}
