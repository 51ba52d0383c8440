package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// up is a `flota up` that the test has started itself, so that it sees how it ends.
type up struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
}

// endAgent tells a machine's agent to end, as for an upgrade, and gives its command line. Its units run on.
func (b *bed) endAgent(t *testing.T, i int) (args []string) {
	t.Helper()
	pid := b.agent(t, i)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait(t, fmt.Sprintf("end of m%d's agent", i), func() error {
		for _, p := range b.processes() {
			if p.Agent == pid {
				return fmt.Errorf("process %d is there", pid)
			}
		}
		return nil
	})
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// launch runs an agent's command line as a child of the test.
func (b *bed) launch(t *testing.T, i int, args []string) *up {
	t.Helper()
	log, err := os.OpenFile(b.agentLog(i), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	u := &up{cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	u.cmd.Env, u.cmd.Dir = b.environ(), "/"
	u.cmd.Stdout, u.cmd.Stderr = log, log
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = u.cmd.Wait() // its ProcessState tells
		close(u.ended)
	}()
	t.Cleanup(func() {
		_ = u.cmd.Process.Kill() // it has ended, mostly
		<-u.ended
	})
	return u
}

// takeOver ends a machine's agent, does something, and starts the agent anew as a child of the test.
func (b *bed) takeOver(t *testing.T, i int, between func()) *up {
	t.Helper()
	args := b.endAgent(t, i)
	if between != nil {
		between()
	}
	return b.launch(t, i, args)
}

// signal sends a signal to the agent.
func (u *up) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := u.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end sends SIGTERM and wants the exit code within half a minute.
func (u *up) end(t *testing.T, code int) {
	t.Helper()
	u.signal(t, syscall.SIGTERM)
	select {
	case <-u.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("flota up does not end on SIGTERM")
	}
	if got := u.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("flota up ended with %v, want exit code %d", u.cmd.ProcessState, code)
	}
}

// agentLog is the log of a machine's agent.
func (b *bed) agentLog(i int) string { return filepath.Join(b.machineDir(i), "agent.log") }

// logSays tells whether a machine's log has the words.
func (b *bed) logSays(i int, words string) error {
	text, err := os.ReadFile(b.agentLog(i))
	if err == nil && !bytes.Contains(text, []byte(words)) {
		err = fmt.Errorf("the log of m%d does not say %q", i, words)
	}
	return err
}

// waitReady waits until machine i answers that it is ready.
func (b *bed) waitReady(t *testing.T, i int) {
	t.Helper()
	name := fmt.Sprintf("m%d", i)
	wait(t, name+" ready", func() error {
		r := b.run("flota", b.at(i), "machine", "list")
		for line := range strings.Lines(r.out) {
			if f := strings.Fields(line); len(f) > 3 && f[0] == name && f[3] == "ready" {
				return nil
			}
		}
		return errors.New(r.String())
	})
}

// freeze stops the agents of machines, as a machine that hangs, and gives what wakes them.
func (b *bed) freeze(t *testing.T, machines ...int) (wake func()) {
	t.Helper()
	var pids []int
	for _, i := range machines {
		pids = append(pids, b.agent(t, i))
	}
	wake = func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it was ended meanwhile
		}
	}
	t.Cleanup(wake)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	return wake
}

// TestReconfigureServer sends SIGHUP: the agent goes on, on the same sockets.
func TestReconfigureServer(t *testing.T) {
	b := newCluster(t, 1)
	b.fleetctl(t, "start", fixture("hello.service"))
	b.waitActive(t, 1)
	b.fleetctl(t, "unload", "hello.service")
	u := b.takeOver(t, 1, nil)
	b.waitReady(t, 1)
	u.signal(t, syscall.SIGHUP)
	wait(t, "word of SIGHUP", func() error { return b.logSays(1, "SIGHUP") })
	b.fleetctl(t, "list-units")
	b.fleetctl(t, "--endpoint=http://"+b.base+".1:7700", "list-units")
	b.fleetctl(t, "start", "hello.service")
	u.end(t, 0)
}

// TestShutdown ends a machine's agent with SIGTERM: it ends well, and says nothing of an error.
func TestShutdown(t *testing.T) {
	b := newCluster(t, 1)
	u := b.takeOver(t, 1, nil)
	b.waitReady(t, 1)
	u.end(t, 0)
	if err := b.logSays(1, "level=ERROR msg=\"machine ended"); err == nil {
		t.Error("the log has an error at the end")
	}
}

// TestShutdownVsMonitor ends an agent whose store has no quorum and does not answer: it ends well all the same.
func TestShutdownVsMonitor(t *testing.T) {
	b := newCluster(t, 3)
	u := b.takeOver(t, 1, nil)
	b.waitReady(t, 1)
	b.freeze(t, 2, 3)
	wait(t, "no quorum", func() error {
		if r := b.run("fleetctl", b.at(1), "submit", fixture("hello.service")); r.code != 1 {
			return errors.New(r.String())
		}
		return nil
	})
	u.end(t, 0)
}

// TestDetectMachineId gives a machine the identity of another that is there. It does not start and says what is wrong; the other is not
// disturbed; with an identity of its own it is part of the cluster again. fleetd ran on and answered no request until then; here a machine proves
// who it is by its certificate, so the mistake shows at once.
func TestDetectMachineId(t *testing.T) {
	b := newCluster(t, 2)
	m1 := b.machineOf(t, "m1")
	pin := "pin@" + m1 + ".service"
	b.fleetctl(t, "start", fixture(pin))
	own := filepath.Join(b.machineDir(2), "machine-id")
	mine, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	twin := b.endAgent(t, 2)
	if err := os.WriteFile(own, []byte(m1+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := b.launch(t, 2, twin)
	select {
	case <-u.ended:
	case <-time.After(time.Minute):
		t.Fatal("a machine with another one's id goes on")
	}
	if code := u.cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("it ended with %v, want exit code 4", u.cmd.ProcessState)
	}
	if err := b.logSays(2, "the data directory holds parts of two machines"); err != nil {
		t.Error(err)
	}
	if on := b.active(t); len(on[pin]) != 1 {
		t.Errorf("active are %v", on)
	}
	if id := b.machineOf(t, "m1"); id != m1 {
		t.Errorf("m1 is %s now, before %s", id, m1)
	}
	if err := os.WriteFile(own, mine, 0o600); err != nil {
		t.Fatal(err)
	}
	b.flota(t, "dev", "start", "m2")
	b.waitMachines(t, 2)
}

// TestSingleNodeConnectivityLoss cuts a machine off by stopping the two others: what is submitted, loaded and launched on it stays as it is,
// single and global, and changes are refused quickly. When the others are back all is as before and nothing was ever stopped.
func TestSingleNodeConnectivityLoss(t *testing.T) {
	b := borrow(t)
	m1 := b.machineOf(t, "m1")
	here := func(name string) string { // a unit that runs on m1 only
		return b.file(t, name, "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nMachineID="+m1+"\n")
	}
	b.fleetctl(t, "start", "--no-block", fixture("pin@"+m1+".service"), fixture("everywhere.service"))
	b.fleetctl(t, "load", fixture("global@loaded.service"), here("loaded.service"))
	b.fleetctl(t, "submit", fixture("global@inactive.service"), here("inactive.service"))
	b.waitActive(t, 4)
	files, states := b.told(t)
	pids := b.pids(t)
	wake := b.freeze(t, 2, 3)
	began := time.Now()
	if r := b.run("flota", b.at(1), "start", "loaded.service"); r.code != 6 {
		t.Errorf("a change without a quorum: %v", r)
	} else if took := time.Since(began); took > 15*time.Second {
		t.Errorf("refused after %s: %v", took, r)
	}
	if until(12*time.Second, func() bool { return !same(pids) }) { // a lease and a half, and all that waits for it
		t.Errorf("not all processes %v run on", pids)
	}
	wake()
	wait(t, "states as before", func() error {
		f, s := b.told(t)
		if f != files || s != states {
			return fmt.Errorf("now\n%s%s\nbefore\n%s%s", f, s, files, states)
		}
		return nil
	})
	if now := b.pids(t); fmt.Sprint(now) != fmt.Sprint(pids) {
		t.Errorf("processes are %v, before %v", now, pids)
	}
}

// told is what fleetctl lists of all units.
func (b *bed) told(t *testing.T) (files, states string) {
	t.Helper()
	files = b.fleetctl(t, "list-unit-files", "--no-legend", "--full", "--fields", "unit,dstate,state")
	return files, b.fleetctl(t, "list-units", "--no-legend", "--full", "--fields", "unit,machine,active,sub")
}

// pids are the main processes of all units by unit and machine.
func (b *bed) pids(t *testing.T) map[string]int {
	t.Helper()
	units, err := b.units()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, u := range units {
		for _, s := range u.States {
			if s.MainPID != 0 {
				all[string(u.Name)+" on "+s.Name] = s.MainPID
			}
		}
	}
	return all
}

// same says whether all processes are there.
func same(pids map[string]int) bool {
	for _, pid := range pids {
		if syscall.Kill(pid, 0) != nil {
			return false
		}
	}
	return true
}
