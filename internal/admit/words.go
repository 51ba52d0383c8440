package admit

import (
	"fmt"
	"time"
)

// plural gives the word for n things.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// offBy says how a clock is wrong.
func offBy(skew time.Duration) string {
	if skew < 0 {
		return span(-skew) + " behind"
	}
	return span(skew) + " ahead"
}

// span prints a duration as a person would say it, in its largest unit.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
