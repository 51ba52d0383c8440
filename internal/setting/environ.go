package setting

import (
	"strings"
	"unicode/utf8"
)

// CheckEnvName reports whether s can name an environment variable: letters, digits and _, no digit first.
func CheckEnvName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// CheckAssignment reports whether s is NAME=value with a good name and a value that is UTF-8 without NUL.
func CheckAssignment(s string) bool {
	name, value, ok := strings.Cut(s, "=")
	return ok && CheckEnvName(name) && checkEnvValue(value)
}

func checkEnvValue(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// SetEnv puts an assignment NAME=value into env, in the place of an earlier one for the same name, else
// at the end. It may change env's elements. The assignment must be one that CheckAssignment takes.
func SetEnv(env []string, assignment string) []string {
	name, _, _ := strings.Cut(assignment, "=")
	for i, e := range env {
		if n, _, _ := strings.Cut(e, "="); n == name {
			env[i] = assignment
			return env
		}
	}
	return append(env, assignment)
}

// LookupEnv finds the value of name in env; the last assignment counts.
func LookupEnv(env []string, name string) (value string, ok bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if n, v, _ := strings.Cut(env[i], "="); n == name {
			return v, true
		}
	}
	return "", false
}

// UnsetEnv gives env without what drop names: "NAME" drops the variable, "NAME=value" only that assignment.
func UnsetEnv(env, drop []string) []string {
	var out []string
next:
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		for _, d := range drop {
			if d == name || d == e {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}
