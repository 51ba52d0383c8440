package service

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flota/internal/fault"
	"flota/internal/unit"
)

// golden is one unit text and what systemd 252 made of it.
type golden struct {
	Name string   `json:"name"`
	Unit string   `json:"unit"`
	Want string   `json:"want"` // regular expression that chooses the lines of the dump
	RC   int      `json:"rc"`
	Dump []string `json:"dump"`
	Log  []string `json:"log"`
}

// goldenHost is the machine on which the golden cases were made.
func goldenHost(name string) Host {
	h := DefaultHost()
	h.Hostname, h.Arch, h.OSID, h.OSVersionID, h.Shell = "vm", "x86-64", "debian", "12", "/bin/bash"
	h.MachineID, h.BootID = strings.Repeat("ab", 16), strings.Repeat("cd", 16)
	h.MemBytes, h.MaxTasks = 2*12638257152, 32767
	h.UnitFile = "/tmp/v/p/" + name
	return h
}

func readGolden(t testing.TB, file string) []golden {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []golden
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var g golden
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestGolden puts each text through unit.Parse and Parse and compares with what systemd dumped.
func TestGolden(t *testing.T) {
	cases := readGolden(t, "testdata/unitfile-golden.jsonl")
	if len(cases) != 285 {
		t.Fatalf("%d cases, want 285", len(cases))
	}
	for _, g := range cases {
		t.Run("", func(t *testing.T) { g.check(t, goldenHost(g.Name)) })
	}
}

// TestMoreGolden does the same with cases made by the same command on a machine with other memory; they go
// through all values of all keys that the dump shows.
func TestMoreGolden(t *testing.T) {
	host := goldenHost("probe.service")
	host.MemBytes = 25276510208
	for _, g := range readGolden(t, "testdata/more-golden.jsonl") {
		t.Run("", func(t *testing.T) { g.check(t, host) })
	}
}

// atLine matches a message about a line of the file.
var atLine = regexp.MustCompile(`^[^ ]*:[0-9]+: `)

// gentle are messages that systemd writes although it takes the value.
var gentle = regexp.MustCompile(`obsolete, automatically updating|legacy directory|KillMode=none|Ignoring unknown escape`)

func (g golden) check(t *testing.T, host Host) {
	name := unit.Name(g.Name)
	if name.IsTemplate() {
		name = name.WithInstance("i") // systemd-analyze verifies an instance called i
	}
	log := strings.Join(g.Log, "\n")
	wantErr := strings.Contains(log, "bad unit file setting") || strings.Contains(log, "failed to load properly")
	f, warnings, err := unit.Parse(name, []byte(g.Unit))
	var s Service
	var notes []Note
	if err == nil {
		s, notes, err = Parse(name, f, host)
	}
	if (err != nil) != wantErr {
		t.Fatalf("unit:\n%s\nlog: %s\nerr: %v", g.Unit, log, err)
	}
	if err != nil {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("kind %q of %v, want invalid", fault.KindOf(err), err)
		}
		return
	}
	want := regexp.MustCompile(g.Want)
	var got []string
	for _, line := range dump(s) {
		if want.MatchString(line) {
			got = append(got, line)
		}
	}
	if len(got) == 0 {
		got = []string{}
	}
	if diff := cmp.Diff(g.Dump, got); diff != "" {
		t.Errorf("unit:\n%s\nsystemd -, we +:\n%s\nnotes: %v", g.Unit, diff, notes)
	}
	for _, line := range g.Log {
		if atLine.MatchString(line) && !gentle.MatchString(line) && len(notes)+len(warnings) == 0 {
			t.Errorf("unit:\n%s\nsystemd said %q, we say nothing", g.Unit, line)
		}
	}
}
