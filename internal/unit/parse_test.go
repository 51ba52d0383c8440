package unit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flota/internal/fault"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// svc makes options of [Service] from key, value pairs.
func svc(pairs ...string) []Option {
	var opts []Option
	for i := 0; i < len(pairs); i += 2 {
		opts = append(opts, Option{"Service", pairs[i], pairs[i+1]})
	}
	return opts
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Option
		warnings   []string
	}{
		{"empty", "", nil, nil},
		{"plain", "[Unit]\nDescription=a\n\n[Service]\nExecStart=/bin/x\n",
			[]Option{{"Unit", "Description", "a"}, {"Service", "ExecStart", "/bin/x"}}, nil},
		{"no newline at the end", "[Service]\nA=b", svc("A", "b"), nil},
		{"BOM", "\uFEFF[Service]\nA=b\n", svc("A", "b"), nil},
		{"BOM only at the start", "[Service]\n\uFEFFA=b\n", svc("\uFEFFA", "b"), nil},
		{"CRLF", "[Service]\r\nA=b \\\r\nc\r\nB=d\r\n", svc("A", "b \\\nc", "B", "d"), nil},
		{"CR alone ends a line", "[Service]\rA=b\r\rB=c", svc("A", "b", "B", "c"), nil},
		{"blanks around", "  [Service]\t\n \tA\t = \t b  c \t\n", svc("A", "b  c"), nil},
		{"other white space is text", "[Service]\nA=\vb\u00a0\n", svc("A", "\vb\u00a0"), nil},
		{"first = splits", "[Service]\nA=b=c==\n", svc("A", "b=c=="), nil},
		{"empty value", "[Service]\nA=\nB= \t\n", svc("A", "", "B", ""), nil},
		{"comments", "# a\n;b\n[Service]\n  # c=d\nA=b # no comment\n\t;e=f\n", svc("A", "b # no comment"), nil},
		{"keys are case-sensitive and not checked", "[Service]\nexecstart=/bin/x\n", svc("execstart", "/bin/x"), nil},
		{"section comes back", "[Service]\nA=1\n[Unit]\nB=2\n[Service]\nC=3\n",
			[]Option{{"Service", "A", "1"}, {"Service", "C", "3"}, {"Unit", "B", "2"}}, nil},
		{"section twice in a row", "[Service]\nA=1\n[Service]\nA=2\n", svc("A", "1", "A", "2"), nil},

		{"continuation keeps leading blanks", "[Service]\nA=a \\\n   b\nB=c\n", svc("A", "a \\\n   b", "B", "c"), nil},
		{"three lines", "[Service]\nA=a\\\nb\\\nc\n", svc("A", "a\\\nb\\\nc"), nil},
		{"even backslashes do not continue", "[Service]\nA=a\\\\\nB=c\n", svc("A", `a\\`, "B", "c"), nil},
		{"three backslashes continue", "[Service]\nA=a\\\\\\\nb\n", svc("A", "a\\\\\\\nb"), nil},
		{"backslash and blank does not continue", "[Service]\nA=a\\ \nB=c\n", svc("A", `a\ `, "B", "c"), nil},
		{"comment inside a continuation", "[Service]\nA=a \\\n# c \\\n ; d\nb\nB=e\n", svc("A", "a \\\nb", "B", "e"), nil},
		{"blank line ends a continuation", "[Service]\nA=a \\\n\nB=c\n", svc("A", "a", "B", "c"), nil},
		{"blanks end a continuation", "[Service]\nA=a \\\n \t\nB=c\n", svc("A", "a", "B", "c"), nil},
		{"only a comment after a continuation", "[Service]\nA=a \\\n# c\nB=d\n", svc("A", "a \\\nB=d"), nil},
		{"end of file in a continuation", "[Service]\nA=a \\", svc("A", "a"), nil},
		{"end of file after a comment in one", "[Service]\nA=a \\\n#", svc("A", "a"), nil},
		{"backslash kept before a continuation that ends", "[Service]\nA=a\\ \\\n\nB=c\n", svc("A", `a\ `, "B", "c"), nil},
		{"value starts on the next line", "[Service]\nA=\\\n  /bin/x\n", svc("A", "\\\n  /bin/x"), nil},
		{"empty line in the middle", "[Service]\nA=a\\\n\\\nb\n", svc("A", "a\\\n\\\nb"), nil},
		{"continued key", "[Service]\nEx\\\nec=a\\\nb\n", svc("Ex ec", "a\\\nb"), nil},
		{"continued header", "[Serv\\\nice]\nA=b\n", []Option{{"Serv ice", "A", "b"}}, []string{"line 1: unknown section [Serv ice], ignoring it"}},
		{"header after an empty continuation", "\\\n[Service]\nA=b\n", svc("A", "b"), nil},
		{"comment sign continued into a value", "[Service]\nA=\\\nb\\\n  c#d\n", svc("A", "\\\nb\\\n  c#d"), nil},

		{"before any section", "A=b\n[Service]\nB=c\n", svc("B", "c"), []string{"line 1: A= stands before the first section, ignoring it"}},
		{"no =", "[Service]\nhello\nA=b\n", svc("A", "b"), []string{`line 2: no "=" in "hello", ignoring the line`}},
		{"no key", "[Service]\n\n =x\n", nil, []string{`line 3: no key before "=", ignoring the line`}},
		{"line of a continued statement", "[Service]\n\nfoo\\\nbar\n", nil, []string{`line 3: no "=" in "foo", ignoring the line`}},
		{"unknown section", "[Service]\nA=b\n[Foo]\nC=d\n[X-Foo]\nE=f\n",
			[]Option{{"Service", "A", "b"}, {"Foo", "C", "d"}, {"X-Foo", "E", "f"}}, []string{"line 3: unknown section [Foo], ignoring it"}},
		{"section of another kind", "[Timer]\nA=b\n", []Option{{"Timer", "A", "b"}}, []string{"line 1: unknown section [Timer], ignoring it"}},
		{"empty section name", "[]\nA=b\n[Service]\nA=c\n", svc("A", "c"), []string{`line 1: "" is not a section name, ignoring the section`}},
		{"bracket in section name", "[a]b]\nA=b\nnonsense\n", nil, []string{`line 1: "a]b" is not a section name, ignoring the section`}},
		{"unknown fleet and flota keys", "[X-Fleet]\nFoo=1\nGlobal=true\n[X-Flota]\nexclusive=1\nCPU=1\n",
			[]Option{{"X-Fleet", "Foo", "1"}, {"X-Fleet", "Global", "true"}, {"X-Flota", "exclusive", "1"}, {"X-Flota", "CPU", "1"}},
			[]string{"line 2: unknown key Foo= in section [X-Fleet], ignoring it", "line 5: unknown key exclusive= in section [X-Flota], ignoring it"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, warnings, err := Parse("a.service", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, f.Options); diff != "" {
				t.Error(diff)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(tt.warnings, got); diff != "" {
				t.Error(diff)
			}
			checkStable(t, f)
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"[Service]\nA=b\n[Install\nWantedBy=x\n", `a.service:3: section header "[Install" does not end in "]"`},
		{"[", `a.service:1: section header "[" does not end in "]"`},
		{"\n[Unit] # comment\n", `a.service:2: section header "[Unit] # comment" does not end in "]"`},
		{"[Service]\nA=b\x00c\n", "a.service:2: NUL byte in the line"},
		{"[Service]\n# \x00\n", "a.service:2: NUL byte in the line"},
		{"[Service]\n\nA=\xff\n", "a.service:3: the line is not valid UTF-8"},
		{strings.Repeat("x", MaxText+1), "a.service: the unit file is 1048577 bytes, the limit is 1048576 (1 MiB)"},
		{"[Service]\n" + strings.Repeat("A=b\n", 100_000), "a.service: the unit takes 4500002 bytes in the store, the limit is 1048576 (1 MiB)"},
	}
	for _, tt := range tests {
		_, _, err := Parse("a.service", []byte(tt.text))
		if err == nil || err.Error() != tt.want || !fault.Is(err, fault.Invalid) {
			t.Errorf("Parse(%.40q) error %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestParseKnownSections(t *testing.T) {
	text := "[Unit]\nA=1\n[Install]\nA=1\n[Service]\nA=1\n[Container]\nA=1\n[Quadlet]\nA=1\n[Timer]\nA=1\n[X-Foo]\nA=1\n"
	for name, unknown := range map[Name]string{
		"a.service":   "Container Quadlet Timer",
		"a.container": "Timer",
		"a.timer":     "Service Container Quadlet",
	} {
		_, warnings, err := Parse(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range warnings {
			_, rest, _ := strings.Cut(w.Text, "[")
			section, _, _ := strings.Cut(rest, "]")
			got = append(got, section)
		}
		if strings.Join(got, " ") != unknown {
			t.Errorf("%s: unknown sections %q, want %q", name, got, unknown)
		}
	}
}

func TestParseWarningsAreBounded(t *testing.T) {
	_, warnings, err := Parse("a.service", []byte("[Service]\n"+strings.Repeat("x\n", 500_000)))
	if err != nil {
		t.Fatal(err)
	}
	if last := warnings[len(warnings)-1].Text; len(warnings) != maxWarnings+1 || last != "and 499900 more warnings" {
		t.Errorf("%d warnings, the last is %q", len(warnings), last)
	}
}

func TestParseLongLine(t *testing.T) {
	value := strings.Repeat("x", 1_000_000) // fleet stopped at 2048
	f, _, err := Parse("a.service", []byte("[Service]\nA="+value+"\n"))
	if err != nil || len(f.Options) != 1 || f.Options[0].Value != value {
		t.Fatalf("%d options, %v", len(f.Options), err)
	}
	checkStable(t, f)
}

// BenchmarkParseReopened is the worst a unit can do to grouped: every other section is one seen before.
func BenchmarkParseReopened(b *testing.B) {
	var text strings.Builder
	for i := range 7_000 {
		fmt.Fprintf(&text, "[%d]\nA=\n[Z]\nA=\n", i)
	}
	for b.Loop() {
		if _, _, err := Parse("a.service", []byte(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}

// checkStable checks the promise of Parse: what it gives prints to a text that parses to the same, and passes
// for options from outside.
func checkStable(t interface {
	Helper()
	Fatalf(string, ...any)
}, f File) {
	t.Helper()
	again, _, err := Parse("a.service", []byte(f.Text()))
	if err != nil {
		t.Fatalf("parse of the printed text: %v\n%q", err, f.Text())
	}
	if diff := cmp.Diff(f.Options, again.Options); diff != "" {
		t.Fatalf("printed and parsed again: %s", diff)
	}
	if f.Hash() != again.Hash() || f.Text() != again.Text() {
		t.Fatalf("hash or text changed: %q, %q", f.Text(), again.Text())
	}
	if err := CheckOptions("a.service", f.Options); err != nil {
		t.Fatalf("CheckOptions refuses what Parse gave: %v", err)
	}
	body, err := json.Marshal(f.Options)
	if err != nil || len(f.Options) > 0 && len(body)+1 != storedSize(f.Options) {
		t.Fatalf("stored size %d, JSON %d, %v", storedSize(f.Options), len(body), err)
	}
	var back []Option
	if err := json.Unmarshal(body, &back); err != nil || !cmp.Equal(back, f.Options) {
		t.Fatalf("JSON and back: %v %q", err, back)
	}
}

func TestParseProperties(t *testing.T) {
	line := rapid.SampledFrom([]string{"[Service]", "[Unit]", "[X-Fleet]", "A=b", "A=", " B = c \\", "\\", "\\\\", "\\\\\\", "# c",
		"; d \\", "", "  ", "e f", "=g", "A=h\\ ", "\tA=i\\\\\\", "[", "[]", "A=\u2028<>&\"\x01", "[a]b]", "x\\", "\uFEFFA=j"})
	eol := rapid.SampledFrom([]string{"\n", "\r\n", "\n", "\r", "\n\r"})
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		for range rapid.IntRange(0, 30).Draw(t, "lines") {
			text.WriteString(line.Draw(t, "line") + eol.Draw(t, "eol"))
		}
		f, _, err := Parse("a.service", []byte(text.String()))
		if err == nil {
			checkStable(t, f)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "[Service]\nA=b\n", "\uFEFF[Unit]\r\nA=b \\\r\n# c\r\n d\r\n", "[S]\nA=\\\n\\\n \\ \n", "[S\\\nT]\nA\\\nB=c\\\\\\\n\n",
		"A=b\n[S]\n=x\ny\n[S]\n[T]\nA=1\n[S]\nA=2", "[S]\nA=b\\ \n", "[]]\nA=b", "[S]\nA=\xe2\x80\xa8<\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, warnings, err := Parse("a.service", text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		for _, w := range warnings {
			if w.Line < 1 || w.Text == "" {
				t.Fatalf("warning %v", w)
			}
		}
		checkStable(t, file)
		_ = Validate("a@b.service", file) // must not panic
		_ = file.Unknown()
	})
}

// example is a unit of about 1 KB.
var example = func() []byte {
	var b strings.Builder
	b.WriteString("[Unit]\nDescription=A web server that answers\nAfter=network-online.target\n\n[Service]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "Environment=VARIABLE_%d=\"some value of ordinary length %d\"\n", i, i)
	}
	b.WriteString("ExecStart=/usr/bin/server --listen 127.0.0.1:8080 \\\n    --root /srv/www\nRestart=on-failure\n\n[X-Fleet]\nConflicts=web@*.service\n")
	return []byte(b.String())
}()

func BenchmarkParse(b *testing.B) {
	b.SetBytes(int64(len(example)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse("web@1.service", example); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	f, _, err := Parse("web@1.service", example)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(example)))
	b.ReportAllocs()
	for b.Loop() {
		f.Hash()
	}
}

func BenchmarkValidate(b *testing.B) {
	f, _, err := Parse("web@1.service", example)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate("web@1.service", f); err != nil {
			b.Fatal(err)
		}
	}
}
