package unit

import (
	"slices"
	"strings"
	"testing"

	"flota/internal/fault"
)

func TestExpandArgs(t *testing.T) {
	tests := []struct{ in, want string }{ // blank-separated
		{"", ""},
		{"web app@1.service", "web app@1.service"},
		{"app@{1..3}", "app@1 app@2 app@3"},
		{"app@{3..1}.service", "app@3.service app@2.service app@1.service"},
		{"app@{8..11}", "app@8 app@9 app@10 app@11"},
		{"app@{08..11}", "app@08 app@09 app@10 app@11"},
		{"app@{5..5}", "app@5"},
		{"app@{2026010199..2026010200}", "app@2026010199 app@2026010200"},
		{"{web,db}.service x", "web.service db.service x"},
		{"{a,b}@{1..2}", "a@1 a@2 b@1 b@2"},
		{"{web@{1..2},db}", "web@1 web@2 db"},
		{"a{,b}", "a ab"},
		{"{a}{b..c}{}", "{a}{b..c}{}"},
		{"x{a{1..2}}", "x{a1} x{a2}"},
		{"a}b,c", "a}b,c"},
		{"{1..}", "{1..}"},
		{"{-1..2}", "{-1..2}"},
	}
	for _, tt := range tests {
		got, err := ExpandArgs(strings.Fields(tt.in))
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("ExpandArgs(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestExpandArgsBounds(t *testing.T) {
	for _, in := range [][]string{{"a@{1..10000}"}, {"a@{9999..0}"}, {"{1..100}{1..100}"}, slices.Repeat([]string{"a"}, 10000)} {
		if got, err := ExpandArgs(in); err != nil || len(got) != 10000 {
			t.Errorf("%.40q: %d names, %v", in, len(got), err)
		}
	}
	tooMany := [][]string{
		{"app@{1..1000000}.service"},
		{"app@{1..10001}"},
		{"app@{0..9223372036854775807}"},
		{"app@{1..99999999999999999999}"},
		{"a", "app@{1..10000}"},
		{"app@{1..10000}", "a"},
		{"{1..1000}{1..1000}{1..1000}{1..1000}{1..1000}{1..1000}{1..1000}"},
		{strings.Repeat("{a,b}", 100)},
		slices.Repeat([]string{"a"}, 10001),
		{strings.Repeat("{", 4097)},
		{strings.Repeat("{", 100) + strings.Repeat("}", 100)},
		{"a{1,2"},
	}
	for _, in := range tooMany {
		got, err := ExpandArgs(in)
		if err == nil || !fault.Is(err, fault.Invalid) {
			t.Errorf("%.40q: %d names, %v", in, len(got), err)
		}
	}
	_, err := ExpandArgs([]string{"app@{1..1000000}.service"})
	if want := `"app@{1..1000000}.service" stands for too many names: the limit is 10000 in one command`; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
}

func TestGlob(t *testing.T) {
	tests := []struct {
		pattern string
		name    Name
		glob    bool
		match   bool
	}{
		{"web@*.service", "web@1.service", true, true},
		{"web@?.service", "web@10.service", true, false},
		{"[wd]*.service", "db.service", true, true},
		{"*", "anything.timer", true, true},
		{"web.service", "web.service", false, true},
		{"web.service", "webs.service", false, false},
		{`a\x2db.service`, `a\x2db.service`, false, true},
		{`a\\x2d*`, `a\x2db.service`, true, true},
		{"[", "a.service", true, false},
		{"", "a.service", false, false},
	}
	for _, tt := range tests {
		if IsGlob(tt.pattern) != tt.glob || MatchGlob(tt.pattern, tt.name) != tt.match {
			t.Errorf("%q %q: glob %v, match %v", tt.pattern, tt.name, IsGlob(tt.pattern), MatchGlob(tt.pattern, tt.name))
		}
	}
}

func FuzzExpandArgs(f *testing.F) {
	for _, s := range []string{"app@{1..3}", "{a,b}{c,d}", "{a,{b,{1..5}}}", "{{{", "{1..1000000000}", "{01..3}x{,}", "}{", "{}"} {
		f.Add(s, "b")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		got, err := ExpandArgs([]string{a, b})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		if len(got) > maxNames || len(got) < 2 {
			t.Fatalf("%q %q: %d names", a, b, len(got))
		}
		if !strings.Contains(a+b, "{") && (got[0] != a || got[1] != b) {
			t.Fatalf("%q %q changed: %q", a, b, got)
		}
	})
}
