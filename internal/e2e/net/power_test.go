package netbed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

// of gives the processes of one machine.
func (b *bed) of(i int) (ps []process) {
	for _, p := range b.processes(b.root) {
		if p.machine == i {
			ps = append(ps, p)
		}
	}
	return ps
}

// cutPower ends a machine as the loss of its power does: it falls silent first, so that its kernel tells nobody that connections end, and
// then everything in it is killed at once. What its processes had written stays, synced or not: the page cache is the host's.
func (b *bed) cutPower(i int) error {
	m := b.at(i)
	if b.space(i) == nil {
		return nil
	}
	if err := b.bridge.ip(fmt.Sprintf("link set dev port%d down", i)); err != nil {
		return err
	}
	one := func() []process { return b.of(i) }
	halt(one)
	if !until(10*time.Second, func() bool {
		ps := one()
		for _, p := range ps {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		return len(ps) == 0
	}) {
		return fmt.Errorf("processes cannot be killed: %v", one())
	}
	b.detach(m)
	b.mu.Lock()
	l := b.runs[i]
	delete(b.runs, i)
	b.mu.Unlock()
	if l != nil {
		<-l.ended
	}
	return nil
}

// Kill cuts the power of a machine. Its data stays.
func (b *bed) Kill(t *testing.T, i int) {
	t.Helper()
	if err := b.cutPower(i); err != nil {
		t.Fatal(err)
	}
}

// PowerCut cuts the power of all machines, as close to the same moment as can be: all fall silent before the first process is killed.
func (b *bed) PowerCut(t *testing.T) {
	t.Helper()
	for _, m := range b.all {
		if b.space(m.i) != nil {
			if err := b.bridge.ip(fmt.Sprintf("link set dev port%d down", m.i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	halt(func() []process { return b.processes(b.root) })
	for _, i := range rand.Perm(len(b.all)) {
		b.Kill(t, i+1)
	}
}

// KillAgent kills the agent of a machine and nothing else: its kernel ends the connections, its units go on.
func (b *bed) KillAgent(t *testing.T, i int) {
	t.Helper()
	b.mu.Lock()
	l := b.runs[i]
	delete(b.runs, i)
	b.mu.Unlock()
	if l == nil {
		t.Fatalf("m%d has no agent", i)
	}
	if err := l.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-l.ended
}

// Pause stops all processes of a machine, as a host does that a hypervisor does not run for a while.
func (b *bed) Pause(t *testing.T, i int) {
	t.Helper()
	halt(func() []process { return b.of(i) })
}

// Resume lets a paused machine go on.
func (b *bed) Resume(t *testing.T, i int) {
	t.Helper()
	for _, p := range b.of(i) {
		_ = syscall.Kill(p.pid, syscall.SIGCONT) // it was killed meanwhile
	}
}

// wipe destroys what a machine without power remembers.
func (b *bed) wipe(t *testing.T, i int) {
	t.Helper()
	m := b.at(i)
	if b.space(i) != nil {
		t.Fatalf("%s has power", m.name)
	}
	if err := os.RemoveAll(m.dir); err != nil {
		t.Fatal(err)
	}
}
