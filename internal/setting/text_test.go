package setting

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"flota/internal/fault"
)

func TestEnvFile(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
		bad  []string
	}{
		{"A=1\nB=2\n", []string{"A=1", "B=2"}, nil}, {"# c\n; d\n  # e\nA=1", []string{"A=1"}, nil},
		{"A=a b  \nB=\n", []string{"A=a b", "B="}, nil}, {"A=a\\ \n", []string{"A=a "}, nil}, {"A=a\\\nb\n", []string{"A=ab"}, nil},
		{"A='x\ny' z\n", []string{"A=x\nyz"}, nil}, {`A="a\"b\$c\d"`, []string{`A=a"b$c\d`}, nil}, {"A=\"a\\\nb\"", []string{"A=ab"}, nil},
		{`A=a"b"`, []string{`A=a"b"`}, nil}, {`A="a"b 'c'`, []string{`A=ab 'c'`}, nil}, {"export A=1\nB=1", []string{"B=1"}, []string{"export A"}},
		{"A=1\nA=2", []string{"A=2"}, nil}, {"junk\nA=1", []string{"A=1"}, nil}, {" A = 1", []string{"A=1"}, nil}, {"A=$B %i", []string{"A=$B %i"}, nil},
		{"A='unclosed\n", []string{"A=unclosed\n"}, nil}, {"1A=x", nil, []string{"1A"}}, {"A=x # y", []string{"A=x # y"}, nil}, {"A=1\r\nB=2\r\n", []string{"A=1", "B=2"}, nil},
		{"# c \\\nA=1\nB=2", []string{"B=2"}, nil},
	} {
		env, bad := EnvFile(c.in)
		if diff := cmp.Diff(c.want, env) + cmp.Diff(c.bad, bad); diff != "" {
			t.Errorf("%q: %s", c.in, diff)
		}
	}
}

func TestSubstitute(t *testing.T) {
	env := []string{"FOO=BAR BAR", "BAR=waldo", "Q=a 'b c' d\\ e", "EMPTY="}
	lookup := func(name string) (string, bool) { return LookupEnv(env, name) }
	for _, c := range []struct{ in, want []string }{
		{[]string{"x", "FOO${FOO}$FOO"}, []string{"x", "FOOBAR BAR$FOO"}}, {[]string{"$$FOO${FOO}"}, []string{"$FOOBAR BAR"}},
		{[]string{"${FOO:-${BAR}}"}, []string{"${FOO:-waldo}"}}, {[]string{"$FOO"}, []string{"BAR", "BAR"}}, {[]string{"$Q"}, []string{"a", "b c", "d e"}},
		{[]string{"$NONE", "$FOO$FOO", "$A-b", "$EMPTY", "$"}, []string{}}, {[]string{"${NONE}", "a${NONE}b"}, []string{"", "ab"}},
		{[]string{"pre$FOO", "${V", "$$", "a$", "a$$b"}, []string{"pre$FOO", "${V", "$", "a$", "a$b"}}, {[]string{"${BAR}${BAR}"}, []string{"waldowaldo"}},
	} {
		if diff := cmp.Diff(c.want, Substitute(c.in, lookup)); diff != "" {
			t.Errorf("%q: %s", c.in, diff)
		}
	}
}

func TestEnv(t *testing.T) {
	env := []string{"A=1", "B=2", "C=3"}
	if diff := cmp.Diff([]string{"B=2"}, UnsetEnv(env, []string{"A", "B=9", "C=3"})); diff != "" {
		t.Error(diff)
	}
	for in, want := range map[string]bool{"A=1": true, "_a1=": true, "1A=x": false, "A": false, "=x": false, "A-B=1": false, "A=\xff": false, "A=a\x00": false, "A=\n": true} {
		if CheckAssignment(in) != want {
			t.Errorf("CheckAssignment(%q) is %v", in, !want)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"/foo//bar/": "-foo--bar-", "hello world": `hello\x20world`, "a-b_c.d:e": `a\x2db_c.d:e`, ".hid": `\x2ehid`, "a/b": "a-b",
		"ü": `\xc3\xbc`, "@": `\x40`, `\`: `\x5c`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"/foo//bar/": "foo-bar", "/dev/sda1": "dev-sda1", "/": "-", "/a/./b": "a-b", "": "-"} {
		if got, err := EscapePath(in); got != want || err != nil {
			t.Errorf("EscapePath(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := EscapePath("/a/../b"); !fault.Is(err, fault.Invalid) {
		t.Error("a path that goes up is taken")
	}
	for _, bad := range []string{`\`, `\y41`, `\x4`, `\xzz`} {
		if _, err := UnescapeName(bad); err == nil {
			t.Errorf("UnescapeName(%q) is taken", bad)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "a--b", "a-..-b"} {
		if p, err := UnescapePath(bad); err == nil {
			t.Errorf("UnescapePath(%q) = %q", bad, p)
		}
	}
}

// TestEscapeBack: every text comes back from its escaped form, and every clean path from its own.
func TestEscapeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))
		if back, err := UnescapeName(Escape(s)); err != nil || back != s {
			t.Fatalf("%q escapes to %q, back %q (%v)", s, Escape(s), back, err)
		}
		parts := rapid.SliceOf(rapid.StringMatching(`[a-z. -]{1,4}`)).Draw(t, "parts")
		p := "/" + strings.Join(parts, "/")
		e, err := EscapePath(p)
		if err != nil {
			return
		}
		if back, err := UnescapePath(e); err != nil || back != CleanPath(p) {
			t.Fatalf("%q escapes to %q, back %q (%v)", p, e, back, err)
		}
	})
}

func TestExpand(t *testing.T) {
	lookup := func(c byte) (string, bool, error) {
		switch c {
		case 'i':
			return "in %n st", true, nil
		case 'x':
			return "", false, errors.New("not here")
		}
		return "", false, nil
	}
	for in, want := range map[string]string{"a%ib": "ain %n stb", "100%% 5%": "100% 5%", "% x": "% x", "a%-b": "a%-b", "%%i": "%i", "": ""} {
		if got, err := Expand(in, lookup); got != want || err != nil {
			t.Errorf("Expand(%q) = %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"%Z", "%5", "%x"} {
		if _, err := Expand(bad, lookup); !fault.Is(err, fault.Invalid) {
			t.Errorf("Expand(%q): %v", bad, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"root", "0", "a b", "ü", "a.b", "%", "4294967294"} {
		if err := CheckUser(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "a:b", "a/b", "-1", "65535", "4294967295", " a", "99999999999"} {
		if CheckUser(bad) == nil {
			t.Errorf("user %q is taken", bad)
		}
	}
	if n, err := Errno("1"); n != "EPERM" || err != nil {
		t.Errorf("error 1 is %q, %v", n, err)
	}
	if cpus, err := CPUs("0-2 5,7"); err != nil || cmp.Diff([]int{0, 1, 2, 5, 7}, cpus) != "" {
		t.Errorf("%v, %v", cpus, err)
	}
	for _, bad := range []string{"3-1", "x", "99999", "-1"} {
		if _, err := CPUs(bad); err == nil {
			t.Errorf("processors %q are taken", bad)
		}
	}
	if d, l, err := DirLink(`a\:b:c\x20d`); d != "a:b" || l != "c d" || err != nil {
		t.Errorf("%q %q %v", d, l, err)
	}
	for in, want := range map[string]bool{"10.0.0.0/8": true, "::1": true, "any": true, "x": false, "fe80::1%eth0": false, "10.0.0.0/33": false} {
		if (CheckPrefix(in) == nil) != want {
			t.Errorf("CheckPrefix(%q) is %v", in, !want)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	for _, s := range []string{"A=1\n#c\nB='x' \"y\"\\\n", "A=\"\\", "export X=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		env, _ := EnvFile(s)
		for _, e := range env {
			if !CheckAssignment(e) {
				t.Errorf("%q gives %q", s, e)
			}
			name, value, _ := strings.Cut(e, "=")
			quoted := name + "='" + strings.ReplaceAll(value, "'", `'"'"'`) + "'\n"
			if again, _ := EnvFile(quoted); len(again) != 1 || again[0] != e {
				t.Errorf("%q gives %q, again %q", s, e, again)
			}
		}
	})
}

func FuzzSpecifier(f *testing.F) {
	for _, s := range []string{"a%ib", "%%", "%", "%Z", "foo-bar\\x2d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		none := func(byte) (string, bool, error) { return "", false, nil }
		if out, err := Expand(strings.ReplaceAll(s, "%", "%%"), none); err != nil || out != s {
			t.Errorf("%q: %q, %v", s, out, err)
		}
		_, _ = Expand(s, none)
		if back, err := UnescapeName(Escape(s)); err != nil || back != s {
			t.Errorf("%q: %q, %v", s, back, err)
		}
		if p, err := UnescapePath(s); err == nil && !strings.HasPrefix(p, "/") {
			t.Errorf("%q is path %q", s, p)
		}
	})
}
