package service

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flota/internal/fault"
	"flota/internal/setting"
	"flota/internal/unit"
)

// read parses a unit of the lines; the error is that of either parser.
func read(t testing.TB, name string, lines ...string) (Service, []Note, error) {
	t.Helper()
	f, _, err := unit.Parse(unit.Name(name), []byte(strings.Join(lines, "\n")+"\n"))
	if err != nil {
		return Service{}, nil, err
	}
	return Parse(unit.Name(name), f, goldenHost(name))
}

// mustRead wants a usable unit whose [Service] has ExecStart and the lines.
func mustRead(t testing.TB, lines ...string) (Service, []Note) {
	t.Helper()
	s, notes, err := read(t, "probe.service", append([]string{"[Service]", "ExecStart=/bin/true"}, lines...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s, notes
}

func TestDefaults(t *testing.T) {
	s, notes := mustRead(t)
	if len(notes) > 0 {
		t.Error(notes)
	}
	if s.Type != Simple || s.Restart != RestartNo || s.RestartDelay != 100*time.Millisecond || s.TimeoutStop != 90*time.Second ||
		s.TimeoutAbort != 90*time.Second || s.RuntimeMax != setting.Infinity || s.Kill.Mode != KillControlGroup || s.Kill.Restart != 15 ||
		!s.Kill.SendKILL || !s.GuessMainPID || s.NotifyAccess != NotifyNone || s.OOMPolicy != "stop" || s.StartLimit.Burst != 5 ||
		s.Identity.UMask != 0o22 || s.Identity.Bounding != setting.AllCaps || !s.IO.IgnorePIPE || s.Resources.TasksMax != setting.Unlimited ||
		s.Dirs.State.Mode != 0o755 || s.IO.Input.Kind != "null" {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff(map[string]int{"ExecStart": 1}, s.Keys); diff != "" {
		t.Error(diff)
	}
}

func TestUnitSection(t *testing.T) {
	s, notes, err := read(t, "web@8080.service", "[Unit]", "After=a.service b@%i.service", "After=", "After=c.service noext",
		"PartOf=x.target", "ConditionPathExists=|!/etc/%p", "AssertPathExists=/a", "ConditionHost= ! vm", "ConditionPathExists=rel",
		"StartLimitIntervalSec=1min", "StartLimitBurst=0", "Documentation=man:x", "Bogus=1", "[Service]", "ExecStart=/bin/true",
		"[Install]", "WantedBy=multi-user.target", "Alias=w@%i.service", "[X-Vendor]", "A=1", "[Bogus]", "A=1", "B=2", "[X-Flota]", "Exclusive=yes", "Memory=64M")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Deps{After: []string{"a.service", "b@8080.service", "c.service"}, PartOf: []string{"x.target"}}, s.Deps); diff != "" {
		t.Error(diff)
	}
	want := []Condition{{Kind: "PathExists", Trigger: true, Negate: true, Value: "/etc/web"}, {Kind: "PathExists", Assert: true, Value: "/a"}, {Kind: "Host", Negate: true, Value: "vm"}}
	if diff := cmp.Diff(want, s.Conditions); diff != "" {
		t.Error(diff)
	}
	if s.StartLimit.Interval != time.Minute || s.StartLimit.Burst != 0 || !s.Flota.Exclusive || s.Flota.Needs.MemBytes != 64<<20 || s.Install.Alias[0] != "w@8080.service" {
		t.Errorf("%+v %+v %+v", s.StartLimit, s.Flota, s.Install)
	}
	var got []string
	for _, n := range notes {
		got = append(got, string(n.Class)+" "+n.Section+" "+n.Key)
	}
	if diff := cmp.Diff([]string{"ignored-bad-value Unit After", "ignored-bad-value Unit ConditionPathExists", "unknown Unit Bogus", "unknown Bogus "}, got); diff != "" {
		t.Error(diff)
	}
}

func TestConditionReset(t *testing.T) {
	s, _, err := read(t, "probe.service", "[Unit]", "ConditionPathExists=/a", "AssertPathExists=/b", "ConditionHost=", "[Service]", "ExecStart=/bin/true")
	if diff := cmp.Diff([]Condition{{Kind: "PathExists", Assert: true, Value: "/b"}}, s.Conditions); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestCommandsOfService(t *testing.T) {
	s, _ := mustRead(t, "ExecReload=-/bin/kill -HUP $MAINPID", "ExecStartPre=!/bin/a", "ExecStartPre=+/bin/b %p")
	want := []Command{{Path: "/bin/a", Argv: []string{"/bin/a"}, Privilege: PrivilegeUser}, {Path: "/bin/b", Argv: []string{"/bin/b", "probe"}, Privilege: PrivilegeFull}}
	if diff := cmp.Diff(want, s.ExecStartPre); diff != "" {
		t.Error(diff)
	}
	if c := s.ExecReload[0]; !c.IgnoreFailure || c.Argv[2] != "$MAINPID" {
		t.Errorf("%+v", c)
	}
}

// TestFilters: the first assignment decides between allowing and denying.
func TestFilters(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  Filter
	}{
		{[]string{"SystemCallFilter=@system-service", "SystemCallFilter=~@privileged:EPERM"}, Filter{Set: true,
			Rules: []FilterRule{{Name: "@default"}, {Name: "@system-service"}, {Name: "@privileged:EPERM", Remove: true}}}},
		{[]string{"SystemCallFilter=~@mount bad!", "SystemCallFilter=umount"}, Filter{Set: true, Deny: true, Rules: []FilterRule{{Name: "@mount"}, {Name: "umount", Remove: true}}}},
		{[]string{"SystemCallFilter=read", "SystemCallFilter="}, Filter{}},
	} {
		s, _ := mustRead(t, c.lines...)
		if diff := cmp.Diff(c.want, s.Sandbox.SystemCalls); diff != "" {
			t.Errorf("%q: %s", c.lines, diff)
		}
	}
	s, _ := mustRead(t, "RestrictAddressFamilies=AF_UNIX AF_INET", "RestrictAddressFamilies=~AF_INET", "SystemCallArchitectures=native bogus")
	want := Filter{Set: true, Rules: []FilterRule{{Name: "AF_UNIX"}, {Name: "AF_INET"}, {Name: "AF_INET", Remove: true}}}
	if diff := cmp.Diff(want, s.Sandbox.Families) + cmp.Diff([]string{"native"}, s.Sandbox.SystemCallArchs); diff != "" {
		t.Error(diff)
	}
	if s, _ := mustRead(t, "RestrictAddressFamilies=none"); !s.Sandbox.Families.Set || s.Sandbox.Families.Rules != nil {
		t.Errorf("none: %+v", s.Sandbox.Families)
	}
}

func TestRest(t *testing.T) {
	s, _ := mustRead(t, "SuccessExitStatus=1 SIGKILL", "SuccessExitStatus=TEMPFAIL 999", "StandardInputText=a\\tb %p", "StandardInputData=Yw==",
		"CPUSchedulingPolicy=rr", "CPUAffinity=0-1 3", "CPUAffinity=1,2", "IOSchedulingClass=idle", "SyslogIdentifier=%p", "WorkingDirectory=-~",
		"CPUQuota=20%", "CPUQuotaPerSec=1", "RestartPreventExitStatus=255", "PrivateMounts=yes", "IPAddressDeny=any", "LoadCredential=a:b", "MountFlags=")
	if diff := cmp.Diff([]int{1, 75}, s.Success.Codes) + cmp.Diff([]int{0, 1, 2, 3}, s.Resources.CPUAffinity); diff != "" {
		t.Error(diff)
	}
	if string(s.IO.InData) != "a\tb probe\nc" || s.Resources.CPUPriority != 1 || s.IO.SyslogID != "probe" || s.Dirs.Working != "~" ||
		!s.Dirs.WorkingOptional || s.Resources.CPUQuota != 20 || !s.RestartNever.HasCode(255) || s.Keys["LoadCredential"] != 1 || s.Keys["CPUAffinity"] != 2 {
		t.Errorf("%q %+v %+v", s.IO.InData, s.Resources, s.Dirs)
	}
}

func TestErrorsName(t *testing.T) {
	_, _, err := read(t, "probe.service", "[Service]", "ExecStart=./rel")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `probe.service: [Service] ExecStart=: "./rel"`) {
		t.Errorf("%v", err)
	}
	if _, _, err := read(t, "probe.service", "[Service]", "ExecStart=/bin/true", "[X-Flota]", "Exclusive=maybe"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a bad Exclusive= gives %v", err)
	}
}

// TestClasses: every key that is read has one class, and no key has two.
func TestClasses(t *testing.T) {
	for _, key := range Keys() {
		if Class(key) == Unknown {
			t.Errorf("%s has no class", key)
		}
	}
	seen := map[string]KeyClass{}
	for class, keys := range classes {
		for key := range keys {
			if other, twice := seen[key]; twice {
				t.Errorf("%s is %s and %s", key, class, other)
			}
			seen[key] = class
		}
	}
	for key, want := range map[string]KeyClass{"PrivateTmp": Restricting, "ReadWriteDirectories": Granting, "LimitNOFILE": Limiting,
		"Nice": Tuning, "RootImage": Restricting, "Bogus": Unknown, "LimitBOGUS": Unknown} {
		if got := Class(key); got != want {
			t.Errorf("Class(%q) = %s, want %s", key, got, want)
		}
	}
}

// TestJSON: a service survives being sent.
func TestJSON(t *testing.T) {
	s, _ := mustRead(t, "SuccessExitStatus=1", "LimitNOFILE=1:infinity", "CapabilityBoundingSet=~CAP_KILL", "TimeoutStopSec=infinity", "SystemCallFilter=read")
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Service
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseService(f *testing.F) {
	for _, g := range readGolden(f, "testdata/unitfile-golden.jsonl") {
		f.Add(g.Unit)
	}
	f.Add("[Service]\nExecStart=/bin/true\nSystemCallFilter=~a:b\nRestrictNamespaces=~user\nDeviceAllow=char-x r\nBindPaths=a:b:c:d\nCPUAffinity=0-8191")
	f.Fuzz(func(t *testing.T, text string) {
		const name = "p-q@a\\x2db.service"
		file, _, err := unit.Parse(name, []byte(text))
		if err != nil {
			return
		}
		s, _, err := Parse(name, file, goldenHost(name))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: kind %q", text, fault.KindOf(err))
			}
			return
		}
		again, _, err := Parse(name, unit.File{Options: file.Options}, goldenHost(name))
		if diff := cmp.Diff(s, again); diff != "" || err != nil {
			t.Errorf("%q: parsing twice differs (%v): %s", text, err, diff)
		}
		dump(s)
	})
}
