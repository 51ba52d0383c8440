package supervise

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"flota/internal/driver/cgroup"
	"flota/internal/driver/condition"
	"flota/internal/driver/launch"
	"flota/internal/service"
)

// update writes the tables of docs/units.md anew: go test ./internal/driver/supervise -run Document -update
var update = flag.Bool("update", false, "write the tables of docs/units.md")

// TestUnitsDocument holds the tables of docs/units.md to the code: every key that systemd knows, and what becomes of it here.
func TestUnitsDocument(t *testing.T) {
	const file = "../../../docs/units.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for section, row := range map[string]func(string) string{"Service": serviceRow, "Unit": unitRow, "Install": installRow} {
		open, end := "<!-- keys of "+section+" -->\n", "<!-- end of "+section+" -->"
		before, rest, ok := strings.Cut(text, open)
		had, after, found := strings.Cut(rest, end)
		if !ok || !found {
			t.Fatalf("%s has no place for the keys of [%s]", file, section)
		}
		want := table(section, row)
		if had != want {
			text = before + open + want + end + after
			if !*update {
				t.Errorf("%s is not what the code does with [%s]; with -update this test writes it. It differs at:\n%s", file, section, difference(had, want))
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// difference gives the first line that is not the same.
func difference(had, want string) string {
	a, b := strings.Split(had, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "-" + a[i] + "\n+" + b[i]
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

// table prints the table of a section.
func table(section string, row func(string) string) string {
	head := "| key | what Flota does |\n|---|---|\n"
	if section == "Service" {
		head = "| key | class | what Flota does |\n|---|---|---|\n"
	}
	for _, key := range service.Known(section) {
		head += row(key)
	}
	return head
}

// The words of the tables.
const (
	honoured = "honoured"
	noNote   = "nothing to act on; no note"
	together = "honoured between units of one machine; **note** if it names anything but the host's usual units and what `MachineOf=` names"
	note     = "**note**"
	refused  = "**note**; refused with `flota up --strict`"
)

func serviceRow(key string) string {
	return fmt.Sprintf("| `%s=` | %s | %s |\n", key, service.Class(key), serviceWord(key))
}

// serviceWord says what becomes of a key of [Service], by asking the same tables that notes are made of.
func serviceWord(key string) string {
	all := launch.Host{Root: true, Seccomp: true, UserNS: true, ProcOptions: true}
	if can, known := all.Honoured()[key]; known && can {
		for _, x := range []struct {
			host launch.Host
			text string
		}{
			{launch.Host{}, honoured},
			{launch.Host{Root: true}, "as root"},
			{launch.Host{Seccomp: true}, "where the kernel has seccomp"},
			{launch.Host{Root: true, UserNS: true}, "as root, where user namespaces are allowed"},
			{launch.Host{Root: true, ProcOptions: true}, "as root, from Linux 5.8"},
		} {
			if x.host.Honoured()[key] {
				return x.text
			}
		}
		return "?"
	} else if known {
		return denied(key)
	}
	if can, known := grouped(cgroup.Support{Mode: cgroup.V2, Memory: true, Swap: true, CPU: true, IO: true, Pids: true, MemoryHigh: true})[key]; known && can {
		for _, x := range []struct {
			can  cgroup.Support
			text string
		}{
			{cgroup.Support{Mode: cgroup.V1}, "with control groups"},
			{cgroup.Support{Mode: cgroup.V1, Memory: true}, "with the memory control group"},
			{cgroup.Support{Mode: cgroup.V1, Swap: true}, "with the memory control group, where swap is counted"},
			{cgroup.Support{Mode: cgroup.V1, CPU: true}, "with the cpu control group"},
			{cgroup.Support{Mode: cgroup.V1, IO: true}, "with the io control group"},
			{cgroup.Support{Mode: cgroup.V1, Pids: true}, "with the pids control group"},
			{cgroup.Support{Mode: cgroup.V2, MemoryHigh: true}, "with the memory control group, version 2 only"},
		} {
			if grouped(x.can)[key] {
				return x.text
			}
		}
		return "?"
	}
	switch {
	case own[key]:
		return honoured
	case quiet[key]:
		return noNote
	}
	return denied(key)
}

// denied is the word for a key that is honoured nowhere.
func denied(key string) string {
	if service.Class(key) == service.Restricting {
		return refused
	}
	return note
}

// started are the keys of [Unit] that the supervisor carries out.
var started = words("Description StartLimitIntervalSec StartLimitInterval StartLimitBurst")

func unitRow(key string) string {
	text := noNote
	kind := strings.TrimPrefix(strings.TrimPrefix(key, "Condition"), "Assert")
	switch {
	case started[key]:
		text = honoured
	case near["Unit"][key]:
		text = together
	case key == "After" || key == "Before":
		text = "acted on for what starts because of another unit only; **note** if it names anything but the host's usual units"
	case relations[key]:
		text = "not acted on; **note** if it names anything but the host's usual units"
	case actions[key] || unacted[key]:
		text = "not acted on; **note**"
	case kind != key && condition.Known(kind):
		text = honoured
	case kind != key:
		text = "taken as true; **note**"
	}
	return fmt.Sprintf("| `%s=` | %s |\n", key, text)
}

// installRow: there is no enabling and disabling here; a loaded unit counts as enabled.
func installRow(key string) string {
	text := noNote
	if near["Install"][key] {
		text = together
	}
	return fmt.Sprintf("| `%s=` | %s |\n", key, text)
}
