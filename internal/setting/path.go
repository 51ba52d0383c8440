package setting

import (
	"path"
	"slices"
	"strings"

	"flota/internal/fault"
)

// Path wants an absolute path without ".." parts and gives it clean. Errors are fault.Invalid.
func Path(s string) (string, error) {
	switch {
	case !path.IsAbs(s):
		return "", fault.New(fault.Invalid, "path %q is not absolute", s)
	case strings.IndexByte(s, 0) >= 0 || len(s) >= 4096:
		return "", fault.New(fault.Invalid, "%q is not a path", s)
	case slices.Contains(strings.Split(s, "/"), ".."):
		return "", fault.New(fault.Invalid, "path %q goes up", s)
	}
	return CleanPath(s), nil
}

// CleanPath drops repeated and trailing slashes and "." parts; ".." stays, since links may make it mean something else.
func CleanPath(s string) string {
	var parts []string
	for part := range strings.SplitSeq(s, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	clean := strings.Join(parts, "/")
	if strings.HasPrefix(s, "/") {
		return "/" + clean
	}
	return clean
}

// SplitColons splits at colons that have no backslash before them, and takes those backslashes away.
func SplitColons(s string) []string {
	parts, part := []string{}, []byte{}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == ':' || s[i+1] == '\\'):
			i++
			part = append(part, s[i])
		case s[i] == ':':
			parts, part = append(parts, string(part)), nil
		default:
			part = append(part, s[i])
		}
	}
	return append(parts, string(part))
}

// DirLink splits DIR:LINK at colons that are not escaped, and resolves escapes. link is empty when there is
// none. Errors are fault.Invalid.
func DirLink(word string) (dir, link string, err error) {
	var parts []string
	var part []byte
	for i := 0; i < len(word); i++ {
		text, n, ok := Unescape(word[i:])
		switch {
		case ok:
			part, i = append(part, text...), i+n-1
		case word[i] == '\\' && i+1 < len(word) && word[i+1] == ':':
			part, i = append(part, ':'), i+1
		case word[i] == '\\':
			return "", "", fault.New(fault.Invalid, "unknown escape in %q", word)
		case word[i] == ':':
			if len(part) > 0 {
				parts = append(parts, string(part))
			}
			part = nil
		default:
			part = append(part, word[i])
		}
	}
	if len(part) > 0 {
		parts = append(parts, string(part))
	}
	switch len(parts) {
	case 1:
		return parts[0], "", nil
	case 2:
		return parts[0], parts[1], nil
	}
	return "", "", fault.New(fault.Invalid, "%q is not a directory, or a directory and a link", word)
}
