package setting

import (
	"path"
	"strings"

	"flota/internal/fault"
)

// Escape makes any text fit for a unit name, as systemd-escape does: / becomes -, ASCII letters, digits, : _ and .
// stay, every other byte and a leading dot become \xhh.
func Escape(s string) string {
	const hex = "0123456789abcdef"
	var out strings.Builder
	for i, c := range []byte(s) {
		switch {
		case c == '/':
			out.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			out.WriteByte(c)
		default:
			out.Write([]byte{'\\', 'x', hex[c>>4], hex[c&15]})
		}
	}
	return out.String()
}

// UnescapeName undoes Escape. A backslash that does not begin \xhh is fault.Invalid.
func UnescapeName(s string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '-':
			out.WriteByte('/')
		case '\\':
			if !strings.HasPrefix(s[i:], `\x`) {
				return "", fault.New(fault.Invalid, "%q has a backslash that escapes nothing", s)
			}
			v, ok := number(s[i+2:], 2, 16)
			if !ok {
				return "", fault.New(fault.Invalid, "%q has an escape without two hex digits", s)
			}
			out.WriteByte(byte(v))
			i += 3
		default:
			out.WriteByte(s[i])
		}
	}
	return out.String(), nil
}

// EscapePath is Escape for file names: leading, trailing and repeated slashes and "." parts do not count, the root
// directory is "-". A path with a ".." part is fault.Invalid.
func EscapePath(p string) (string, error) {
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", fault.New(fault.Invalid, "path %q goes up", p)
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "-", nil
	}
	return Escape(strings.Join(parts, "/")), nil
}

// UnescapePath undoes EscapePath; the result is absolute. What EscapePath cannot have made (slashes in the wrong
// places, parts "." and "..") is fault.Invalid.
func UnescapePath(s string) (string, error) {
	if s == "-" {
		return "/", nil
	}
	text, err := UnescapeName(s)
	if err != nil {
		return "", err
	}
	if p := "/" + text; text != "" && path.Clean(p) == p {
		return p, nil
	}
	return "", fault.New(fault.Invalid, "%q is not an escaped path", s)
}
