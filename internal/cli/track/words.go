package track

import (
	"fmt"
	"strings"
	"time"

	"flota/internal/setting"
	"flota/internal/unit"
)

// Why is a unit's failure in an operator's words: the machine's own, and what systemd calls it.
func Why(s unit.State) string {
	short := s.Result
	switch {
	case s.Result == "exit-code":
		short = fmt.Sprintf("exit-code %d", s.ExitCode)
	case s.Result == "signal" && s.Signal != "":
		short = "signal " + s.Signal
	case s.Result == "success":
		short = ""
	}
	switch {
	case s.Message == "":
		return orElse(short, s.Sub)
	case short == "" || strings.Contains(s.Message, short) || strings.Contains(s.Message, s.Result):
		return s.Message
	}
	return short + " (" + s.Message + ")"
}

// Seconds prints how long something took: "0.3 s", "12 s", "2min 5s".
func Seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 95*time.Millisecond:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return setting.PrintSpan(d.Round(time.Second))
}

// orElse is text, or other if it is empty.
func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
}
