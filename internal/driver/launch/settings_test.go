package launch

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLimits(t *testing.T) {
	r := bench{cmd: "/bin/sh -c 'ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc'", keys: "LimitNOFILE=300:400\nLimitCORE=0"}.run(t)
	r.wants(t, "300\n400\n0\n0")
	// Without LimitNOFILE= the soft limit is systemd's 1024, whatever the Go runtime made of the supervisor's.
	var own unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &own)
	r = bench{cmd: "/bin/sh -c 'ulimit -Sn'"}.run(t)
	if own.Max >= 1024 {
		r.wants(t, "1024")
	}
}

func TestLimitsAboveWhatIsAllowedAreClampedAndNoted(t *testing.T) {
	poor := func(h *Host) { h.Caps &^= 1 << capSysResource }
	r := bench{cmd: "/bin/sh -c 'ulimit -Hn'", keys: "LimitNOFILE=infinity\nOOMScoreAdjust=-999", host: poor}.run(t)
	var own unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &own)
	h := LookHost()
	if r.err != nil || r.out == "unlimited" && own.Max != unix.RLIM_INFINITY {
		t.Errorf("out %q, %v", r.out, r.err)
	}
	notes := strings.Join(r.notes, "\n")
	if !strings.Contains(notes, "LimitNOFILE=: this machine allows no more than ") || !strings.Contains(notes, "OOMScoreAdjust=: ") {
		t.Errorf("notes %q (floor %d)", notes, h.OOMFloor)
	}
}

func TestScheduling(t *testing.T) {
	r := bench{
		cmd:  "/bin/sh -c 'cut -d\" \" -f19,41 /proc/self/stat; cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status'",
		keys: "Nice=7\nCPUSchedulingPolicy=batch\nOOMScoreAdjust=321\nCPUAffinity=0\nIOSchedulingClass=idle",
	}.run(t)
	r.wants(t, "7 3\n321\nCpus_allowed_list:\t0") // 3 is SCHED_BATCH
	poor := func(h *Host) { h.Caps = 0 }
	r = bench{cmd: "/bin/cut -d\" \" -f19,41 /proc/self/stat", keys: "Nice=-5\nCPUSchedulingPolicy=rr\nIOSchedulingClass=realtime", host: poor}.run(t)
	r.wants(t, "0 0")
	if len(r.notes) != 3 {
		t.Errorf("notes %q", r.notes)
	}
}

func TestScoreOfTheSupervisorIsNotInherited(t *testing.T) {
	before, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("100"), 0); err != nil {
		t.Skip(err)
	}
	defer os.WriteFile("/proc/self/oom_score_adj", before, 0)
	bench{cmd: "/bin/cat /proc/self/oom_score_adj"}.run(t).wants(t, "0")
}

func TestStandardStreams(t *testing.T) {
	dir := t.TempDir()
	in, log := filepath.Join(dir, "in"), filepath.Join(dir, "log")
	os.WriteFile(in, []byte("input\n"), 0o644)
	script := `/bin/sh -c 'cat; echo out; echo err >&2'`
	for _, c := range []struct{ keys, out, log string }{
		{"", "out\nerr", "old\n"},
		{"StandardInput=file:" + in, "input\nout\nerr", "old\n"},
		{"StandardInputText=text", "text\nout\nerr", "old\n"},
		{"StandardOutput=null", "", "old\n"}, // stderr inherits
		{"StandardOutput=null\nStandardError=journal", "err", "old\n"},
		{"StandardOutput=append:" + log, "", "old\nout\nerr\n"},
		{"StandardOutput=truncate:" + log, "", "out\nerr\n"},
		{"StandardError=append:" + log, "out", "old\nerr\n"},
	} {
		os.WriteFile(log, []byte("old\n"), 0o644)
		r := bench{cmd: script, keys: c.keys}.run(t)
		text, _ := os.ReadFile(log)
		if r.err != nil || r.out != c.out || string(text) != c.log {
			t.Errorf("%q: out %q, log %q, err %v", c.keys, r.out, text, r.err)
		}
	}
	r := bench{cmd: "/bin/echo x", keys: "StandardOutput=socket"}.run(t)
	r.wants(t, "x")
	if len(r.notes) != 1 {
		t.Errorf("notes %q", r.notes)
	}
}

func TestLogFileBelongsToTheManager(t *testing.T) {
	needRoot(t)
	log := filepath.Join(t.TempDir(), "log")
	bench{cmd: "/bin/echo x", keys: "User=65534\nStandardOutput=append:" + log}.run(t).wants(t, "")
	st, err := os.Stat(log)
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestHonoured(t *testing.T) {
	none, all := Host{}.Honoured(), Host{Root: true, Seccomp: true, UserNS: true, ProcOptions: true}.Honoured()
	for key, want := range map[string][2]bool{
		"UMask": {true, true}, "PrivateTmp": {false, true}, "SystemCallFilter": {false, true}, "PrivateUsers": {false, true},
		"ProtectProc": {false, true}, "RootDirectory": {false, false},
	} {
		if got := [2]bool{none[key], all[key]}; got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
	if _, ours := all["Restart"]; ours {
		t.Error("Restart is not ours")
	}
}

// TestWithoutRootNothingIsTried plans for a machine without rights: every sandbox key that needs them is left out.
func TestWithoutRootNothingIsTried(t *testing.T) {
	keys := "PrivateTmp=yes\nProtectSystem=strict\nPrivateUsers=yes\nCapabilityBoundingSet=\nAmbientCapabilities=CAP_KILL\nRestrictRealtime=yes"
	r := bench{cmd: "/bin/true", keys: keys, host: func(h *Host) { h.Root = false }, spec: func(s *Spec) {
		if s.NewMount || s.Caps != nil || s.NewUser != nil || len(s.Mounts) > 0 || s.User != nil || !s.NoNewPrivs {
			t.Errorf("%+v", s)
		}
	}}.run(t)
	r.wants(t, "")
}

func TestRemoveIPC(t *testing.T) {
	needRoot(t)
	const uid = 64999
	bench{cmd: "/bin/sh -c 'ipcmk -M 4096 >/dev/null; echo x >/dev/shm/flota-probe'", keys: "User=64999"}.run(t).wants(t, "")
	defer os.Remove("/dev/shm/flota-probe")
	if err := RemoveIPC(Identity{Switch: true, UID: uid}); err != nil {
		t.Fatal(err)
	}
	if ids, err := ownedIPC("/proc/sysvipc/shm", uid); len(ids) > 0 || err != nil {
		t.Errorf("left %v, %v", ids, err)
	}
	if _, err := os.Stat("/dev/shm/flota-probe"); err == nil {
		t.Error("the file is left")
	}
}
