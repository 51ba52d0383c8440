package show

import (
	"fmt"
	"io"
	"strings"
	"time"

	"flota/internal/api"
	"flota/internal/machine"
	"flota/internal/scheduler"
)

// Plan writes moves and what waits; nothing is said of a plan that does nothing.
func Plan(w io.Writer, p api.Plan, nothing string) error {
	if p.Brake != nil {
		fmt.Fprintf(w, "%s\n\n", p.Brake.Reason)
	}
	if len(p.Moves)+len(p.Waiting) == 0 {
		_, err := fmt.Fprintln(w, nothing)
		return err
	}
	name := func(id machine.ID) string {
		if n := p.Names[id]; n != "" {
			return n
		}
		return id.Short()
	}
	var rows [][]string
	for _, m := range p.Moves {
		rows = append(rows, []string{string(m.Unit), move(m, name), m.Reason})
	}
	for _, u := range p.Waiting {
		rows = append(rows, []string{string(u.Unit), "waits", u.Reason})
	}
	return Table(w, Flota, []string{"UNIT", "WHAT", "WHY"}, rows)
}

// move says what a move does: "m1 -> m2", "place on m2", "off m1".
func move(m scheduler.Move, name func(machine.ID) string) string {
	switch m.Kind {
	case scheduler.KindPlace:
		return "place on " + name(m.To)
	case scheduler.KindMove, scheduler.KindLeave:
		return name(m.From) + " -> " + name(m.To)
	case scheduler.KindUpdate:
		return "update on " + name(m.To)
	case scheduler.KindRemove, scheduler.KindFinish:
		return "off " + name(m.From)
	}
	return strings.TrimSpace(string(m.Kind) + " " + name(m.To))
}

// Machine writes all that is known of a machine, and the units on it.
func Machine(w io.Writer, m api.Machine, units []api.Unit, now time.Time) {
	line := func(key, format string, args ...any) {
		fmt.Fprintf(w, "%10s: %s\n", key, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s (%s)\n", m.Name, m.ID)
	line("Status", "%s", m.Status)
	line("Role", "%s", roleInWords(m))
	line("Labels", "%s", machine.PrintLabels(m.All))
	if !m.Joined.IsZero() {
		line("Joined", "%s", Ago(m.Joined, now))
	}
	if p := m.Presence; p != nil {
		line("Address", "%s (API %s)", p.Addr, p.API)
		line("Offers", "%s of memory, %.3g cores", Bytes(p.Size.MemBytes), float64(p.Size.CPUMillis)/1000)
		line("Agent", "%s, started %s", p.Version, Ago(p.Started, now))
	}
	line("Units", "%d", m.Units)
	for _, u := range units {
		for _, p := range u.Places {
			if p.Machine == m.ID {
				fmt.Fprintf(w, "            %s: %s\n", u.Name, reported(u, m.ID))
			}
		}
	}
}

// reported is what a machine says of a unit.
func reported(u api.Unit, id machine.ID) string {
	for _, s := range u.States {
		if s.Machine == id {
			return s.Active + " (" + s.Sub + ")"
		}
	}
	return "nothing reported"
}

// Event is an event as people read it.
func Event(e api.Event) string { return e.Time.Local().Format("2006-01-02 15:04:05") + "  " + e.Text }

// LogText is a line of a log; what the machine says of the unit begins with "-- ".
func LogText(l api.LogLine) string {
	if l.Stream == "flota" {
		return "-- " + l.Text
	}
	return l.Text
}

// Log is a line of a log with its time, and with the machine's name.
func Log(l api.LogLine, withMachine bool) string {
	at := l.Time.Local().Format("Jan 02 15:04:05") + " "
	if withMachine {
		at += l.Machine + " "
	}
	return at + LogText(l)
}
