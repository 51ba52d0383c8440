package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flota/internal/fault"
)

// TestDocumentOfCommands holds docs/cli.md to the commands: each has a section with its usage and its flags in the words of its help,
// and nothing else has.
func TestDocumentOfCommands(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	sections, heads := commandSections(string(b))
	a := &app{Env: Env{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }}}
	root := a.newRoot()
	var wanted []string
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden {
				continue
			}
			walk(sub)
			wanted = append(wanted, sub.CommandPath())
			want := flagRows(sub.LocalFlags())
			text, there := sections[sub.CommandPath()]
			if !there {
				t.Errorf("no section of `%s`", sub.CommandPath())
				continue
			}
			if use := "`" + strings.TrimSuffix(sub.UseLine(), " [flags]") + "`"; sub.Runnable() && !sub.HasSubCommands() && !strings.Contains(text, use) {
				t.Errorf("%s: its usage is %s", sub.CommandPath(), use)
			}
			if got := rowsOf(text); !slices.Equal(got, want) {
				t.Errorf("%s: its flags are\n%s\nand not\n%s", sub.CommandPath(), strings.Join(want, "\n"), strings.Join(got, "\n"))
			}
		}
	}
	walk(root)
	for _, head := range heads {
		if !slices.Contains(wanted, head) {
			t.Errorf("`%s` is no command", head)
		}
	}
	if want, got := flagRows(root.PersistentFlags()), rowsOf(sections["flota"]); !slices.Equal(got, want) {
		t.Errorf("the flags of all commands are\n%s\nand not\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// TestDocumentOfExitCodes holds the table of exit codes to the code.
func TestDocumentOfExitCodes(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"0": true, "130": true}
	for _, code := range exitCodes {
		want[strconv.Itoa(code)] = true
	}
	for line := range strings.Lines(string(b)) {
		var code int
		if n, _ := fmt.Sscanf(line, "| %d |", &code); n == 1 {
			if !want[strconv.Itoa(code)] {
				t.Errorf("no error has the exit code %d", code)
			}
			delete(want, strconv.Itoa(code))
		}
	}
	if len(want) > 0 {
		t.Errorf("exit codes that are not told: %v", want)
	}
	if exitCodes[fault.NotFound] != exitNotActive {
		t.Error("the document says that 3 is both not found and not active")
	}
}

// commandSections gives the text under each heading that is a command; what stands before the first is that of flota.
func commandSections(text string) (sections map[string]string, heads []string) {
	sections = map[string]string{}
	head := "flota"
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "### flota "); ok {
			head = "flota " + strings.TrimSpace(name)
			heads = append(heads, head)
		}
		sections[head] += line
	}
	return sections, heads
}

// flagRows gives the rows of a table of flags.
func flagRows(f *pflag.FlagSet) (rows []string) {
	f.VisitAll(func(fl *pflag.Flag) {
		if fl.Name == "help" || fl.Hidden {
			return
		}
		name := "--" + fl.Name
		if fl.Shorthand != "" {
			name = "-" + fl.Shorthand + ", " + name
		}
		usage := fl.Usage
		switch fl.DefValue {
		case "", "false", "[]", "0", "0s":
		default:
			usage += " (default " + fl.DefValue + ")"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s |", name, strings.ReplaceAll(usage, "|", `\|`)))
	})
	return rows
}

// rowsOf gives the rows of flags in a text.
func rowsOf(text string) (rows []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| `-") {
			rows = append(rows, strings.TrimSpace(line))
		}
	}
	return rows
}
