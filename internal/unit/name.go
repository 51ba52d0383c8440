package unit

import (
	"path"
	"strings"

	"flota/internal/fault"
)

// Name is a whole unit name, type included: "web.service", "web@.service", "web@1.service". Names that come
// from outside go through ParseName; the methods give "" or false for what a broken name does not have.
type Name string

// Kind is the type of a unit: its name's suffix without the dot.
type Kind string

// The kinds that Flota knows by name. Others are valid in names, and no driver runs them.
const (
	Service   Kind = "service"   // processes
	Container Kind = "container" // one container, in Quadlet's syntax
	Timer     Kind = "timer"     // when to start another unit
	Socket    Kind = "socket"
)

// maxName is the longest unit name in bytes. Source: systemd and Linux file names allow 255; fleet said 256.
const maxName = 255

// validKind says whether the suffix is one a unit may have. Source: fleet's list, and our container.
func validKind(k Kind) bool {
	switch k {
	case Service, Container, Timer, Socket, "automount", "busname", "device", "mount", "path", "scope", "slice",
		"snapshot", "swap", "target":
		return true
	}
	return false
}

// mayBeTemplate says whether a name of this kind may have an "@". Source: fleet's list, and our container.
func mayBeTemplate(k Kind) bool {
	switch k {
	case Service, Container, Timer, Socket, "path", "target":
		return true
	}
	return false
}

// ParseName checks s to be a unit name by fleet's rules, in fleet's order: 1-255 bytes, a known suffix,
// letters, digits and :-_.\@ before it, not starting with "@". It also refuses "/" and "..", so that a name is
// always one safe part of a path or a key. Errors are fault.Invalid.
func ParseName(s string) (Name, error) {
	if s == "" {
		return "", fault.New(fault.Invalid, "unit name cannot be empty")
	}
	if len(s) > maxName {
		return "", fault.New(fault.Invalid, "unit name exceeds maximum length (%d)", maxName)
	}
	if strings.Contains(s, "/") {
		return "", fault.New(fault.Invalid, `unit name %q cannot contain "/"`, s)
	}
	if strings.Contains(s, "..") {
		return "", fault.New(fault.Invalid, `unit name %q cannot contain ".."`, s)
	}
	dot := strings.LastIndexByte(s, '.')
	if dot == -1 {
		return "", fault.New(fault.Invalid, `unit name must contain "."`)
	}
	if dot == len(s)-1 {
		return "", fault.New(fault.Invalid, `unit name cannot end in "."`)
	}
	kind := Kind(s[dot+1:])
	if !validKind(kind) {
		return "", fault.New(fault.Invalid, "invalid unit type: %q", string(kind))
	}
	for _, c := range s[:dot] {
		if !nameRune(c) {
			return "", fault.New(fault.Invalid, "invalid character %q in unit name", c)
		}
	}
	if s[0] == '@' {
		return "", fault.New(fault.Invalid, `unit name cannot start in "@"`)
	}
	if dot == 0 {
		return "", fault.New(fault.Invalid, `unit name cannot start in "."`)
	}
	if strings.Contains(s, "@") && !mayBeTemplate(kind) {
		return "", fault.New(fault.Invalid, `invalid unit type for a name with "@": %q`, string(kind))
	}
	return Name(s), nil
}

// nameRune says whether c may stand in a unit name before its suffix.
func nameRune(c rune) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.ContainsRune(`:-_.\@`, c)
}

// Kind gives the suffix without its dot; "" if there is none.
func (n Name) Kind() Kind {
	dot := strings.LastIndexByte(string(n), '.')
	if dot == -1 {
		return ""
	}
	return Kind(n[dot+1:])
}

// Base gives the name without its suffix: "web@1" of "web@1.service"; systemd's %N.
func (n Name) Base() string {
	dot := strings.LastIndexByte(string(n), '.')
	if dot == -1 {
		return string(n)
	}
	return string(n[:dot])
}

// Prefix gives what stands before the first "@", or Base without one; systemd's %p.
func (n Name) Prefix() string {
	prefix, _, _ := strings.Cut(n.Base(), "@")
	return prefix
}

// Instance gives what stands between the first "@" and the suffix, "" for none; systemd's %i.
func (n Name) Instance() string {
	_, instance, _ := strings.Cut(n.Base(), "@")
	return instance
}

// IsTemplate reports whether n is a template, as "web@.service".
func (n Name) IsTemplate() bool {
	_, instance, at := strings.Cut(n.Base(), "@")
	return at && instance == ""
}

// IsInstance reports whether n is an instance of a template, as "web@1.service".
func (n Name) IsInstance() bool { return n.Instance() != "" }

// Template gives the template of an instance or of itself: "web@.service" of "web@1.service"; "" for a name
// without "@".
func (n Name) Template() Name {
	if !strings.Contains(n.Base(), "@") {
		return ""
	}
	return n.WithInstance("")
}

// WithInstance gives the instance i of n's template: "web@2.service" of "web@.service" or "web@1.service".
// The result of an instance from outside needs ParseName.
func (n Name) WithInstance(i string) Name {
	return Name(n.Prefix() + "@" + i + string(n[len(n.Base()):]))
}

// CanActivate refuses to load or launch a template, in fleet's words: fault.Invalid.
func CanActivate(n Name) error {
	if n.IsTemplate() {
		return fault.New(fault.Invalid, "cannot activate template %q", string(n))
	}
	return nil
}

// CompleteName makes a unit name of a command line argument as fleetctl does: the last part of the path, and
// ".service" after it unless it ends in a type that fleetctl recognises, or in our ".container".
// The result is not checked; see ParseName. Source: facts on fleet, section 1.3.
func CompleteName(arg string) string {
	name := path.Base(arg)
	switch Name(name).Kind() {
	case Service, Socket, Timer, Container, "path", "device", "mount", "automount":
		return name
	}
	return name + ".service"
}
