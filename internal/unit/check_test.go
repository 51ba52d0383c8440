package unit

import (
	"strings"
	"testing"

	"flota/internal/fault"

	"pgregory.net/rapid"
)

func TestCheckOptions(t *testing.T) {
	tests := []struct {
		o    Option
		want string // "" for accepted
	}{
		{Option{"Service", "A", "b"}, ""},
		{Option{"Service", "A", ""}, ""},
		{Option{"Service", "A", " b "}, ""},
		{Option{"X-Anything", "Any Key", "#b"}, ""},
		{Option{"Service", "A", "b \\\n  c"}, ""},
		{Option{"Service", "A", "b \\\n# comment\\\n  c"}, ""},
		{Option{"Service", "A", `b\ `}, ""},
		{Option{"Service", "A", "b\\\n\\\nc"}, ""},
		{Option{"", "A", "b"}, "a.service: [] A=: the section is empty"},
		{Option{"Service", "", "b"}, "a.service: [Service] =: the key is empty"},
		{Option{"Ser]vice", "A", "b"}, `the section has "]"`},
		{Option{"S]\n[T", "A", "b"}, `the section has "]"`},
		{Option{"Service", "A=", "b"}, `the key has "="`},
		{Option{"Service", "A\nB", "b"}, `the key has "="`},
		{Option{"Service", " A", "b"}, "the key has blanks"},
		{Option{"Service", "[A", "b"}, `the key starts with`},
		{Option{"Service", "#A", "b"}, `the key starts with`},
		{Option{"Service", ";A", "b"}, `the key starts with`},
		{Option{"Service", "A", "b\nExecStart=/bin/evil"}, "a line break in it that no backslash continues"},
		{Option{"Service", "A", "b\n[Install]\nX=y"}, "a line break in it that no backslash continues"},
		{Option{"Service", "A", "b\\\\\nc"}, "a line break in it that no backslash continues"},
		{Option{"Service", "A", "b \\\n# c\\\nd\ne"}, "a line break in it that no backslash continues"},
		{Option{"Service", "A", `b\`}, "the value ends in a backslash"},
		{Option{"Service", "A", "b\\\n"}, ""}, // a blank line ends the continuation
		{Option{"Service", "A", "b\\\n# c"}, "the value ends in a comment"},
		{Option{"Service", "A", "b\rc"}, "carriage return"},
		{Option{"Service", "A", "b\x00c"}, "NUL"},
		{Option{"Service", "A", "b\xff"}, "not valid UTF-8"},
		{Option{"Service", "A", strings.Repeat("x", MaxText)}, "the limit is 1048576 (1 MiB)"},
	}
	for _, tt := range tests {
		opts := []Option{{"Service", "ExecStart", "/bin/x"}, tt.o, {"Unit", "Z", "1"}, {"Service", "Last", "z"}}
		err := CheckOptions("a.service", opts)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%.80q: %v", tt.o, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%.80q: %v, want %q", tt.o, err, tt.want)
		}
	}
	if err := CheckOptions("a.service", nil); err != nil {
		t.Errorf("no options: %v", err)
	}
}

// TestCheckOptionsKeepsMeaning: whatever options pass, their text parses to the same sections, keys and values.
func TestCheckOptionsKeepsMeaning(t *testing.T) {
	text := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "\\", "\n", "\\\n", " ", "#", ";", "=", "[", "]", "\r", "\t", "\uFEFF", "<", "\u2028"}), 0, 6)
	draw := func(t *rapid.T, what string) string { return strings.Join(text.Draw(t, what), "") }
	rapid.Check(t, func(t *rapid.T) {
		var opts []Option
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			opts = append(opts, Option{draw(t, "section"), draw(t, "key"), draw(t, "value")})
			if CheckOptions("a.service", opts[len(opts)-1:]) != nil {
				opts = opts[:len(opts)-1]
			}
		}
		if err := CheckOptions("a.service", opts); err != nil {
			t.Fatalf("each passes, all together do not: %v", err)
		}
		f, _, err := Parse("a.service", []byte(File{Options: opts}.Text()))
		if err != nil {
			t.Fatal(err)
		}
		want := grouped(opts)
		if len(f.Options) != len(want) {
			t.Fatalf("%q became %q", want, f.Options)
		}
		for i, o := range f.Options {
			if o.Section != want[i].Section || o.Name != want[i].Name || o.Joined() != want[i].Joined() {
				t.Fatalf("%q became %q", want, f.Options)
			}
		}
	})
}
