package netbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reaches sends a datagram from one machine to another, once in 20 ms for as long as wait, and tells whether one came.
func (b *bed) reaches(t *testing.T, from, to int, wait time.Duration) bool {
	t.Helper()
	var in net.PacketConn
	if err := b.space(to).do(func() (err error) {
		in, err = net.ListenPacket("udp4", b.at(to).addr+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := b.dial(t.Context(), from, "udp4", in.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with this call
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			_, _ = out.Write([]byte("x")) // refused when nobody listens any more
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	_ = in.SetReadDeadline(time.Now().Add(wait))
	_, _, err = in.ReadFrom(make([]byte, 8))
	return err == nil
}

// links gives who reaches whom, as "1>2 2>1 ...". Links that are wanted get more time to show than others.
func (b *bed) links(t *testing.T, want string) string {
	t.Helper()
	var got []string
	for _, i := range b.numbers() {
		for _, j := range b.numbers() {
			link, wait := fmt.Sprintf("%d>%d", i, j), 200*time.Millisecond
			if strings.Contains(want, link) {
				wait = 10 * time.Second
			}
			if i != j && b.reaches(t, i, j, wait) {
				got = append(got, link)
			}
		}
	}
	return strings.Join(got, " ")
}

// TestLinks cuts and mends links in all ways and looks who reaches whom.
func TestLinks(t *testing.T) {
	b := newBed(t, 3)
	all := "1>2 1>3 2>1 2>3 3>1 3>2"
	for _, c := range []struct {
		name string
		cut  func()
		want string
	}{
		{"whole", func() {}, all},
		{"one way", func() { b.CutOneWay(t, 1, 2) }, "1>3 2>1 2>3 3>1 3>2"},
		{"cut", func() { b.Cut(t, 2, 3) }, "1>2 1>3 2>1 3>1"},
		{"isolated", func() { b.Isolate(t, 2) }, "1>3 3>1"},
		{"split", func() { b.Split(t, []int{1}, []int{2, 3}) }, "2>3 3>2"},
		{"split in three", func() { b.Split(t, []int{1}, []int{2}, []int{3}) }, ""},
		{"killed and started", func() {
			b.CutOneWay(t, 3, 1)
			b.Kill(t, 3)
			b.Kill(t, 2)
			for _, i := range []int{2, 3} {
				if err := b.attach(b.at(i)); err != nil {
					t.Fatal(err)
				}
			}
		}, "1>2 1>3 2>1 2>3 3>2"},
	} {
		c.cut()
		if got := b.links(t, c.want); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		b.Heal(t)
		if got := b.links(t, all); got != all {
			t.Errorf("%s, healed: %q, want %q", c.name, got, all)
		}
	}
}

// TestBedsAreApart has two beds side by side: neither reaches the other, nor the host's own loopback.
func TestBedsAreApart(t *testing.T) {
	b := newBed(t, 1)
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	other, err := makeBed(1)
	if err != nil {
		t.Fatal(errors.Join(err, other.end()))
	}
	defer func() {
		if err := other.end(); err != nil {
			t.Error(err)
		}
	}()
	l, err := other.listen(1, other.at(1).addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, addr := range []string{l.Addr().String(), host.Addr().String()} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if c, err := b.dial(ctx, 1, "tcp", addr); err == nil {
			c.Close()
			t.Errorf("a machine reaches %s", addr)
		}
		cancel()
	}
	c, err := other.dial(t.Context(), 1, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal("a machine does not reach itself:", err)
	}
	c.Close()
}

// pretend starts a program on a machine that starts another in a session of its own, as an agent starts a supervisor.
func (b *bed) pretend(t *testing.T, i int, unit string) {
	t.Helper()
	ledger, err := ledgerProgram()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`export FLOTA_MACHINE=m%d; setsid sh -c 'trap "" TERM; %s %s %s.helper 20ms' & exec %s %s %s 20ms`,
		i, ledger, b.books(), unit, ledger, b.books(), unit)
	b.launch(t, i, "/bin/sh", "-c", script)
	within(t, patience, unit+" runs", func() error {
		if n := len(b.running()[unit]) + len(b.running()[unit+".helper"]); n != 2 {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
}

// ticks counts the lines of all books of a machine.
func (b *bed) ticks(t *testing.T, i int) (n int) {
	t.Helper()
	lives, err := readBooks(b.books())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lives {
		if l.machine == b.at(i).name {
			n += l.lines
		}
	}
	return n
}

// TestPower pauses, resumes, kills and starts machines: what runs of each is found whatever session it is in, and of no other.
func TestPower(t *testing.T) {
	b := newBed(t, 3)
	for i := 1; i <= 3; i++ {
		b.pretend(t, i, fmt.Sprintf("u%d", i))
	}
	goesOn := func(i int) bool {
		n := b.ticks(t, i)
		return until(time.Second, func() bool { return b.ticks(t, i) > n+5 })
	}
	b.Pause(t, 2)
	if goesOn(2) || !goesOn(1) {
		t.Error("a paused machine goes on, or another does not")
	}
	b.Resume(t, 2)
	if !goesOn(2) {
		t.Error("a resumed machine does not go on")
	}
	b.Pause(t, 1)
	b.Kill(t, 1)
	b.KillAgent(t, 2)
	for i, want := range map[int]int{1: 0, 2: 2, 3: 3} { // the shell, the two books; of m2 the agent's is gone
		if got := b.of(i); len(got) != want {
			t.Errorf("m%d has %v, want %d processes", i, got, want)
		}
	}
	b.pretend(t, 1, "again")
	b.PowerCut(t)
	if ps := b.processes(b.root); len(ps) != 0 {
		t.Errorf("a power cut has left %v", ps)
	}
}

// TestDisks fills a disk, lets it hang and slows it down.
func TestDisks(t *testing.T) {
	b := newBed(t, 1)
	b.smallDisk(t, 1, 16)
	file := filepath.Join(b.at(1).dir, "f")
	write := func(n int) (time.Duration, error) {
		began := time.Now()
		err := os.WriteFile(file, make([]byte, n), 0o600)
		if err == nil {
			f, _ := os.OpenFile(file, os.O_WRONLY, 0)
			err = errors.Join(f.Sync(), f.Close())
		}
		return time.Since(began), err
	}
	free := b.fillDisk(t, 1, 64)
	if _, err := write(1 << 20); !errors.Is(err, syscall.ENOSPC) {
		t.Error("a full disk takes a mebibyte:", err)
	}
	free()
	if _, err := write(1 << 20); err != nil {
		t.Error("after it was freed:", err)
	}
	goOn := b.hangDisk(t, 1)
	done := make(chan error)
	go func() {
		_, err := write(10)
		done <- err
	}()
	select {
	case <-done:
		t.Error("a disk that hangs answers")
	case <-time.After(300 * time.Millisecond):
	}
	goOn()
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop := b.slowDisk(t, 1, 100*time.Millisecond, 110*time.Millisecond)
	longest := time.Duration(0)
	for range 20 {
		took, err := write(10)
		if err != nil {
			t.Error(err)
		}
		longest = max(longest, took)
	}
	stop()
	if longest < 80*time.Millisecond {
		t.Errorf("none of 20 writes to a slow disk takes longer than %s", longest)
	}
}

// TestClear clears a bed away whose processes wait for a frozen disk; the bed beside it is not touched.
func TestClear(t *testing.T) {
	living := newBed(t, 1)
	living.pretend(t, 1, "living")
	dead, err := makeBed(2)
	if err != nil {
		t.Fatal(errors.Join(err, dead.end()))
	}
	ended := false
	defer func() {
		if !ended {
			_ = dead.end()
		}
	}()
	dead.smallDisk(t, 2, 16)
	dead.pretend(t, 1, "dead")
	_ = os.MkdirAll(filepath.Join("/sys/fs/cgroup/unified/flota", keyOf(dead.at(1).dir), "x"), 0o755) // where there is such a hierarchy
	dead.launch(t, 2, "/bin/sh", "-c", "while :; do echo x >>"+dead.at(2).dir+"/f; done")
	dead.hangDisk(t, 2)
	if len(dead.of(1)) != 3 || len(dead.of(2)) != 1 {
		t.Errorf("the bed has %v", dead.processes(dead.root))
	}
	if err := dead.left(dead.root); err == nil {
		t.Error("a bed that is there leaves nothing")
	}
	ended = true
	if err := dead.end(); err != nil {
		t.Error(err)
	}
	if got := len(living.of(1)); got != 3 {
		t.Errorf("%d processes of the living bed are left, want 3", got)
	}
}

// TestKilledTests kills a test process in the middle of its work. The warden leaves nothing of it; and if the warden was killed first, the
// next tests do.
func TestKilledTests(t *testing.T) {
	if note := os.Getenv("NETBED_VICTIM"); note != "" {
		victim(t, note)
		return
	}
	need(t)
	t.Parallel()
	for _, warden := range []bool{true, false} {
		v := startVictim(t)
		if !warden {
			_ = syscall.Kill(v.warden, syscall.SIGKILL)
			within(t, patience, "end of the warden", func() error {
				if startOf(v.warden) != "" {
					return errors.New("it is there")
				}
				return nil
			})
		}
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait() // it was killed
		if !warden {
			if err := v.gone.left(v.root); err == nil {
				t.Error("without its warden a killed test leaves nothing: this test proves nothing")
			}
			if err := sweepDead(); err != nil {
				t.Error(err)
			}
		}
		within(t, patience, "end of all that was left", func() error {
			_, err := os.Stat(filepath.Dir(v.root))
			if !errors.Is(err, fs.ErrNotExist) {
				err = errors.Join(errors.New("the folder is there"), err)
			} else {
				err = nil
			}
			return errors.Join(err, v.gone.left(v.root))
		})
	}
}

// doomed is a test process that is to be killed.
type doomed struct {
	cmd    *exec.Cmd
	root   string
	warden int
	gone   record
}

// startVictim starts one, and waits until its bed is up.
func startVictim(t *testing.T) *doomed {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(t.TempDir(), "note")
	v := &doomed{cmd: exec.Command(self, "-test.run=^TestKilledTests$", "-test.timeout=5m")}
	v.cmd.Env = append(os.Environ(), "NETBED_VICTIM="+note)
	var out bytes.Buffer
	v.cmd.Stdout, v.cmd.Stderr = &out, &out
	v.cmd.WaitDelay = time.Second
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text []byte
	if !until(patience, func() bool { text, err = os.ReadFile(note); return err == nil }) {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
		t.Fatal("the victim does not run: ", out.String())
	}
	if _, err := fmt.Sscan(string(text), &v.warden, &v.gone.ID, &v.root); err != nil {
		t.Fatal(err)
	}
	v.gone.Dirs = []string{filepath.Join(v.root, "m1"), filepath.Join(v.root, "m2")}
	return v
}

// victim makes a bed, tells of it, and waits to be killed.
func victim(t *testing.T, note string) {
	b := newBed(t, 2)
	b.smallDisk(t, 2, 16)
	b.pretend(t, 1, "victim")
	b.hangDisk(t, 2)
	if err := os.WriteFile(note+".new", fmt.Appendln(nil, watcher.cmd.Process.Pid, b.ID, b.root), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(note+".new", note); err != nil {
		t.Fatal(err)
	}
	<-time.After(patience) // killed before
}
