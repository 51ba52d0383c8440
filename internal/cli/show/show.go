// Package show renders what the API says for people: tables with chosen columns, the status of a unit as systemctl shows it, and the
// cluster at a glance.
//
// The invariant: functions from the API's types to text; the time is an argument, only Progress looks at a clock to redraw. Nothing here asks,
// waits or decides.
// fleetctl's tables (columns, widths, dashes) come from the same functions in style Fleet.
//
// Start reading at Table, then Units for columns and Block for a unit's status.
package show

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"flota/internal/fault"
)

// Style is how tables look.
type Style int

// The styles. Fleet pads with tabs to multiples of 8, as fleetctl does.
const (
	Flota Style = iota
	Fleet
)

// Table writes rows under a header in aligned columns; a nil header is left out.
func Table(w io.Writer, s Style, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if s == Fleet {
		t = tabwriter.NewWriter(w, 0, 8, 1, '\t', 0)
	}
	for _, row := range append([][]string{header}, rows...) {
		if row == nil {
			continue
		}
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// Columns chooses what a list shows of each item of type T. full asks for long forms.
type Columns[T any] struct {
	Cells map[string]func(item T, full bool) string
	Usual []string // when none are chosen
}

// Options are what lists have in common.
type Options struct {
	Style  Style
	Fields string // comma list of columns; "" is the usual ones
	Full   bool
	Bare   bool // no header
}

// Check refuses unknown columns: fault.Invalid, in fleetctl's words.
func (c Columns[T]) Check(fields string) error {
	if fields == "" {
		return nil
	}
	for _, f := range strings.Split(fields, ",") {
		if c.Cells[f] == nil {
			return fault.WithHint(fault.New(fault.Invalid, "Invalid key in output format: %q", f), "there are: %s", c.Names())
		}
	}
	return nil
}

// Names lists all columns.
func (c Columns[T]) Names() string {
	var all []string
	for name := range c.Cells {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// List writes items as a table.
func (c Columns[T]) List(w io.Writer, o Options, items []T) error {
	if err := c.Check(o.Fields); err != nil {
		return err
	}
	fields := c.Usual
	if o.Fields != "" {
		fields = strings.Split(o.Fields, ",")
	}
	var header []string
	if !o.Bare {
		for _, f := range fields {
			header = append(header, strings.ToUpper(f))
		}
	}
	rows := make([][]string, 0, len(items))
	for _, it := range items {
		row := make([]string, len(fields))
		for i, f := range fields {
			row[i] = dash(c.Cells[f](it, o.Full))
		}
		rows = append(rows, row)
	}
	return Table(w, o.Style, header, rows)
}

// dash is what an empty cell shows.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Ago prints how long ago something was in at most two units, as systemctl does: "3min 5s ago".
func Ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "just now"
	}
	return Span(d) + " ago"
}

// Span prints a duration in at most two units: "5s", "3min 5s", "2h 3min", "4 days 2h".
func Span(d time.Duration) string {
	units := []struct {
		is   time.Duration
		name string
	}{{24 * time.Hour, " days"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	var out []string
	for i, u := range units {
		n := d / u.is
		if n == 0 {
			if len(out) > 0 {
				break
			}
			continue
		}
		name := u.name
		if i == 0 && n == 1 {
			name = " day"
		}
		out = append(out, fmt.Sprintf("%d%s", n, name))
		d -= n * u.is
		if len(out) == 2 {
			break
		}
	}
	if len(out) == 0 {
		return "0s"
	}
	return strings.Join(out, " ")
}

// Count is "1 unit", "3 units".
func Count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// Bytes prints an amount of memory: "512M", "3.5G".
func Bytes(n int64) string {
	const unit = 1024
	f, i := float64(n), 0
	for f >= unit && i < 4 {
		f /= unit
		i++
	}
	text := strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
	return text + []string{"B", "K", "M", "G", "T"}[i]
}
