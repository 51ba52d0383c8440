package process_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flota/internal/driver/proc"
	"flota/internal/driver/process"
	"flota/internal/fault"
	"flota/internal/unit"
)

// self is the Exec line that runs this binary with those words.
func self(words ...string) string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	line := exe + " act"
	for _, w := range words {
		line += ` "` + w + `"`
	}
	return strings.ReplaceAll(line, "$CHILD", "$$CHILD")
}

func TestReExecKeepsChildrenAndTheirExitStatus(t *testing.T) {
	b := newBench(t)
	go1 := filepath.Join(b.dir, "go")
	b.start("a.service", "ExecStart="+self("until="+go1, "exit=7"))
	before := b.sub("a.service", "running")
	pid := b.d.PID()
	b.must(b.d.ReExec(b.ctx))
	b.must(b.d.ReExec(b.ctx))
	if b.d.PID() != pid {
		t.Errorf("supervisor was %d, is %d", pid, b.d.PID())
	}
	if now := b.sub("a.service", "running"); now.MainPID != before.MainPID {
		t.Errorf("before %+v, now %+v", before, now)
	}
	b.must(os.WriteFile(go1, nil, 0o644))
	if st := b.sub("a.service", "failed"); st.ExitCode != 7 {
		t.Errorf("exit status lost: %+v", st)
	}
}

func TestKilledSupervisorsUnitsGoOnByTheirRules(t *testing.T) {
	b := newBench(t)
	go1 := filepath.Join(b.dir, "go")
	b.start("a.service", "ExecStart="+self("until="+go1, "exit=7")+"\nRestart=on-failure\nRestartSec=1h")
	b.start("dies.service", "ExecStart=/bin/sleep 1000000")
	b.start("waits.service", "ExecStart=/bin/false\nRestart=always\nRestartSec=1h")
	before := b.sub("a.service", "running")
	dies := b.sub("dies.service", "running")
	b.sub("waits.service", "auto-restart")
	b.kill()
	st, _ := proc.Look(dies.MainPID)
	proc.Signal(dies.MainPID, st.Ticks, syscall.SIGKILL) // while nobody looks
	b.must(proc.Wait(b.ctx, dies.MainPID, st.Ticks))
	if now := b.sub("a.service", "running"); now.MainPID != before.MainPID || !now.Since.Equal(before.Since) {
		t.Errorf("before %+v, now %+v", before, now)
	}
	if st := b.sub("dies.service", "failed"); !strings.Contains(st.Message, "nobody saw") {
		t.Errorf("message %q", st.Message)
	}
	if st := b.sub("waits.service", "auto-restart"); st.Restarts != 1 {
		t.Errorf("state %+v", st)
	}
	b.must(os.WriteFile(go1, nil, 0o644))
	b.sub("a.service", "auto-restart") // its end was noticed though it is nobody's child here
}

func TestForkingWithPIDFile(t *testing.T) {
	b := newBench(t)
	pidfile := filepath.Join(b.dir, "x.pid")
	b.start("a.service", "Type=forking\nPIDFile="+pidfile+"\nExecStart="+self("child=pidfile="+pidfile+",say=up,sleep", "exit=0")+
		"\nExecReload=/bin/sh -c 'echo reloading $MAINPID'\nRestart=on-failure")
	st := b.sub("a.service", "running")
	text, err := os.ReadFile(pidfile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(st.MainPID) {
		t.Errorf("PID file %q (%v), main %d", text, err, st.MainPID)
	}
	b.must(b.d.Reload(b.ctx, "a.service"))
	b.says("a.service", fmt.Sprintf("reloading %d", st.MainPID))
	p, _ := proc.Look(st.MainPID)
	proc.Signal(st.MainPID, p.Ticks, syscall.SIGKILL)
	b.wait("a.service", "restarted", func(now unit.State) bool {
		return now.Sub == "running" && now.MainPID != st.MainPID && now.Restarts == 1
	})
	b.must(b.d.Stop(b.ctx, "a.service"))
	b.sub("a.service", "dead")
	if _, err := os.Stat(pidfile); err == nil {
		t.Error("the PID file is still there")
	}
}

func TestForkingNeverWritesItsPIDFile(t *testing.T) {
	b := newBench(t)
	b.start("a.service", "Type=forking\nPIDFile="+b.dir+"/no.pid\nExecStart="+self("child=sleep", "exit=0")+"\nTimeoutStartSec=300ms")
	if st := b.sub("a.service", "failed"); st.Result != "timeout" {
		t.Errorf("state %+v", st)
	}
}

func TestNotifyReadyStatusAndNewMain(t *testing.T) {
	b := newBench(t)
	go1 := filepath.Join(b.dir, "go")
	b.start("a.service", "Type=notify\nNotifyAccess=all\nExecStart="+
		self("child=sleep", "notify=STATUS=warming up", "until="+go1, "notify=MAINPID=$CHILD|READY=1|STATUS=serving", "exit=0"))
	st := b.wait("a.service", "warming up", func(st unit.State) bool { return st.Status == "warming up" })
	if st.Active != "activating" {
		t.Errorf("state %+v", st)
	}
	b.must(b.d.ReExec(b.ctx)) // the socket survives
	b.must(os.WriteFile(go1, nil, 0o644))
	old, _ := proc.Look(st.MainPID)
	st = b.wait("a.service", "running with a new main process", func(now unit.State) bool {
		return now.Sub == "running" && now.Status == "serving" && now.MainPID != st.MainPID
	})
	b.must(proc.Wait(b.ctx, old.PID, old.Ticks)) // from then on the new one is the supervisor's child, and its end is seen
	p, _ := proc.Look(st.MainPID)
	proc.Signal(st.MainPID, p.Ticks, syscall.SIGKILL)
	if st := b.sub("a.service", "failed"); st.Signal != "SIGKILL" || st.Result != "signal" {
		t.Errorf("state %+v", st)
	}
}

func TestNotifyAfterKilledSupervisorAndStrangers(t *testing.T) {
	b := newBench(t)
	go1 := filepath.Join(b.dir, "go")
	b.start("a.service", "Type=notify\nExecStart="+self("until="+go1, "notify=READY=1", "sleep"))
	b.start("b.service", "Type=notify\nExecStart="+self("child=notify=READY=1,say=child sent", "sleep")) // access is main alone
	b.sub("a.service", "start")
	b.says("b.service", "child sent")
	b.kill()
	b.sub("a.service", "start")
	b.must(os.WriteFile(go1, nil, 0o644))
	b.sub("a.service", "running")
	if st := b.sub("b.service", "start"); st.Active != "activating" {
		t.Errorf("a stranger's READY=1 counted: %+v", st)
	}
}

func TestWatchdog(t *testing.T) {
	b := newBench(t)
	b.start("a.service", "Type=notify\nWatchdogSec=300ms\nExecStart="+self("notify=READY=1", "sleep"))
	if st := b.sub("a.service", "failed"); st.Result != "watchdog" {
		t.Errorf("state %+v", st)
	}
}

func TestIgnoresTermIsKilled(t *testing.T) {
	b := newBench(t)
	b.start("a.service", "ExecStart="+self("term=not me", "say=ready", "sleep")+"\nTimeoutStopSec=300ms")
	b.says("a.service", "ready")
	b.must(b.d.Stop(b.ctx, "a.service"))
	if st := b.sub("a.service", "failed"); st.Result != "timeout" || st.Signal != "SIGKILL" {
		t.Errorf("state %+v", st)
	}
	b.says("a.service", "not me")
}

func TestFenceHoldsWithAPausedClient(t *testing.T) {
	b := newBench(t)
	exe, err := os.Executable()
	b.must(err)
	client := exec.Command(exe, "act", "fence="+b.dir+",600")
	out, err := client.StdoutPipe()
	b.must(err)
	b.must(client.Start())
	defer func() {
		client.Process.Kill()
		client.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "fencing\n" {
		t.Fatalf("client said %q (%v)", line, err)
	}
	b.start("x.service", "ExecStart=/bin/sleep 1000000\nRestart=always\n[X-Flota]\nExclusive=true")
	st := b.sub("x.service", "running")
	b.must(client.Process.Signal(syscall.SIGSTOP))
	begin := time.Now()
	p, _ := proc.Look(st.MainPID)
	b.must(proc.Wait(b.ctx, st.MainPID, p.Ticks))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the unit lived on for %v", took)
	}
	b.wait("x.service", "fenced", func(st unit.State) bool { return st.Result == "fenced" && st.Run == 0 })
}

func TestFenceIsKeptByTheNextSupervisor(t *testing.T) {
	b := newBench(t)
	b.must(b.d.Fence(b.ctx, time.Second))
	b.start("x.service", "ExecStart=/bin/sleep 1000000\n[X-Flota]\nExclusive=true")
	st := b.sub("x.service", "running")
	b.kill()
	b.wait("x.service", "fenced", func(now unit.State) bool { return now.Result == "fenced" })
	if _, there := proc.Look(st.MainPID); there && proc.Alive(st.MainPID, 0) {
		t.Error("it runs on")
	}
}

// marked gives the PIDs of processes with a text in their environment or command line.
func marked(text string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		env, _ := os.ReadFile(dir + "/environ")
		cmd, _ := os.ReadFile(dir + "/cmdline")
		if strings.Contains(string(env)+string(cmd), text) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestPowerCutLeavesNothing(t *testing.T) {
	b := newBench(t)
	mark := "MARK=" + filepath.Base(b.dir)
	for i := range 5 {
		b.start(unit.Name(fmt.Sprintf("u%d.service", i)), "Environment="+mark+"\nRestart=always\nExecStart="+self("child=child=sleep,sleep", "child=sleep", "say=up", "sleep"))
	}
	for i := range 5 {
		b.says(unit.Name(fmt.Sprintf("u%d.service", i)), "up")
	}
	b.must(process.PowerCut(b.dir))
	if left := marked(mark); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if left := marked(b.dir); len(left) > 0 {
		t.Errorf("a supervisor is left: %v", left)
	}
	b.must(process.PowerCut(b.dir)) // again is no error
}

func TestManyUnitsAtOnce(t *testing.T) {
	b := newBench(t)
	const n = 200
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := unit.Name(fmt.Sprintf("u%d.service", i))
			u := parse(t, name, "ExecStart=/bin/sleep 1000000")
			if err := b.d.Load(b.ctx, u); err != nil {
				t.Error(err)
			}
			if err := b.d.Start(b.ctx, name, 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		b.sub(unit.Name(fmt.Sprintf("u%d.service", i)), "running")
	}
	t.Logf("%d units active after %v; the supervisor used %v", n, time.Since(begin), cpuTime(b.d.PID()))
	b.must(b.d.ReExec(b.ctx))
	b.kill()
	states, err := b.d.States(b.ctx)
	b.must(err)
	for _, st := range states {
		if st.Sub != "running" {
			t.Errorf("state %+v", st)
		}
	}
	b.must(b.d.Shutdown(b.ctx))
	t.Logf("all stopped after %v", time.Since(begin))
	if b.d.PID() != 0 {
		t.Error("the supervisor did not end")
	}
}

// cpuTime is the processor time that a process has used, in ticks of 10 ms.
func cpuTime(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func TestOrphansAreReaped(t *testing.T) {
	b := newBench(t)
	b.start("a.service", "ExecStart=/bin/sh -c 'for i in 1 2 3 4 5; do (true &) ; done; echo forked; exec sleep 1000000'")
	b.says("a.service", "forked")
	deadline := time.Now().Add(20 * time.Second)
	for {
		zombies := 0
		all, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range all {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			if st, ok := proc.Look(pid); ok && st.Zombie && st.Parent == b.d.PID() {
				zombies++
			}
		}
		if zombies == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d zombies", zombies)
		}
	}
}

func TestEnvironmentOfEachCommand(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(b.dir, "env")
	b.start("a@x.service", `Environment=A=1 "B=two words" C=%i
EnvironmentFile=`+file+`
EnvironmentFile=-/no/such/file
UnsetEnvironment=C
ExecStartPre=!/bin/sh -c 'echo pre main=$MAINPID'
ExecStart=/bin/sh -c 'echo A=$A B=$B C=$C W=$W id=$${#INVOCATION_ID}; exec sleep 1000000' $A
ExecReload=/bin/sh -c 'echo reload of $MAINPID'
ExecStop=/bin/sh -c 'echo stop $SERVICE_RESULT of $MAINPID; kill -USR1 $MAINPID'
ExecStopPost=/bin/sh -c 'echo post $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS'`)
	if st := b.sub("a@x.service", "failed"); st.Result != "resources" { // no file, no start
		t.Errorf("state %+v", st)
	}
	b.must(os.WriteFile(file, []byte("# x\nA=9\nW='from file'\n"), 0o644))
	b.must(b.d.Start(b.ctx, "a@x.service", 2))
	st := b.sub("a@x.service", "running")
	b.says("a@x.service", "A=9 B=two words C= W=from file id=32")
	b.must(b.d.Reload(b.ctx, "a@x.service"))
	b.must(b.d.Stop(b.ctx, "a@x.service"))
	b.sub("a@x.service", "failed")
	for _, want := range []string{"pre main=", fmt.Sprintf("reload of %d", st.MainPID), fmt.Sprintf("stop success of %d", st.MainPID), "post signal killed USR1", "Started.", "Main process exited, code=killed, status=10/USR1."} {
		b.says("a@x.service", want)
	}
}

func TestStrictAndNotes(t *testing.T) {
	b := newBench(t)
	d, err := process.Open(b.ctx, process.Options{DataDir: b.dir, Strict: true})
	b.must(err)
	u := parse(t, "a.service", "ExecStart=/bin/true\nRootImage=/x.img\nSmackProcessLabel=x\nSyslogFacility=daemon")
	if err := d.Load(b.ctx, u); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "RootImage=") {
		t.Errorf("strict: %v", err)
	}
	b.must(b.d.Load(b.ctx, u))
	states, err := b.d.States(b.ctx)
	b.must(err)
	if notes := strings.Join(states[0].Notes, "\n"); !strings.Contains(notes, "RootImage=: not honoured (restricting)") || strings.Contains(notes, "SyslogFacility") {
		t.Errorf("notes %q", notes)
	}
	b.must(b.d.Load(b.ctx, parse(t, "d.service", "Type=dbus\nBusName=a.b\nExecStart=/bin/true")))
	if err := b.d.Start(b.ctx, "d.service", 1); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "Type=dbus") {
		t.Errorf("dbus: %v", err)
	}
}

func TestConditions(t *testing.T) {
	b := newBench(t)
	f, _, err := unit.Parse("a.service", []byte("[Unit]\nConditionPathExists=/no/such/path\n[Service]\nExecStart=/bin/true\n"))
	b.must(err)
	b.must(b.d.Load(b.ctx, unit.Unit{Name: "a.service", Options: f.Options}))
	b.must(b.d.Start(b.ctx, "a.service", 1))
	st := b.wait("a.service", "skipped", func(st unit.State) bool { return st.Run == 1 && st.Active == "inactive" })
	if st.Result != "condition" || !strings.Contains(st.Message, "ConditionPathExists=/no/such/path") {
		t.Errorf("state %+v", st)
	}
}
