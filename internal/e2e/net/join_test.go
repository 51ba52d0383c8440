package netbed

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFiveMachinesFromNothing is what a person does: flota up on one machine, flota token create there, and the command line that it prints,
// as it stands, on four others. Five machines, three of them voters in three zones, in under a minute.
func TestFiveMachinesFromNothing(t *testing.T) {
	b := newBed(t, 5)
	needFlota(t)
	zones := map[int]string{1: "a", 2: "a", 3: "a", 4: "b", 5: "c"}
	began := time.Now()
	b.launch(t, 1, "flota", "up", "--label", "zone="+zones[1])
	b.ready(t, 1, 1)
	var command string
	for line := range strings.Lines(b.must(t, 1, "token", "create", "--uses", "4")) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "flota up ") {
			command = line
		}
	}
	if command == "" {
		t.Fatal("flota token create prints no command line")
	}
	for i := 2; i <= 5; i++ {
		b.launch(t, i, "/bin/sh", "-c", "export FLOTA_LABEL=zone="+zones[i]+"; exec "+command)
	}
	b.ready(t, 1, 1, 2, 3, 4, 5)
	voters := b.voting(t, 1, 3)
	took := time.Since(began)
	t.Logf("five machines with the voters %v in %s", voters, took.Round(10*time.Millisecond))
	if took > promised(time.Minute) {
		t.Errorf("it took %s, more than a minute", took)
	}
	for _, z := range []string{"m4", "m5"} { // the only machines of their zones
		if !slices.Contains(voters, z) {
			t.Errorf("voters %v are not in all zones %v", voters, zones)
		}
	}
	sole, plain := b.launchUnits(t, 5, 1, 5)
	on := map[int]bool{}
	for _, is := range b.running() {
		on[is[0]] = true
	}
	if len(on) < 4 {
		t.Errorf("%d units are on %d of 5 machines", len(sole)+len(plain), len(on))
	}
	t.Run("refused", func(t *testing.T) { b.refused(t, command) })
}

// refused tries to join with what does not let in: each attempt ends soon, by itself, with words that say what is wrong.
func (b *bed) refused(t *testing.T, usedUp string) {
	b.Kill(t, 5)
	b.wipe(t, 5)
	if err := b.attach(b.at(5)); err != nil {
		t.Fatal(err)
	}
	short, over := b.invite(t, 1, "--ttl", "1s"), time.Now().Add(2*time.Second)
	revoked := b.invite(t, 1)
	good := b.invite(t, 1)
	id := strings.Split(revoked.token, "_")[1]
	if list := b.must(t, 1, "token", "list"); !strings.Contains(list, id) || strings.Contains(list, strings.Split(revoked.token, "_")[2]) {
		t.Errorf("want %s without its secret: %s", id, list)
	}
	b.must(t, 1, "token", "revoke", id)
	swap := func(command, old, with string) string { return strings.ReplaceAll(command, old, with) }
	zeros := "sha256:" + strings.Repeat("0", 64)
	if !until(patience, func() bool { return time.Now().After(over) }) {
		t.Fatal("the token never expires")
	}
	for _, c := range []struct {
		name, command string
		words         []string // one of them, in lower case
	}{
		{"used up", usedUp + " --name m6", []string{"used"}},
		{"expired", short.Command + " --name m6", []string{"expired"}},
		{"revoked", revoked.Command + " --name m6", []string{"revoked", "unknown", "no such", "not known"}},
		{"no token at all", swap(good.Command, good.token, "flj_nonsense") + " --name m6", []string{"token"}},
		{"wrong authority", swap(good.Command, good.CAHash, zeros) + " --name m6", []string{"ca", "authority", "hash"}},
		{"own name taken", good.Command, []string{"m5"}},
		{"name taken", good.Command + " --name m2", []string{"name", "m2"}},
	} {
		r := b.exec(5, time.Minute, "/bin/sh", "-c", "exec "+c.command)
		said := strings.ToLower(r.err)
		if r.code <= 0 || !slices.ContainsFunc(c.words, func(w string) bool { return strings.Contains(said, w) }) {
			t.Errorf("%s: want an error with one of %q: %v", c.name, c.words, r)
		}
	}
	nobody := b.exec(5, 15*time.Second, "/bin/sh", "-c", "exec "+swap(good.Command, b.net+".", "10.1.2.")+" --name m6") // it tries on for some minutes
	if !strings.Contains(nobody.err, "10.1.2.1") || !strings.Contains(nobody.err, "no machine answers") {
		t.Errorf("nobody is there: %v", nobody)
	}
	if s, err := b.status(1); err != nil || len(s.Machines) > 5 {
		t.Errorf("the cluster has %+v (%v)", s.Machines, err)
	}
}
