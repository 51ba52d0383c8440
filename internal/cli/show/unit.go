package show

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"flota/internal/api"
	"flota/internal/unit"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Description is the unit's Description= with the specifiers that a name gives.
func Description(u api.Unit) string {
	text, _ := u.File().Last("Unit", "Description")
	n := u.Name
	return strings.NewReplacer("%%", "%", "%n", string(n), "%N", n.Base(), "%p", n.Prefix(), "%i", n.Instance(), "%I", n.Instance()).Replace(text)
}

// stamp is how a time of day is shown.
const stamp = "Mon 2006-01-02 15:04:05 MST"

// Block writes a unit's status as systemctl does, with the machines that it is on. color marks the dot.
func Block(w io.Writer, u api.Unit, now time.Time, color bool) {
	dot, shade := "○", ""
	switch {
	case has(u, "failed"):
		dot, shade = "×", "31"
	case has(u, "active") || has(u, "reloading"):
		dot, shade = "●", "32"
	case has(u, "activating") || u.Waiting != "":
		dot, shade = "●", "33"
	}
	if color && shade != "" {
		dot = "\x1b[1;" + shade + "m" + dot + "\x1b[0m"
	}
	title := string(u.Name)
	if d := Description(u); d != "" {
		title += " - " + d
	}
	fmt.Fprintf(w, "%s %s\n", dot, title)
	line := func(key, text string) {
		if text != "" {
			fmt.Fprintf(w, "%12s: %s\n", key, text)
		}
	}
	line("Loaded", loaded(u))
	if u.Waiting != "" {
		line("Waiting", u.Waiting)
	}
	for _, p := range u.Places {
		placeLines(line, u, p, now)
	}
	for _, s := range u.States {
		if !onPlace(u, s) {
			line("Machine", Where(Flota, s.Machine, s.Name, s.Addr, false)+" (to be taken off)")
			stateLines(line, s, now)
		}
	}
	if len(u.Places)+len(u.States) == 0 {
		line("Active", "inactive (on no machine)")
	}
	for _, n := range u.Notes {
		line("Notes", n)
	}
}

// loaded is the line of what is stored: "loaded (sha 1f2e3d4; wanted: launched)".
func loaded(u api.Unit) string {
	load := "stored"
	for _, s := range u.States {
		if s.Load != "" {
			load = s.Load
		}
	}
	return fmt.Sprintf("%s (hash %s; target %s%s)", load, Hash(u.Hash, false), u.Target, map[bool]string{true: "; global"}[u.Global])
}

// has says whether a unit is in that state anywhere.
func has(u api.Unit, active string) bool {
	for _, s := range u.States {
		if s.Active == active {
			return true
		}
	}
	return false
}

// onPlace says whether a state is reported by a machine that the unit is placed on.
func onPlace(u api.Unit, s api.State) bool {
	for _, p := range u.Places {
		if p.Machine == s.Machine {
			return true
		}
	}
	return false
}

// placeLines tells of one machine that the unit is on.
func placeLines(line func(key, text string), u api.Unit, p api.Place, now time.Time) {
	where := Where(Flota, p.Machine, p.Name, p.Addr, false)
	switch {
	case p.Addr == "":
		where += ", which is gone"
	case p.Leaving:
		where += ", leaving"
	}
	text := where + ", " + Ago(p.Since, now)
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	line("Machine", text)
	for _, s := range u.States {
		if s.Machine == p.Machine {
			stateLines(line, s, now)
			return
		}
	}
	line("Active", "unknown: "+p.Name+" has reported nothing of it")
}

// stateLines tells what one machine reports.
func stateLines(line func(key, text string), s api.State, now time.Time) {
	active := fmt.Sprintf("%s (%s)", s.Active, s.Sub)
	if s.Active == "failed" && s.Result != "" {
		active = fmt.Sprintf("failed (Result: %s)", s.Result)
	}
	if !s.Since.IsZero() {
		active += " since " + s.Since.Local().Format(stamp) + "; " + Ago(s.Since, now)
	}
	line("Active", active)
	if s.Message != "" && !plainMessage(s.State) {
		line("Reason", s.Message)
	}
	switch {
	case s.MainPID != 0:
		line("Main PID", itoa(s.MainPID))
	case s.Signal != "":
		line("Last exit", "signal "+s.Signal)
	case s.Run > 0 && s.Active != "active":
		line("Last exit", "status "+itoa(s.ExitCode))
	}
	if s.Restarts > 0 {
		line("Restarts", itoa(s.Restarts))
	}
	line("Status", s.Status)
	for _, n := range s.Notes {
		line("Notes", n)
	}
}

// plainMessage says whether the message only repeats the state.
func plainMessage(s unit.State) bool {
	m := strings.ToLower(s.Message)
	return m == "" || m == s.Active || m == s.Sub || m == "started" || m == "running" || m == "stopped" || m == "loaded"
}
