package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mains gives the main process of each active unit, with the times it was restarted: what must not change.
func (b *bed) mains(t *testing.T, units ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range units {
		u := b.unit(t, name)
		if len(u.States) != 1 || u.States[0].Active != "active" {
			t.Fatalf("%s is not active on one machine: %+v", name, u.States)
		}
		out[name] = fmt.Sprintf("pid %d, %d restarts, on %s", u.States[0].MainPID, u.States[0].Restarts, u.States[0].Name)
	}
	return out
}

// runs reports whether the process that mains told of runs still; one that only waits to be reaped does not.
func runs(main string) bool {
	pid, _, _ := strings.Cut(strings.TrimPrefix(main, "pid "), ",")
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// untouched fails the test if a process of mains has ended.
func untouched(t *testing.T, mains map[string]string) {
	t.Helper()
	for name, main := range mains {
		if !runs(main) {
			t.Errorf("%s (%s) was stopped", name, main)
		}
	}
}

// threeSleepers starts one unit on each machine.
func (b *bed) threeSleepers(t *testing.T) []string {
	t.Helper()
	text := "[Unit]\nDescription=Sleeps\n[Service]\nExecStart=/bin/sleep infinity\nRestart=always\n"
	if err := os.WriteFile(filepath.Join(b.root, "sleeper@.service"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.flota(t, "submit", filepath.Join(b.root, "sleeper@.service"))
	b.flota(t, "start", "sleeper@{1..3}")
	return []string{"sleeper@1.service", "sleeper@2.service", "sleeper@3.service"}
}

// waitUnits waits until all the units are active, each on one machine.
func (b *bed) waitUnits(t *testing.T, units []string) {
	t.Helper()
	wait(t, "all units active", func() error {
		for _, name := range units {
			u := b.unit(t, name)
			if len(u.States) != 1 || u.States[0].Active != "active" || len(u.Places) != 1 {
				return fmt.Errorf("%s: %+v %+v", name, u.Places, u.States)
			}
		}
		return nil
	})
}

// TestP1MachineIsKilled cuts the power of each machine in turn: its unit runs elsewhere, the others are not touched, and why says so.
func TestP1MachineIsKilled(t *testing.T) {
	b := borrow(t)
	units := b.threeSleepers(t)
	for _, name := range []string{"m1", "m2", "m3"} {
		b.waitUnits(t, units)
		rest := map[string]string{}
		var moved []string
		for u, s := range b.mains(t, units...) {
			if strings.HasSuffix(s, " on "+name) {
				moved = append(moved, u)
			} else {
				rest[u] = s
			}
		}
		b.flota(t, "dev", "kill", name)
		for _, u := range moved {
			wait(t, u+" runs elsewhere", func() error {
				now := b.unit(t, u)
				if len(now.Places) != 1 || len(now.States) != 1 || now.Places[0].Name == name || now.States[0].Active != "active" {
					return fmt.Errorf("%+v %+v", now.Places, now.States)
				}
				return nil
			})
			if why := b.flota(t, "why", u); !strings.Contains(why, name+" is gone") {
				t.Errorf("why %s: %s", u, why)
			}
		}
		untouched(t, rest)
		b.flota(t, "dev", "start", name)
	}
}

// TestP5AgentIsKilled kills agents and supervisors, and re-executes supervisors: no process of a unit notices.
func TestP5AgentIsKilled(t *testing.T) {
	b := borrow(t)
	units := b.threeSleepers(t)
	b.waitUnits(t, units)
	before := b.mains(t, units...)
	same := func(what string) {
		t.Helper()
		untouched(t, before)
		b.waitUnits(t, units)
		for u, s := range b.mains(t, units...) {
			if s != before[u] {
				t.Errorf("%s: %s was %s, is %s", what, u, before[u], s)
			}
		}
	}
	for i := 1; i <= 3; i++ {
		if err := syscall.Kill(b.agent(t, i), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.flota(t, "dev", "start", "m"+strconv.Itoa(i))
		same("agent killed")
	}
	for _, sig := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGKILL} {
		for _, p := range b.processes() {
			if err := syscall.Kill(p.Supervisor, sig); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, "supervisors are back", func() error {
			for _, p := range b.processes() {
				if p.Supervisor == 0 {
					return errors.New(p.Name + " has none")
				}
			}
			return nil
		})
		same("supervisor got " + sig.String())
	}
	// The new supervisors own the units: a crash is noticed, and Restart= works.
	pid, _, _ := strings.Cut(strings.TrimPrefix(before[units[0]], "pid "), ",")
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, "the unit is restarted", func() error {
		if s := b.unit(t, units[0]).States; len(s) != 1 || s[0].MainPID == n || s[0].Active != "active" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// TestP2QuorumIsAway kills two of three agents for 20 s: no unit anywhere notices, changes are refused with a clear error, old answers are
// marked, and all is well afterwards. (The 60 s are measured by hand; the leases are over after 5 s.)
func TestP2QuorumIsAway(t *testing.T) {
	b := borrow(t)
	units := b.threeSleepers(t)
	b.waitUnits(t, units)
	before := b.mains(t, units...)
	for i := 1; i <= 2; i++ {
		if err := syscall.Kill(b.agent(t, i), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	b.fails(t, 6, []string{"no quorum", "nothing was changed"}, b.at(3), "start", "sleeper@4")
	if r := b.run("flota", b.at(3), "list-units"); r.code != 0 || !strings.Contains(r.err, "may be old") {
		t.Errorf("list-units without a quorum: %v", r)
	}
	if until(20*time.Second, func() bool { untouched(t, before); return t.Failed() }) {
		t.Fatal("a unit was stopped while the quorum was away")
	}
	b.flota(t, "dev", "start", "m1", "m2")
	b.flota(t, "start", "sleeper@4")
	b.waitUnits(t, units)
	for u, s := range b.mains(t, units...) {
		if s != before[u] {
			t.Errorf("%s was %s, is %s", u, before[u], s)
		}
	}
}

// TestP2QuorumIsPaused stops each pair of agents (SIGSTOP, so the store's leader among them) for three leases and lets them go on: whether
// their leases end then or not, nothing is moved and no unit notices.
func TestP2QuorumIsPaused(t *testing.T) {
	b := borrow(t)
	units := b.threeSleepers(t)
	b.waitUnits(t, units)
	before := b.mains(t, units...)
	for _, pair := range [][2]int{{1, 2}, {2, 3}, {1, 3}} {
		for _, i := range pair {
			pid := b.agent(t, i)
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // also when the test fails in between
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		if until(15*time.Second, func() bool { untouched(t, before); return t.Failed() }) {
			t.Fatal("a unit was stopped while the quorum was paused")
		}
		for _, i := range pair {
			if err := syscall.Kill(b.agent(t, i), syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		if until(10*time.Second, func() bool { untouched(t, before); return t.Failed() }) {
			t.Fatal("a unit was stopped when the quorum was back")
		}
		b.waitUnits(t, units)
		for u, s := range b.mains(t, units...) {
			if s != before[u] {
				t.Errorf("%s was %s, is %s", u, before[u], s)
			}
		}
	}
}

// TestP6PowerCutOfAll cuts the power of all machines and starts them in any order: what was launched runs again.
func TestP6PowerCutOfAll(t *testing.T) {
	b := borrow(t)
	units := b.threeSleepers(t)
	for range 2 {
		b.waitUnits(t, units)
		before := b.mains(t, units...)
		b.flota(t, "dev", "kill", "m1", "m2", "m3")
		for u, s := range before {
			if runs(s) {
				t.Errorf("%s (%s) outlived its machine", u, s)
			}
		}
		done := make(chan result)
		order := rand.Perm(3)
		for _, i := range order { // each waits for a quorum, so they must start side by side
			go func() { done <- b.run("flota", "dev", "start", "m"+strconv.Itoa(i+1)) }()
		}
		for range order {
			if r := <-done; r.code != 0 {
				t.Errorf("%v", r)
			}
		}
	}
	b.waitUnits(t, units)
}

// TestManyUnits starts 200 units at once and destroys them again.
func TestManyUnits(t *testing.T) {
	b := borrow(t)
	b.threeSleepers(t)
	b.flota(t, "start", "sleeper@{100..299}")
	active := 0
	for _, line := range strings.Split(b.flota(t, "list-units", "--no-legend"), "\n") {
		if strings.HasPrefix(line, "sleeper@") && strings.Contains(line, "active") && strings.Contains(line, "running") {
			active++
		}
	}
	if active != 203 {
		t.Errorf("%d units are active, want 203", active)
	}
	b.flota(t, "destroy", "sleeper@*.service")
}
