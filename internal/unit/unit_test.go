package unit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestHash uses fleet's fixture hello.service, whose hash fleetctl printed.
func TestHash(t *testing.T) {
	const hello = "[Service]\nExecStart=/bin/bash -c \"while true; do echo Hello, World!; sleep 1; done\"\n"
	const want = "3750b3e9f3962a56c7582929426e9abb012754cf"
	for _, text := range []string{hello, "# comment\n\n[Service]\n\n  ExecStart = /bin/bash -c \"while true; do echo Hello, World!; sleep 1; done\"  \r\n\n"} {
		f, _, err := Parse("hello.service", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if f.Text() != hello || f.Hash() != want {
			t.Errorf("%q: text %q, hash %s", text, f.Text(), f.Hash())
		}
		u := Unit{Name: "hello.service", Options: f.Options}
		if u.Hash() != want {
			t.Errorf("hash of the unit %s", u.Hash())
		}
	}
	if got := (File{}).Hash(); got != "da39a3ee5e6b4b0d3255bfef95601890afd80709" { // of no bytes
		t.Errorf("hash of the empty file %s", got)
	}
}

func TestText(t *testing.T) {
	f := File{Options: []Option{
		{"Service", "A", "1"}, {"Unit", "B", "2 \\\n  3"}, {"Service", "C", ""}, {"Install", "D", "4"}, {"Unit", "E", "5"},
	}}
	want := "[Service]\nA=1\nC=\n\n[Unit]\nB=2 \\\n  3\nE=5\n\n[Install]\nD=4\n"
	if diff := cmp.Diff(want, f.Text()); diff != "" {
		t.Error(diff)
	}
	if (File{}).Text() != "" {
		t.Error("the empty file has a text")
	}
}

func TestGroupedKeepsEverything(t *testing.T) {
	section := rapid.SampledFrom([]string{"A", "B", "C"})
	rapid.Check(t, func(t *rapid.T) {
		opts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Option {
			return Option{section.Draw(t, "section"), "K", rapid.StringMatching("[a-z]").Draw(t, "value")}
		}), 0, 20).Draw(t, "options")
		before := append([]Option(nil), opts...)
		got := grouped(opts)
		if !cmp.Equal(before, append([]Option(nil), opts...)) {
			t.Fatal("the argument changed")
		}
		for _, s := range []string{"A", "B", "C"} {
			if !cmp.Equal(File{Options: got}.All(s, "K"), File{Options: opts}.All(s, "K")) {
				t.Fatalf("section %s: %v of %v", s, got, opts)
			}
		}
		left := map[string]bool{} // sections that are over
		for i := 1; i < len(got); i++ {
			if got[i].Section != got[i-1].Section {
				left[got[i-1].Section] = true
			}
			if left[got[i].Section] {
				t.Fatalf("not grouped: %v", got)
			}
		}
	})
}

func TestJoined(t *testing.T) {
	tests := map[string]string{
		"":                        "",
		"a":                       "a",
		" a  b ":                  "a  b",
		"a \\\n   b":              "a     b",
		"a\\\nb\\\nc":             "a b c",
		"\\\n  /bin/x":            "/bin/x",
		"a \\\n# c\\\n ; d \\\nb": "a  b", // as fleetctl sends a comment inside a continuation
		`a\ `:                     `a\`,
		"a\\\\\\\nb":              `a\\ b`,
	}
	for value, want := range tests {
		if got := (Option{Value: value}).Joined(); got != want {
			t.Errorf("Joined(%q) = %q, want %q", value, got, want)
		}
	}
}

func TestFileValues(t *testing.T) {
	f := File{Options: []Option{
		{"Service", "Env", "a"}, {"Unit", "Env", "x"}, {"Service", "Env", ""}, {"Service", "Env", "b \\\nc"},
		{"Service", "Env", "d"}, {"Service", "Gone", "e"}, {"Service", "Gone", ""},
	}}
	check := func(what string, want, got any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check("All", []string{"a", "", "b  c", "d"}, f.All("Service", "Env"))
	check("All of nothing", []string(nil), f.All("Service", "env"))
	check("List", []string{"b  c", "d"}, f.List("Service", "Env"))
	check("List reset last", []string(nil), f.List("Service", "Gone"))
	check("List without reset", []string{"x"}, f.List("Unit", "Env"))
	last, ok := f.Last("Service", "Env")
	check("Last", "d true", last+" "+map[bool]string{true: "true"}[ok])
	last, ok = f.Last("Service", "Gone")
	check("Last, empty", []any{"", true}, []any{last, ok})
	last, ok = f.Last("Service", "None")
	check("Last, none", []any{"", false}, []any{last, ok})
	check("Has", []bool{true, false}, []bool{f.Has("Unit"), f.Has("Install")})
}

func TestCurrentState(t *testing.T) {
	const m1, m2 = "11111111111111111111111111111111", "22222222222222222222222222222222"
	place := &Place{Machine: m1}
	tests := []struct {
		name   string
		target Target
		run    uint64
		place  *Place
		st     *State
		want   Target
	}{
		{"no place", Launched, 1, nil, &State{Machine: m1, Run: 1, Active: "active"}, Inactive},
		{"nothing reported", Launched, 1, place, nil, Inactive},
		{"reported by another machine", Launched, 1, place, &State{Machine: m2, Run: 1, Active: "active"}, Inactive},
		{"on the machine", Loaded, 0, place, &State{Machine: m1, Load: "loaded", Active: "inactive"}, Loaded},
		{"not started yet", Launched, 1, place, &State{Machine: m1, Active: "inactive"}, Loaded},
		{"started", Launched, 1, place, &State{Machine: m1, Run: 1, Active: "active"}, Launched},
		{"started and failed", Launched, 1, place, &State{Machine: m1, Run: 1, Active: "failed"}, Launched},
		{"started and over", Launched, 1, place, &State{Machine: m1, Run: 1, Active: "inactive", Sub: "dead"}, Launched},
		{"restart not seen yet", Launched, 2, place, &State{Machine: m1, Run: 1, Active: "active"}, Loaded},
		{"stopping", Loaded, 1, place, &State{Machine: m1, Run: 1, Active: "deactivating"}, Launched},
		{"stop not seen yet", Loaded, 1, place, &State{Machine: m1, Run: 1, Active: "active"}, Launched},
		{"stopped", Loaded, 1, place, &State{Machine: m1, Run: 1, Active: "inactive"}, Loaded},
		{"stopped, had failed", Loaded, 1, place, &State{Machine: m1, Run: 1, Active: "failed"}, Loaded},
		{"to be unloaded", Inactive, 1, place, &State{Machine: m1, Run: 1, Active: "active"}, Launched},
		{"unloaded", Inactive, 1, nil, nil, Inactive},
	}
	for _, tt := range tests {
		if got := CurrentState(Unit{Target: tt.target, Run: tt.run}, tt.place, tt.st); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
