package lifecycle

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"flota/internal/service"
	"flota/internal/setting"
	"flota/internal/unit"
)

// play runs a machine as room supervise does, on a made-up clock and made-up processes: every Run makes a new PID.
type play struct {
	t     *testing.T
	m     *Machine
	now   time.Time
	pid   int
	left  bool // processes beside main and control
	log   []string
	unmet Tested
	file  PIDFile
	guess Guessed
	fails map[Kind]SpawnFailed
}

func newPlay(t *testing.T, text string) *play {
	t.Helper()
	f, _, err := unit.Parse("a.service", []byte("[Service]\n"+strings.ReplaceAll(text, "; ", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	svc, _, err := service.Parse("a.service", f, service.DefaultHost())
	if err != nil {
		t.Fatal(err)
	}
	p := &play{t: t, now: time.Unix(1e9, 0), pid: 100, fails: map[Kind]SpawnFailed{}}
	p.m = &Machine{Rec: &Record{Unit: "a.service", Phase: Dead}, Svc: &svc}
	p.m.Left = func() bool { return p.left || p.m.Rec.Main.PID != 0 || p.m.Rec.Control.PID != 0 }
	return p
}

// do puts an event and answers the actions.
func (p *play) do(ev Event) {
	events := []Event{ev}
	for len(events) > 0 {
		actions := p.m.Handle(p.now, events[0])
		events = events[1:]
		for _, a := range actions {
			if answer := p.answer(a); answer != nil {
				events = append(events, answer)
			}
		}
	}
}

func (p *play) answer(a Action) Event {
	switch a := a.(type) {
	case Test:
		return p.unmet
	case Run:
		p.log = append(p.log, fmt.Sprintf("%s%d", strings.TrimPrefix(string(a.Kind), "Exec"), a.Index))
		if f, ok := p.fails[a.Kind]; ok {
			return f
		}
		p.pid++
		return Spawned{Proc: Proc{PID: p.pid, Ticks: 1}}
	case Kill:
		who := "some"
		if a.Group {
			who = "all"
		}
		p.log = append(p.log, short(int(a.Signal))+":"+who)
		return Killed{Left: !a.Nobody && (p.m.Rec.Main.PID != 0 || p.m.Rec.Control.PID != 0 || a.Group && p.left)}
	case KillAll:
		p.log = append(p.log, "killall")
		return Gone{}
	case ReadPIDFile:
		return p.file
	case GuessMain:
		return p.guess
	case Reloaded:
		p.log = append(p.log, "reloaded:"+a.Why)
	}
	return nil
}

// step does one word of a story:
//
//	start N  stop  reload  reset  fence  lost  emptied  executed  ready  reloading  stopping  watchdog
//	main exit N | main sig N | control exit N | control sig N | main unknown
//	after D (and Due)    left | alone    =PHASE/RESULT (what must be now)
func (p *play) step(s string) {
	r := p.m.Rec
	w := strings.Fields(s)
	var n int
	if len(w) > 1 {
		fmt.Sscan(w[len(w)-1], &n)
	}
	exit := func(pid int) {
		e := Ended{PID: pid}
		switch w[1] {
		case "exit":
			e.Exit.Code = n
		case "sig":
			e.Exit.Signal = n
		case "unknown":
			e.Exit.Unknown = true
		}
		p.do(e)
	}
	switch w[0] {
	case "start":
		p.do(StartAsked{Run: uint64(n)})
	case "stop":
		p.do(StopAsked{})
	case "reload":
		p.do(ReloadAsked{})
	case "reset":
		p.do(ResetAsked{})
	case "fence":
		p.do(FenceOut{})
	case "lost":
		p.do(Lost{})
	case "emptied":
		p.left = false
		p.do(Emptied{})
	case "executed":
		p.do(Executed{PID: r.Main.PID})
	case "ready":
		p.do(Note{Ready: true})
	case "reloading":
		p.do(Note{Reloading: true})
	case "stopping":
		p.do(Note{Stopping: true})
	case "watchdog":
		p.do(Note{Watchdog: true})
	case "main":
		exit(r.Main.PID)
	case "control":
		exit(r.Control.PID)
	case "left":
		p.left = true
	case "alone":
		p.left = false
	case "after":
		d, err := time.ParseDuration(w[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
		p.do(Due{})
	default:
		got := "=" + string(r.Phase) + "/" + string(r.Result)
		if s != got {
			p.t.Errorf("now %s, want %s (message %q, did %v)", got, s, r.Message, p.log)
		}
	}
}

func TestStories(t *testing.T) {
	const sleep = "ExecStart=/bin/x; "
	tests := []struct{ name, text, story, did string }{
		{"simple", sleep, "start 1, =running/success, stop, =stop-sigterm/success, main sig 15, =dead/success", "Start0 TERM:all TERM:all KILL:all"},
		{"simple, clean end", sleep, "start 1, main exit 0, =dead/success", ""},
		{"simple, bad end", sleep, "start 1, main exit 3, =failed/exit-code", ""},
		{"simple, signal", sleep, "start 1, main sig 9, =failed/signal", ""},
		{"clean signals of daemons", sleep, "start 1, main sig 13, =dead/success", ""},
		{"SuccessExitStatus", sleep + "SuccessExitStatus=143 USR1", "start 1, main exit 143, =dead/success, start 2, main sig 10, =dead/success", ""},
		{"failure of - is none", "ExecStart=-/bin/x", "start 1, main exit 7, =dead/success", ""},
		{"all commands in order", "ExecCondition=/c; ExecStartPre=/p; ExecStartPre=/p; ExecStart=/s; ExecStartPost=/q; ExecStop=/t; ExecStopPost=/u",
			"start 1, =condition/success, control exit 0, =start-pre/success, control exit 0, =start-pre/success, control exit 0, =start-post/success, control exit 0, =running/success, " +
				"stop, =stop/success, control exit 0, =stop-sigterm/success, main sig 15, =stop-post/success, control exit 0, =dead/success",
			"Condition0 StartPre0 StartPre1 Start0 StartPost0 Stop0 TERM:all StopPost0 TERM:all KILL:all"},
		{"condition says no", "ExecCondition=/c; ExecStart=/s; ExecStopPost=/u", "start 1, control exit 1, =stop-post/exec-condition, control exit 0, =dead/exec-condition", "Condition0 TERM:all KILL:all StopPost0 TERM:all KILL:all"},
		{"condition fails", "ExecCondition=/c; ExecStart=/s", "start 1, control exit 255, =failed/exit-code", ""},
		{"start-pre fails: no stop commands", "ExecStartPre=/p; ExecStart=/s; ExecStop=/t; ExecStopPost=/u", "start 1, control exit 1, =stop-post/exit-code, control exit 0, =failed/exit-code", "StartPre0 TERM:all KILL:all StopPost0 TERM:all KILL:all"},
		{"start-pre with - fails", "ExecStartPre=-/p; ExecStart=/s", "start 1, control exit 1, =running/success", ""},
		{"start-post fails", "ExecStart=/s; ExecStartPost=/p; ExecStop=/t", "start 1, control exit 1, =stop-sigterm/exit-code, main sig 15, =failed/exit-code", "Start0 StartPost0 TERM:all TERM:all KILL:all"},
		{"stop commands after a clean end, not after a bad one", "ExecStart=/s; ExecStop=/t", "start 1, main exit 0, =stop/success, control exit 0, =dead/success, start 2, main exit 1, =failed/exit-code", "Start0 Stop0 TERM:all KILL:all TERM:all KILL:all Start0 TERM:all KILL:all TERM:all KILL:all"},
		{"stop command fails", "ExecStart=/s; ExecStop=/t; ExecStop=/t", "start 1, stop, control exit 1, =stop-sigterm/exit-code, main sig 15, =failed/exit-code", "Start0 Stop0 TERM:all TERM:all KILL:all"},
		{"stop while starting has no stop commands", "ExecStartPre=/p; ExecStart=/s; ExecStop=/t", "start 1, stop, =stop-sigterm/success, control sig 15, =failed/signal", "StartPre0 TERM:all TERM:all KILL:all"},
		{"ignores TERM", sleep + "TimeoutStopSec=5", "start 1, stop, after 4s, =stop-sigterm/success, after 1s, =stop-sigkill/timeout, main sig 9, =failed/timeout", "Start0 TERM:all KILL:all TERM:all KILL:all"},
		{"SendSIGKILL=no", sleep + "TimeoutStopSec=5; SendSIGKILL=no", "start 1, left, stop, after 5s, =final-sigterm/timeout, after 5s, =failed/timeout", "Start0 TERM:all TERM:all"},
		{"hangs in the kernel", sleep + "TimeoutStopSec=5", "start 1, left, stop, after 5s, after 5s, =final-sigterm/timeout, after 5s, =final-sigkill/timeout, after 5s, =failed/timeout", ""},
		{"children outlive main", sleep, "start 1, left, main exit 0, =stop-sigterm/success, emptied, =dead/success", "Start0 TERM:all TERM:all KILL:all"},
		{"KillMode=mixed", sleep + "KillMode=mixed", "start 1, left, stop, main sig 15, =final-sigkill/success, emptied, =dead/success", "Start0 TERM:some TERM:some KILL:all"},
		{"KillMode=process", sleep + "KillMode=process", "start 1, left, stop, main sig 15, =dead/success", "Start0 TERM:some TERM:some KILL:some"},
		{"KillMode=none", sleep + "KillMode=none; ExecStop=/t", "start 1, stop, control exit 0, =dead/success", ""},
		{"RemainAfterExit", sleep + "RemainAfterExit=yes", "start 1, main exit 0, =exited/success, stop, =dead/success", ""},
		{"oneshot", "Type=oneshot; ExecStart=/a; ExecStart=/b", "start 1, =start/success, main exit 0, =start/success, main exit 0, =dead/success", "Start0 Start1 TERM:all KILL:all TERM:all KILL:all"},
		{"oneshot fails in the middle", "Type=oneshot; ExecStart=/a; ExecStart=/b", "start 1, main exit 2, =failed/exit-code", "Start0 TERM:all KILL:all TERM:all KILL:all"},
		{"oneshot remains", "Type=oneshot; ExecStart=/a; RemainAfterExit=1", "start 1, main exit 0, =exited/success", ""},
		{"oneshot: TERM is no clean end", "Type=oneshot; ExecStart=/a", "start 1, main sig 15, =failed/signal", ""},
		{"exec", "Type=exec; ExecStart=/a", "start 1, =start/success, executed, =running/success", ""},
		{"exec fails", "Type=exec; ExecStart=/a", "start 1, main exit 203, =failed/exit-code", ""},
		{"notify", "Type=notify; ExecStart=/a", "start 1, =start/success, ready, =running/success, stopping, =stop-sigterm/success, main exit 0, =dead/success", "Start0 TERM:all KILL:all"},
		{"notify ends early", "Type=notify; ExecStart=/a", "start 1, main exit 0, =failed/protocol", ""},
		{"notify never ready", "Type=notify; ExecStart=/a; TimeoutStartSec=3", "start 1, after 3s, =stop-sigterm/timeout, main sig 15, =failed/timeout", ""},
		{"notify reloads", "Type=notify; ExecStart=/a; ExecReload=/r", "start 1, ready, reload, =reload/success, reloading, control exit 0, =reload/success, ready, =running/success", "Start0 Reload0 reloaded:"},
		{"reload by itself", "Type=notify; ExecStart=/a", "start 1, ready, reloading, =reload/success, ready, =running/success", ""},
		{"reload fails", sleep + "ExecReload=/r", "start 1, reload, control exit 1, =running/success", "Start0 Reload0 reloaded:ExecReload= process exited with status 1 (exit-code)"},
		{"reload hangs", sleep + "ExecReload=/r; TimeoutStartSec=2", "start 1, reload, after 2s, =running/success", "Start0 Reload0 reloaded:not reloaded within 2 s"},
		{"main ends during reload", sleep + "ExecReload=/r", "start 1, reload, main exit 1, =reload/exit-code, control exit 0, =failed/exit-code", ""},
		{"two reload commands", sleep + "ExecReload=/r; ExecReload=/r", "start 1, reload, control exit 0, =reload/success, control exit 0, =running/success", "Start0 Reload0 Reload1 reloaded:"},
		{"restart", sleep + "Restart=on-failure; RestartSec=2", "start 1, main exit 1, =auto-restart/exit-code, after 1s, =auto-restart/exit-code, after 1s, =running/success", ""},
		{"restart: clean end", sleep + "Restart=on-failure", "start 1, main exit 0, =dead/success", ""},
		{"stop ends waiting", sleep + "Restart=always", "start 1, main exit 1, stop, =dead/success, after 1h, =dead/success", ""},
		{"stop is not restarted", sleep + "Restart=always", "start 1, stop, main sig 15, =dead/success", ""},
		{"start limit", sleep + "Restart=always; StartLimitBurst=2; StartLimitInterval=10", "start 1, main exit 1, after 100ms, main exit 1, after 100ms, =failed/start-limit-hit, start 2, =failed/start-limit-hit, reset, =dead/, start 3, =running/success", ""},
		{"start limit forgets", sleep + "StartLimitBurst=1; StartLimitInterval=10", "start 1, main exit 1, after 11s, start 2, =running/success", ""},
		{"RestartPreventExitStatus", sleep + "Restart=always; RestartPreventExitStatus=3", "start 1, main exit 3, =failed/exit-code", ""},
		{"RestartForceExitStatus", sleep + "RestartForceExitStatus=3", "start 1, main exit 3, =auto-restart/exit-code", ""},
		{"new run", sleep + "RestartKillSignal=INT", "start 1, start 2, =stop-sigterm/success, main sig 2, =running/success", "Start0 INT:all INT:all KILL:all Start0"},
		{"new run taken back", sleep, "start 1, start 2, stop, main sig 15, =dead/success", ""},
		{"new run while waiting for a restart", sleep + "Restart=always; RestartSec=1h", "start 1, main exit 1, start 2, =running/success", ""},
		{"RuntimeMaxSec", sleep + "RuntimeMaxSec=10", "start 1, after 10s, =stop-sigterm/timeout, main sig 15, =failed/timeout", ""},
		{"watchdog", sleep + "WatchdogSec=10; Restart=on-watchdog", "start 1, after 9s, watchdog, after 9s, =running/success, after 1s, =stop-watchdog/watchdog, main sig 6, =auto-restart/watchdog", "Start0 ABRT:all TERM:all KILL:all"},
		{"forking, main guessed", "Type=forking; ExecStart=/a", "start 1, =start/success, control exit 0, =running/success, main exit 1, =failed/exit-code", ""},
		{"forking, first process fails", "Type=forking; ExecStart=/a", "start 1, control exit 1, =failed/exit-code", ""},
		{"forking, the rest ends", "Type=forking; ExecStart=/a; GuessMainPID=no", "start 1, left, control exit 0, =running/success, emptied, =dead/success", ""},
		{"fence", sleep + "Restart=always", "start 1, fence, =dead/fenced, after 1h, =dead/fenced", "Start0 killall"},
		{"fence while waiting", sleep + "Restart=always", "start 1, main exit 1, fence, =dead/fenced", ""},
		{"power cut", sleep + "Restart=always", "start 1, lost, =dead/machine-restarted", ""},
		{"unknown end restarts", sleep + "Restart=on-failure", "start 1, main unknown, =auto-restart/protocol", ""},
		{"unknown end while stopping is fine", sleep, "start 1, stop, main unknown, =dead/success", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlay(t, test.text)
			p.guess = Guessed{Proc{PID: 77, Ticks: 1}}
			for s := range strings.SplitSeq(test.story, ", ") {
				p.step(s)
			}
			if got := strings.Join(p.log, " "); test.did != "" && got != test.did {
				t.Errorf("did  %s\nwant %s", got, test.did)
			}
			if r := p.m.Rec; r.Resting() && (r.Main.PID != 0 || r.Control.PID != 0 || !r.Deadline.IsZero()) {
				t.Errorf("at rest with %+v", r)
			}
		})
	}
}

func TestPIDFile(t *testing.T) {
	p := newPlay(t, "Type=forking; ExecStart=/a; PIDFile=/run/x.pid; TimeoutStartSec=3")
	p.left, p.file = true, PIDFile{Why: "no such file yet"}
	p.step("start 1")
	p.step("control exit 0")
	p.step("=start/success")
	if !p.m.Rec.WaitsFile {
		t.Error("it does not wait for the file")
	}
	p.do(PIDFile{Proc: Proc{PID: 55, Ticks: 1}})
	p.step("=running/success")
	p.do(Ended{PID: 55, Moved: Proc{PID: 56, Ticks: 1}})
	if p.step("=running/success"); p.m.Rec.Main.PID != 56 {
		t.Errorf("main %+v", p.m.Rec.Main)
	}
	p.do(StopAsked{})
	p.do(Ended{PID: 56})
	p.left = false
	p.do(Emptied{})
	p.step("=dead/success")

	p.file = PIDFile{Why: "no such file yet"}
	p.step("start 2")
	p.step("control exit 0") // nothing is left that could write it
	p.step("=failed/protocol")
}

func TestMessagesAndLimits(t *testing.T) {
	p := newPlay(t, "ExecStart=/a; Restart=on-failure; StartLimitBurst=5; StartLimitInterval=10")
	p.step("start 1")
	p.step("main exit 1")
	if want := "main process exited with status 1 (exit-code); restart 1 of 5 in 100ms"; p.m.Rec.Message != want {
		t.Errorf("message %q, want %q", p.m.Rec.Message, want)
	}
	for range 5 {
		p.step("after 100ms")
		p.step("main exit 1")
	}
	if want := "start-limit-hit: 5 starts in 10 s"; !strings.HasPrefix(p.m.Rec.Message, want) {
		t.Errorf("message %q, want %q", p.m.Rec.Message, want)
	}
	p.fails[CmdStart] = SpawnFailed{Exit: Exit{Code: 203, Why: "exec /a: no such file"}}
	p.step("reset")
	p.step("start 2")
	p.step("=auto-restart/exit-code")
	if want := "main process exited with status 203/EXEC (exit-code): exec /a: no such file; restart"; !strings.HasPrefix(p.m.Rec.Message, want) {
		t.Errorf("message %q, want %q", p.m.Rec.Message, want)
	}
	p.step("stop")
	p.unmet = Tested{Unmet: "ConditionPathExists=/x"}
	p.step("start 3")
	p.step("=dead/condition")
	p.unmet.Assert = true
	p.step("start 4")
	p.step("=failed/assert")
}

func TestRestartMatrix(t *testing.T) {
	rules := []service.Restart{"no", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog", "always"}
	for result, want := range map[Result]string{ // one letter per rule
		Success: ".y....y", ExitCode: "..y...y", Signal: "..yyy.y", CoreDump: "..yyy.y", Timeout: "..yy..y",
		OOMKill: "..yy..y", Watchdog: "..yy.yy", ExecCondition: ".......", Protocol: "..yy..y",
	} {
		for i, rule := range rules {
			if got := Restarts(&service.Service{Restart: rule}, result, Exit{}); got != (want[i] == 'y') {
				t.Errorf("%s with Restart=%s: %v", result, rule, got)
			}
		}
	}
	s := &service.Service{Restart: "always", RestartNever: setting.Exits{Codes: []int{3}, Signals: []syscall.Signal{15}}, RestartForce: setting.Exits{Codes: []int{3}}}
	if Restarts(s, ExitCode, Exit{Code: 3}) || Restarts(s, Signal, Exit{Signal: 15}) || !Restarts(s, ExitCode, Exit{Code: 15}) {
		t.Error("RestartPreventExitStatus= is not first")
	}
}
