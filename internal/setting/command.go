package setting

import (
	"path"
	"strings"

	"flota/internal/fault"
)

// Command is one command line of an Exec key. Words are unquoted and specifiers expanded; $VAR is not
// substituted yet: see Substitute, and NoEnv.
type Command struct {
	Path          string    // absolute, or a bare name to be searched in the fixed path
	Argv          []string  // Argv[0] is Path as written, or the name given by the @ prefix
	IgnoreFailure bool      // prefix -
	NoEnv         bool      // prefix : : no $VAR substitution
	Privilege     Privilege // prefixes + ! !!
}

// Privilege says how much of the unit's identity and sandbox applies to a command.
type Privilege string

// The privileges by their prefix. PrivilegeUnit is the zero value: everything applies.
const (
	PrivilegeUnit    Privilege = ""
	PrivilegeFull    Privilege = "+"  // no User, Group, capabilities or namespaces
	PrivilegeUser    Privilege = "!"  // only User, Group and SupplementaryGroups do not apply
	PrivilegeAmbient Privilege = "!!" // as ! on kernels without ambient capabilities, otherwise none
)

// Commands reads an Exec line: one command, or several separated by lone semicolons. expand replaces specifiers in a
// word. An error is fault.Invalid and comes with the commands before the bad one; ignore says that the bad
// one has the prefix -, or that its first word cannot even be read, so that systemd only skips the rest of the line.
// Source: systemd.service(5), Command Lines, and the golden cases of room service.
func Commands(line string, expand func(string) (string, error)) (list []Command, ignore bool, err error) {
	for more := true; more; {
		first, rest, ok, err := NextWord(line)
		if err != nil || !ok {
			return list, true, err
		}
		if line = rest; first == ";" {
			continue
		}
		c, name, ownArgv0 := prefixes(first)
		if more, line, err = c.words(name, rest, ownArgv0, expand); err != nil {
			return list, c.IgnoreFailure, err
		}
		list = append(list, c)
	}
	return list, false, nil
}

// prefixes takes the prefixes off the first word of a command.
func prefixes(word string) (c Command, name string, ownArgv0 bool) {
	for ; word != ""; word = word[1:] {
		switch f := word[0]; {
		case f == '-' && !c.IgnoreFailure:
			c.IgnoreFailure = true
		case f == '@' && !ownArgv0:
			ownArgv0 = true
		case f == ':' && !c.NoEnv:
			c.NoEnv = true
		case f == '+' && c.Privilege == PrivilegeUnit:
			c.Privilege = PrivilegeFull
		case f == '!' && c.Privilege == PrivilegeUnit:
			c.Privilege = PrivilegeUser
		case f == '!' && c.Privilege == PrivilegeUser:
			c.Privilege = PrivilegeAmbient
		default:
			return c, word, ownArgv0
		}
	}
	return c, "", ownArgv0
}

// words reads the path and the arguments of a command into c.
func (c *Command) words(name, rest string, ownArgv0 bool, expand func(string) (string, error)) (more bool, left string, err error) {
	name, err = expand(name)
	if err != nil {
		return false, "", err
	}
	if err := checkProgram(name); err != nil {
		return false, "", err
	}
	if !ownArgv0 {
		c.Argv = []string{name}
	}
	for rest != "" && !more {
		if after, ok := loneToken(rest, ";"); ok {
			rest, more = after, true
			continue
		}
		if after, ok := loneToken(rest, `\;`); ok {
			c.Argv, rest = append(c.Argv, ";"), after
			continue
		}
		word, after, _, err := NextWord(rest)
		if err != nil {
			return false, "", err
		}
		if word, err = expand(word); err != nil {
			return false, "", err
		}
		c.Argv, rest = append(c.Argv, word), after
	}
	if len(c.Argv) == 0 {
		return false, "", fault.New(fault.Invalid, "the name after @ is missing")
	}
	c.Path = name
	if path.IsAbs(name) {
		c.Path = CleanPath(name)
	}
	return more, rest, nil
}

// loneToken takes token off s when it is a whole word there.
func loneToken(s, token string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(s, token)
	if !ok || rest != "" && strings.IndexByte(blanks, rest[0]) < 0 {
		return "", false
	}
	return strings.TrimLeft(rest, blanks), true
}

// checkProgram refuses what is neither an absolute path nor a bare file name.
func checkProgram(name string) error {
	switch {
	case name == "":
		return fault.New(fault.Invalid, "the command is missing after its prefix")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`"'\`, r) }):
		return fault.New(fault.Invalid, "the program %q has special characters", name)
	case strings.HasSuffix(name, "/"):
		return fault.New(fault.Invalid, "the program %q is a directory", name)
	case path.IsAbs(name), !strings.Contains(name, "/") && name != "." && name != ".." && len(name) < 256:
		return nil
	}
	return fault.New(fault.Invalid, "%q is neither an absolute path nor a bare program name", name)
}
