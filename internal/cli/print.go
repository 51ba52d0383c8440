package cli

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// printJSON writes one JSON value. A nil slice is written as an empty list.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine writes one JSON value on one line, for streams.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// list is items, or an empty list for JSON.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// shellQuote quotes a word for a POSIX shell if it needs that.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// joinComma joins with commas.
func joinComma(list []string) string { return strings.Join(list, ",") }

// pidOrDash is a process id, or "-" for none.
func pidOrDash(pid int) string {
	if pid == 0 {
		return "-"
	}
	return strconv.Itoa(pid)
}

// isTerminal says whether w is a person's terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// color says whether w may be coloured.
func (a *app) color(w io.Writer) bool { return a.Getenv("NO_COLOR") == "" && isTerminal(w) }
