package setting

import (
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"flota/internal/fault"
)

func TestSpan(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90": 90 * time.Second, "5 10": 15 * time.Second, "1.5h": 90 * time.Minute, "2 h 3": 2*time.Hour + 3*time.Second,
		"1h 1h": 2 * time.Hour, "1min 30s": 90 * time.Second, "infinity": Infinity, "0": 0, "500ms": 500 * time.Millisecond,
		"1M": month, "1y": year, "2w": 14 * day, "1us": time.Microsecond, "1µs": time.Microsecond, ".5": time.Second / 2,
		"+3": 3 * time.Second, "5s6": 11 * time.Second, "1000y": Infinity, "12.34s.56": 12900 * time.Millisecond,
	} {
		if got, err := Span(in); got != want || err != nil {
			t.Errorf("Span(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", " ", "-1", "1e3", "1,5s", "10ns", "abc", "5.", "1..5", "Infinity", "infinity 1", "++3", "9223372036854775807"} {
		if got, err := Span(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("Span(%q) = %v, %v, want invalid", in, got, err)
		}
	}
	if got, _ := SpanIn("7", time.Microsecond); got != 7*time.Microsecond {
		t.Errorf("7 in microseconds is %v", got)
	}
}

// TestPrintSpan: what is printed reads back as the same span.
func TestPrintSpan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(290*year/time.Microsecond)).Draw(t, "us")) * time.Microsecond
		if back, err := Span(PrintSpan(d)); err != nil || back != d {
			t.Fatalf("%v prints %q, reads %v (%v)", int64(d), PrintSpan(d), int64(back), err)
		}
	})
	for want, d := range map[string]time.Duration{"1min 30s": 90 * time.Second, "1.500000s": 1500 * time.Millisecond,
		"500ms": 500 * time.Millisecond, "0": 0, "infinity": Infinity, "1.500ms": 1500 * time.Microsecond} {
		if got := PrintSpan(d); got != want {
			t.Errorf("PrintSpan(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{
		"1024": 1024, "1K": 1024, "1.5G": 1610612736, "512 M": 512 << 20, "1G 500M": 1<<30 + 500<<20, "2E": 2 << 60,
		"0.5K": 512, "1B": 1, "infinity": Unlimited, "0": 0, "8E": Unlimited, "1.": 1,
	} {
		if got, err := Size(in); got != want || err != nil {
			t.Errorf("Size(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "1g", "1GB", "1Gi", "1e3", "-1", "50%", "1M 1G", "1K 1K", "16E", "18446744073709551615", ".5K"} {
		if got, err := Size(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("Size(%q) = %d, %v, want invalid", in, got, err)
		}
	}
}

func TestShares(t *testing.T) {
	for in, want := range map[string]float64{"150%": 150, "0.5%": 0.5, "0%": 0, "33.33%": 33.33, "15.5‰": 1.55, "155‱": 1.55} {
		if got, err := Percent(in); math.Abs(got-want) > 1e-9 || err != nil {
			t.Errorf("Percent(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"20", "-5%", "%", "1.234%", "5.%", ".5%", "1 %", ""} {
		if got, err := Percent(in); err == nil {
			t.Errorf("Percent(%q) = %v, want an error", in, got)
		}
	}
	if a, err := MemoryAmount("50%"); err != nil || a.Of(1000) != 500 || a.Of(0) != Unlimited {
		t.Errorf("50%% is %+v, %v", a, err)
	}
	if a, err := MemoryAmount("33.33%"); err != nil || a.Of(math.MaxInt64/2) <= 0 {
		t.Errorf("33.33%% is %+v, %v", a, err)
	}
	for _, in := range []string{"150%", "1g", ""} {
		if _, err := MemoryAmount(in); err == nil {
			t.Errorf("MemoryAmount(%q) is taken", in)
		}
	}
	if a, err := TasksAmount("10%"); err != nil || a.Of(32767) != 3276 {
		t.Errorf("10%% of 32767 tasks is %d, %v", a.Of(32767), err)
	}
	for _, in := range []string{"0", "1.5", "-1", "1K", "", "101%"} {
		if _, err := TasksAmount(in); err == nil {
			t.Errorf("TasksAmount(%q) is taken", in)
		}
	}
}

func TestBoolModeInt(t *testing.T) {
	for in, want := range map[string]bool{"1": true, "YES": true, "y": true, "True": true, "t": true, "on": true,
		"0": false, "no": false, "N": false, "false": false, "f": false, "off": false} {
		if got, err := Bool(in); got != want || err != nil {
			t.Errorf("Bool(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "maybe", "2", " 1"} {
		if _, err := Bool(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("Bool(%q): %v", in, err)
		}
	}
	for in, want := range map[string]uint32{"0": 0, "022": 0o22, "2755": 0o2755, "7777": 0o7777} {
		if got, err := Mode(in); got != want || err != nil {
			t.Errorf("Mode(%q) = %o, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "8", "77777", "-1", "0x1"} {
		if _, err := Mode(in); err == nil {
			t.Errorf("Mode(%q) is taken", in)
		}
	}
	for in, want := range map[string]int{"5": 5, "+5": 5, "-5": -5, "0x10": 16, "010": 8, "0": 0} {
		if got, err := Int(in); got != want || err != nil {
			t.Errorf("Int(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-", "+", "++5", "-+5", "08", "1_0", "0b1", "0x", "99999999999999999999"} {
		if got, err := Int(in); err == nil {
			t.Errorf("Int(%q) = %d", in, got)
		}
	}
}

func TestSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{"SIGINT": 2, "INT": 2, "2": 2, "SIGRTMIN+1": 35, "RTMIN": 34, "SIGRTMAX-1": 63, "64": 64} {
		if got, err := Signal(in); got != want || err != nil {
			t.Errorf("Signal(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "sigint", "SIGFOO", "0", "65", "SIG9", "SIGRTMIN+31", "SIGRTMIN-1", "SIGRTMAX+1", "09"} {
		if got, err := Signal(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("Signal(%q) = %d, %v", in, got, err)
		}
	}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if got, err := Signal(SignalName(sig)); got != sig || err != nil {
			t.Errorf("%d is called %q, which is %d, %v", sig, SignalName(sig), got, err)
		}
	}
}

func TestExits(t *testing.T) {
	var e Exits
	for _, w := range []string{"1", "TEMPFAIL", "SIGKILL", "1", "0"} {
		if err := e.Add(w); err != nil {
			t.Error(err)
		}
	}
	for _, w := range []string{"256", "FOO", ""} {
		if e.Add(w) == nil {
			t.Errorf("%q is taken", w)
		}
	}
	want := Exits{Codes: []int{0, 1, 75}, Signals: []syscall.Signal{syscall.SIGKILL}}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if !e.HasCode(75) || e.HasCode(2) || !e.HasSignal(9) || e.HasSignal(15) || ExitName(203) != "EXEC" || ExitName(99) != "" {
		t.Error("lookups are wrong")
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		resource, in string
		want         Limit
	}{
		{"NOFILE", "4096", Limit{4096, 4096}}, {"NOFILE", "1:2", Limit{1, 2}}, {"NOFILE", "infinity", Limit{LimitInfinity, LimitInfinity}},
		{"AS", "8M:16M", Limit{8 << 20, 16 << 20}}, {"CPU", "1min 30s", Limit{90, 90}}, {"CPU", "1ms", Limit{1, 1}}, {"CPU", "0", Limit{0, 0}},
		{"CPU", "60:infinity", Limit{60, LimitInfinity}}, {"RTTIME", "5", Limit{5, 5}}, {"NICE", "+5", Limit{15, 15}}, {"NICE", "-5", Limit{25, 25}},
	} {
		if got, err := ParseLimit(c.resource, c.in); got != c.want || err != nil {
			t.Errorf("Limit%s=%s is %v, %v", c.resource, c.in, got, err)
		}
	}
	for _, bad := range [][2]string{{"NOFILE", "1K"}, {"NOFILE", "2:1"}, {"NOFILE", ""}, {"NOFILE", "1:2:3"}, {"NICE", "+20"}, {"NICE", "41"}, {"FOO", "1"}} {
		if got, err := ParseLimit(bad[0], bad[1]); !fault.Is(err, fault.Invalid) {
			t.Errorf("Limit%s=%s is %v, %v", bad[0], bad[1], got, err)
		}
	}
	if n, ok := LimitNumber("NOFILE"); n != 7 || !ok {
		t.Errorf("NOFILE has number %d", n)
	}
}

func TestMergeCaps(t *testing.T) {
	for _, c := range []struct {
		lines   []string
		initial Caps
		want    string
	}{
		{[]string{"CAP_NET_BIND_SERVICE CAP_CHOWN"}, AllCaps, "cap_chown cap_net_bind_service"},
		{[]string{""}, AllCaps, ""}, {[]string{"NET_RAW"}, AllCaps, ""}, {[]string{"cap_net_raw"}, AllCaps, "cap_net_raw"},
		{[]string{"CAP_CHOWN", "CAP_KILL"}, AllCaps, "cap_chown cap_kill"},
		{[]string{"CAP_CHOWN CAP_KILL", "~CAP_KILL"}, AllCaps, "cap_chown"}, {[]string{"~"}, AllCaps, AllCaps.String()},
		{[]string{"~CAP_KILL"}, 0, (AllCaps &^ (1 << 5)).String()}, {[]string{"CAP_KILL", ""}, 0, ""},
	} {
		caps := c.initial
		for _, line := range c.lines {
			caps, _ = MergeCaps(caps, c.initial, line)
		}
		if caps.String() != c.want {
			t.Errorf("%q: %s, want %s", c.lines, caps, c.want)
		}
	}
}

func FuzzSpan(f *testing.F) {
	for _, s := range []string{"1min 30s", "1.5h", "infinity", "5 10", "999999999999999999y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Span(s)
		if err == nil && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
		if err == nil && d != Infinity {
			if back, err := Span(PrintSpan(d)); err != nil || back != d {
				t.Errorf("%q is %d, prints %q, reads %d (%v)", s, d, PrintSpan(d), back, err)
			}
		}
	})
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"1.5G", "50%", "1G 500M", "infinity", "10:20", "8191P 1T", "0-3,5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Size(s); err == nil && n < 0 {
			t.Errorf("%q is %d", s, n)
		}
		if a, err := MemoryAmount(s); err == nil && a.Of(1<<40) < 0 {
			t.Errorf("%q is %+v", s, a)
		}
		_, _ = TasksAmount(s)
		_, _ = Percent(s)
		_, _ = Mode(s)
		_, _ = Signal(s)
		_, _ = CPUs(s)
		for r := range limitKinds {
			if l, err := ParseLimit(r, s); err == nil && l.Soft > l.Hard {
				t.Errorf("Limit%s=%s is %v", r, s, l)
			}
		}
	})
}
