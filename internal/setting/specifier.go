package setting

import (
	"strings"

	"flota/internal/fault"
)

// Specifiers gives the value of a specifier by its letter; ok is false for a letter that stands for nothing, and err
// says why a letter that stands for something has no value here.
type Specifiers func(letter byte) (value string, ok bool, err error)

// Expand replaces %x by its value and %% by %. A % before anything but an ASCII letter or digit, and at the end,
// stays. An unknown letter is fault.Invalid. Values are not expanded again.
func Expand(s string, lookup Specifiers) (string, error) {
	var out strings.Builder
	for {
		at := strings.IndexByte(s, '%')
		if at < 0 || at+1 == len(s) {
			out.WriteString(s)
			return out.String(), nil
		}
		out.WriteString(s[:at])
		c := s[at+1]
		switch {
		case c == '%':
			out.WriteByte('%')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			value, ok, err := lookup(c)
			if err != nil {
				return "", fault.Wrap(fault.Invalid, err, "expand %%%c", c)
			}
			if !ok {
				return "", fault.New(fault.Invalid, "unknown specifier %%%c in %q", c, s)
			}
			out.WriteString(value)
		default:
			out.WriteString(s[at : at+2])
		}
		s = s[at+2:]
	}
}
