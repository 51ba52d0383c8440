package ext

import (
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flota/internal/dev"
)

// awayFor is how long the store is away: three leases.
const awayFor = 15 * time.Second

// agent gives the process of a machine's agent.
func (b *bed) agent(t *testing.T, name string) int {
	t.Helper()
	var all []dev.MachineStatus
	if err := b.decode(&all, "dev", "status"); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Name == name && m.Agent != 0 {
			return m.Agent
		}
	}
	t.Fatalf("%s does not run", name)
	return 0
}

// TestStoreIsAway: the etcd loses its leader, and nothing happens; then it is away as a whole, and an agent is killed meanwhile: no unit notices, changes are
// refused clearly, and all is well when it is back.
func TestStoreIsAway(t *testing.T) {
	b := newBed(t)
	units := b.start(t, 1, 3)
	before := b.mains(t, units)

	dead := b.store.leads(t)
	b.store.kill(dead)
	units = append(units, b.start(t, 4, 4)...)
	now := b.mains(t, units)
	same(t, before, now)
	if until(6*time.Second, func() bool { return untouched(now) != nil }) { // longer than a lease
		t.Fatal(untouched(now))
	}
	same(t, now, b.mains(t, units))
	for name, m := range must(b.machines())(t) {
		if m.Status != "ready" {
			t.Errorf("%s is %s", name, m.Status)
		}
	}
	b.store.start(t, dead)
	before = now

	b.store.kill(0, 1, 2)
	gone := time.Now()
	b.fails(t, []string{"the store does not answer"}, b.at("m1"), "start", "sleeper@5.service")
	b.fails(t, []string{"nothing to recover here", "an etcd of your own"}, b.at("m1"), "recover", "--yes")
	b.fails(t, []string{"an etcd of your own", "etcdctl snapshot save"}, b.at("m3"), "backup", "--plain", filepath.Join(b.root, "backup"))
	if s := b.run(nil, b.at("m1"), "status"); !strings.Contains(s.out+s.err, "NO QUORUM") {
		t.Error(s)
	}
	if err := syscall.Kill(b.agent(t, "m2"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if until(time.Until(gone.Add(awayFor)), func() bool { return untouched(before) != nil }) {
		t.Fatal(untouched(before))
	}
	b.store.start(t, 0, 1, 2)
	b.flota(t, "dev", "start", "m2")
	same(t, before, b.mains(t, units))
	units = append(units, b.start(t, 5, 5)...)
	if until(6*time.Second, func() bool { return untouched(before) != nil }) {
		t.Fatal(untouched(before))
	}
	same(t, before, b.mains(t, units))
	for i := range 3 {
		b.waitMachine(t, "m"+strconv.Itoa(i+1), "ready", ready)
	}
}

// must gives v, or ends the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
