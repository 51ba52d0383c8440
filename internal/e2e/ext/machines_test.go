package ext

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flota/internal/api"
)

// machines gives the machines that the cluster remembers, by name.
func (b *bed) machines() (map[string]api.Machine, error) {
	var all []api.Machine
	if err := b.decode(&all, "machine", "list"); err != nil {
		return nil, err
	}
	out := map[string]api.Machine{}
	for _, m := range all {
		out[m.Name] = m
	}
	return out, nil
}

// waitMachine waits until a machine is as ok wants it.
func (b *bed) waitMachine(t *testing.T, name, what string, ok func(m api.Machine, there bool) bool) {
	t.Helper()
	wait(t, name+" is "+what, func() error {
		all, err := b.machines()
		if m, there := all[name]; err == nil && !ok(m, there) {
			err = fmt.Errorf("it is %+v, %v", m, there)
		}
		return err
	})
}

func ready(m api.Machine, _ bool) bool { return m.Status == "ready" }

// TestMachines: machines die, the leader among them, their units run elsewhere; a machine joins after the first one died, is drained and leaves; a dead
// one is removed; the cluster's authority is changed.
func TestMachines(t *testing.T) {
	b := newBed(t)
	units := b.start(t, 1, 3)
	before := b.mains(t, units)
	b.checkRecords(t)

	died := "m3"
	if b.leader(t, "m1") == died {
		died = "m2"
	}
	before = b.dies(t, died, units, before)
	b.flota(t, "dev", "start", died)
	if b.leader(t, "m2") != "m1" { // it is, as the one that was there first, unless another one was faster after an election
		b.flota(t, "machine", "list")
	}
	before = b.dies(t, b.leader(t, "m2"), units, before)
	b.revive(t, "m2", "m3")
	if all, err := b.machines(); err != nil || all["m1"].Status == "ready" { // the founder must be among the dead from here on
		b.dies(t, "m1", units, before)
	}

	join := strings.Fields(b.flota(t, b.at("m2"), "token", "create", "--json=false"))
	m4 := b.join(t, "m4", join)
	b.flota(t, "machine", "drain", "m2")
	b.flota(t, "machine", "drain", "m3")
	for _, s := range b.mains(t, units, "m2", "m3") {
		if !strings.HasPrefix(s, "m4 ") {
			t.Errorf("a unit is on %s", s)
		}
	}
	b.flota(t, "machine", "resume", "m2", "m3")
	b.flota(t, "--endpoint=unix://"+filepath.Join(b.root, "m4", "flota.sock"), "leave", "--yes")
	b.mains(t, units, "m4")
	m4.ended(t)
	b.flota(t, b.at("m2"), "machine", "remove", "m1")
	b.fails(t, []string{"machine m1 ended"}, "dev", "start", "m1")
	b.fails(t, []string{"machine m1 ended", "join with what flota token create prints"}, "dev", "start", "m1") // by now it remembers
	before = b.mains(t, units, "m1", "m4")
	b.flota(t, b.at("m3"), "trust", "rotate")
	same(t, before, b.mains(t, units))
	for _, k := range b.store.keys(t) {
		if strings.HasPrefix(k, prefix+"flota/voters/") {
			t.Errorf("%s is left", k)
		}
	}
}

// checkRecords sees that the cluster lies under its prefix and nowhere else, that no machine takes itself for a voter, and that each can let others in.
func (b *bed) checkRecords(t *testing.T) {
	t.Helper()
	for _, k := range b.store.keys(t) {
		if !strings.HasPrefix(k, prefix+"flota/") {
			t.Errorf("key %q is not under the prefix", k)
		}
	}
	all, err := b.machines()
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	for name, m := range all {
		if m.Voter || len(m.Standing.Holds) != 1 {
			t.Errorf("%s is %+v", name, m)
		}
		if _, err := os.Lstat(filepath.Join(b.dir, name, "store")); err == nil {
			t.Errorf("%s has a member of its own", name)
		}
	}
	if s, err := b.status("m3"); err != nil || !s.Store.Quorum || len(s.Store.Members) != 3 || len(s.Attention) > 0 {
		t.Errorf("status is %+v, %v", s, err)
	}
	b.fails(t, []string{"an etcd of your own", "etcdctl snapshot save"}, "backup", "--plain", filepath.Join(b.root, "backup"))
}

// dies cuts a machine's power and waits until its units run elsewhere; the others must not notice.
func (b *bed) dies(t *testing.T, name string, units []string, before map[string]string) map[string]string {
	t.Helper()
	b.flota(t, "dev", "kill", name)
	began := time.Now()
	after := b.mains(t, units, name)
	t.Logf("the units of %s run elsewhere after %.1f s", name, time.Since(began).Seconds())
	same(t, before, after, name)
	return after
}

// revive starts those of the machines that are gone.
func (b *bed) revive(t *testing.T, names ...string) {
	t.Helper()
	all, err := b.machines()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if all[n].Status == "gone" {
			b.flota(t, "dev", "start", n)
		}
	}
}

// joined is a machine that is none of the dev cluster's.
type joined struct {
	cmd *exec.Cmd
	end chan error
}

// join starts a machine with the words of a command line that token create printed.
func (b *bed) join(t *testing.T, name string, words []string) *joined {
	t.Helper()
	args := []string{"up", "--data-dir", filepath.Join(b.root, name), "--name", name, "--addr", b.base + "." + name[1:]}
	for i, w := range words {
		if w == "--join" || w == "--token" || w == "--ca-hash" {
			args = append(args, w, words[i+1])
		}
		if w == "--join" && !strings.Contains(words[i+1], b.base+".2:") {
			t.Errorf("the command line names no machine but %s", words[i+1])
		}
	}
	cmd := exec.Command(flota, args...)
	cmd.Env = append(b.environ(), b.store.environ()...)
	log, err := os.Create(filepath.Join(b.root, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	log.Close()
	if err != nil {
		t.Fatal(err)
	}
	j := &joined{cmd, make(chan error, 1)}
	go func() { j.end <- cmd.Wait() }() // ends with the process
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		b.killSupervisor(name)
	})
	b.waitMachine(t, name, "ready", ready)
	return j
}

// killSupervisor kills the supervisor of a machine that join started, if the test left it running.
func (b *bed) killSupervisor(name string) {
	var pid int
	text, err := os.ReadFile(filepath.Join(b.root, name, "supervisor.pid"))
	if err != nil {
		return
	}
	if _, err := fmt.Sscan(string(text), &pid); err != nil || pid <= 1 {
		return
	}
	if cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(cmd), b.root) {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
}

// ended waits for the machine's process to end by itself.
func (j *joined) ended(t *testing.T) {
	t.Helper()
	wait(t, "the process of the machine that left ends", func() error {
		select {
		case err := <-j.end:
			j.end <- err
			return err
		default:
			return errors.New("it runs")
		}
	})
}
