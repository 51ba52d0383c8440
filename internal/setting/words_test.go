package setting

import (
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"flota/internal/fault"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{``, nil}, {`  `, nil}, {`a  b`, []string{"a", "b"}}, {"a\tb\n", []string{"a", "b"}},
		{`g"h"i`, []string{"ghi"}}, {`"abc"def`, []string{"abcdef"}}, {`'it''s'`, []string{"its"}},
		{`a'b c'd`, []string{"ab cd"}}, {`"" ''`, []string{"", ""}}, {`"a'b"`, []string{"a'b"}},
		{`\x41\x20z \101 \u00e9 \U0001F600`, []string{"A z", "A", "é", "😀"}},
		{`\s\ss '\t' "\""`, []string{"  s", "\t", `"`}},
		{`e\ f`, []string{`e\ f`}}, {`bad\q`, []string{`bad\q`}}, {`\12 \x4 \0 \x00 \u0000 \400`, []string{`\12`, `\x4`, `\0`, `\x00`, `\u0000`, `\400`}},
		{`\ud800 \U00110000 \U0010FFFF`, []string{`\ud800`, `\U00110000`, `\U0010FFFF`}}, {`a\`, []string{`a\`}}, {`\;x`, []string{`\;x`}},
	} {
		got, err := Words(c.in)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("Words(%q): %v %s", c.in, err, diff)
		}
	}
	for _, bad := range []string{`"`, `'a`, `a "b`, `a\"b"`, `"a\"`} {
		if _, err := Words(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("Words(%q): err %v, want invalid", bad, err)
		}
	}
}

func TestOtherWords(t *testing.T) {
	for _, c := range []struct {
		read func(string) ([]string, error)
		in   string
		want []string // nil: an error
	}{
		{WordsStrict, `a\x41 "b c"`, []string{"aA", "b c"}}, {WordsStrict, `a\q`, nil}, {WordsStrict, `a\`, nil},
		{PlainWords, `a\x41 'b\ c'`, []string{`a\x41`, `b\ c`}}, {PlainWords, `a\ b`, []string{`a\`, "b"}}, {PlainWords, `'`, nil},
		{PathWords, `/a\x20b /c\ d`, []string{"/ax20b", "/c d"}}, {PathWords, `/a\`, nil},
	} {
		got, err := c.read(c.in)
		if diff := cmp.Diff(c.want, got); diff != "" || (err != nil) != (c.want == nil) {
			t.Errorf("%q: %v %s", c.in, err, diff)
		}
	}
}

func TestCommands(t *testing.T) {
	upper := func(s string) (string, error) { return s, nil }
	list, _, err := Commands(`-@:!!/bin//echo zero "a b" \; ; bare ;`, upper)
	want := []Command{
		{Path: "/bin/echo", Argv: []string{"zero", "a b", ";"}, IgnoreFailure: true, NoEnv: true, Privilege: PrivilegeAmbient},
		{Path: "bare", Argv: []string{"bare"}},
	}
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for _, c := range []struct {
		in     string
		ignore bool
	}{{`./x`, false}, {`-./x`, true}, {`/a "`, false}, {`-/a "`, true}, {`"`, true}, {`- /a`, true}, {`@/a`, false}, {`/a/`, false}, {`+!/a`, false}} {
		if _, ignore, err := Commands(c.in, upper); err == nil || ignore != c.ignore {
			t.Errorf("Commands(%q): ignore %v, err %v", c.in, ignore, err)
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, s := range []string{`a "b c" \x41`, `'`, `\`, `e\ f \q`, "\xff\\xff", `"a\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Words(s)
		if strict, serr := WordsStrict(s); serr == nil && (err != nil || cmp.Diff(words, strict) != "") {
			t.Errorf("%q: strict gives %q, relaxed %q (%v)", s, strict, words, err)
		}
		_, _ = PlainWords(s)
		_, _ = PathWords(s)
		if err != nil {
			return
		}
		line := ""
		for _, w := range words { // every byte as an escape reads back as itself
			line += ` "`
			for _, c := range []byte(w) {
				if c == 0 {
					return // cannot be written as an escape
				}
				line += string([]byte{'\\', '0' + c>>6, '0' + c>>3&7, '0' + c&7})
			}
			line += `"`
		}
		again, err := WordsStrict(line)
		if err != nil || cmp.Diff(words, again) != "" {
			t.Errorf("%q: %q, again %q (%v)", s, words, again, err)
		}
	})
}

func FuzzExecLine(f *testing.F) {
	for _, s := range []string{`-@/bin/echo a "b" ; /bin/true \;`, `!!x`, `;;;`, `/a "`, `::/x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, _, _ := Commands(s, func(s string) (string, error) { return s, nil })
		for _, c := range list {
			if c.Path == "" || len(c.Argv) == 0 {
				t.Errorf("%q: empty command %+v", s, c)
			}
			words := Substitute(c.Argv, func(string) (string, bool) { return "a b", true })
			if utf8.ValidString(s) && len(words) < len(c.Argv) {
				t.Errorf("%q: words lost: %q", s, words)
			}
		}
	})
}
