// Package setting reads the small languages inside the values of unit files: words with quotes and
// escapes, booleans, time spans, sizes, percentages, modes, signals, exit statuses, resource limits,
// capability lists, environment assignments, environment files, $VAR substitution, escaped unit
// names and specifiers.
//
// The invariant: every function is a pure function of its arguments and means exactly what systemd 252
// means by the same text; a value that systemd refuses is a fault.Invalid here. No function panics,
// whatever the input.
//
// It never decides which key uses which language, nor what a bad value does to a unit: rooms unit and
// service do. It never reads a file, an environment or the host; callers pass those values in.
//
// Start reading at Words, then the one file per language.
package setting

import (
	"math"
	"strconv"
	"strings"

	"flota/internal/fault"
)

// Unlimited is the size that "infinity" stands for. No finite size reaches it.
const Unlimited int64 = math.MaxInt64

// blanks are the bytes that separate words. Source: systemd's WHITESPACE.
const blanks = " \t\n\r"

// Bool reads a boolean: 1 yes y true t on, or 0 no n false f off, in any case.
// Anything else, the empty string included, is fault.Invalid.
func Bool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fault.New(fault.Invalid, "%q is not a boolean (yes or no)", s)
}

// Uint reads a whole number as C does: decimal, octal after a leading 0, or hexadecimal after 0x; a leading + is
// allowed. Errors are fault.Invalid.
func Uint(s string) (uint64, error) {
	text, base := strings.TrimPrefix(s, "+"), 10
	switch {
	case len(text) > 2 && (text[:2] == "0x" || text[:2] == "0X"):
		text, base = text[2:], 16
	case len(text) > 1 && text[0] == '0':
		text, base = text[1:], 8
	}
	n, err := strconv.ParseUint(text, base, 64)
	if err != nil || text[0] == '+' {
		return 0, fault.New(fault.Invalid, "%q is not a whole number", s)
	}
	return n, nil
}

// Int is Uint for numbers that may be negative.
func Int(s string) (int, error) {
	text, negative := strings.CutPrefix(s, "-")
	n, err := Uint(text)
	if err != nil || n > math.MaxInt32 || negative && strings.HasPrefix(text, "+") {
		return 0, fault.New(fault.Invalid, "%q is not a whole number", s)
	}
	if negative {
		return -int(n), nil
	}
	return int(n), nil
}

// Mode reads an octal file mode or mask of up to 07777. Errors are fault.Invalid.
func Mode(s string) (uint32, error) {
	var m uint32
	if s == "" || len(s) > 32 {
		return 0, fault.New(fault.Invalid, "%q is not an octal mode", s)
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '7' {
			return 0, fault.New(fault.Invalid, "%q is not an octal mode", s)
		}
		if m = m<<3 | uint32(c-'0'); m > 0o7777 {
			return 0, fault.New(fault.Invalid, "mode %q is above 7777", s)
		}
	}
	return m, nil
}
