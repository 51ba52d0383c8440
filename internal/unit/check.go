package unit

import (
	"path"
	"strings"
	"unicode/utf8"

	"flota/internal/fault"
)

// CheckOptions refuses options, such as come over the API as JSON, that would not print to a unit file with just
// these options: an empty or malformed section or key, a newline that is no continuation, and all options
// together above MaxText, printed or stored. Errors are fault.Invalid and name the unit and the option.
//
// It accepts raw values that Parse would write otherwise (a comment inside a continuation, blanks at the ends),
// since clients compare what they sent with what is stored. Text of such options parses to the same Joined values.
func CheckOptions(name Name, opts []Option) error {
	if size := storedSize(opts); size > MaxText {
		return tooLarge(name, size)
	}
	for _, o := range opts {
		if problem := o.problem(); problem != "" {
			return fault.New(fault.Invalid, "%s: [%s] %s=: %s", name, clip(o.Section), clip(o.Name), problem)
		}
	}
	want := grouped(opts)
	p := parser{name: name, rest: File{Options: want}.Text()}
	if err := p.run(); err != nil {
		return err
	}
	got := grouped(p.opts)
	for i, o := range want {
		if i >= len(got) || got[i].Section != o.Section || got[i].Name != o.Name || got[i].Joined() != o.Joined() {
			return fault.New(fault.Invalid, "%s: [%s] %s=: does not survive being printed and read again", name, clip(o.Section), clip(o.Name))
		}
	}
	if len(got) != len(want) {
		return fault.New(fault.Invalid, "%s: the options do not survive being printed and read again", name)
	}
	return nil
}

// problem says what keeps an option from standing in a unit file; "" for nothing.
func (o Option) problem() string {
	switch {
	case o.Section == "":
		return "the section is empty"
	case o.Name == "":
		return "the key is empty"
	case !utf8.ValidString(o.Section) || !utf8.ValidString(o.Name) || !utf8.ValidString(o.Value):
		return "not valid UTF-8"
	case strings.ContainsAny(o.Section, "]\n\r\x00"):
		return `the section has "]", a line break or a NUL byte in it`
	case strings.ContainsAny(o.Name, "=\n\r\x00"):
		return `the key has "=", a line break or a NUL byte in it`
	case trim(o.Name) != o.Name:
		return "the key has blanks at its ends"
	case o.Name[0] == '[' || isComment(o.Name):
		return `the key starts with "[", "#" or ";"`
	case strings.ContainsAny(o.Value, "\r\x00"):
		return "the value has a carriage return or a NUL byte in it"
	}
	return valueProblem(o.Value)
}

// valueProblem says what is wrong with the lines of a value: all but the last, comments aside, must end in a lone
// backslash, and the last must not.
func valueProblem(value string) string {
	lines := strings.Split(value, "\n")
	last := len(lines) - 1
	for i, line := range lines {
		switch {
		case i > 0 && isComment(line):
			if i == last {
				return "the value ends in a comment"
			}
		case i < last && !continues(line):
			return "the value has a line break in it that no backslash continues"
		case i == last && continues(line):
			return "the value ends in a backslash"
		}
	}
	return ""
}

// tooLarge is the error of a unit above MaxText.
func tooLarge(name Name, size int) error {
	return fault.New(fault.Invalid, "%s: the unit takes %d bytes in the store, the limit is %d (1 MiB)", name, size, MaxText)
}

// storedSize gives the bytes that the options take as JSON; they must be valid UTF-8.
func storedSize(opts []Option) int {
	const frame = len(`{"section":"","name":"","value":""},`)
	size := 2
	for _, o := range opts {
		size += frame + jsonSize(o.Section) + jsonSize(o.Name) + jsonSize(o.Value)
	}
	return size
}

// jsonSize gives the bytes of s inside a JSON string as encoding/json writes it: six for a control character,
// for < > & and for a line separator, two for a quote, a backslash and the control characters with a letter.
func jsonSize(s string) int {
	size := len(s)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z': // most are: this runs over every byte of every unit
		case c == '"' || c == '\\' || c == '\n' || c == '\t' || c == '\r' || c == '\b' || c == '\f':
			size++
		case c < ' ' || c == '<' || c == '>' || c == '&':
			size += 5
		case strings.HasPrefix(s[i:], "\u2028") || strings.HasPrefix(s[i:], "\u2029"):
			size += 3
		}
	}
	return size
}

// Validate refuses a unit by fleet's rules, in fleet's order and words: its name, its options, and options of
// [X-Fleet] that exclude each other. After those it refuses what Fleet and Flota refuse. Errors are fault.Invalid.
// Source: facts on fleet, section 3.2. That a bad MemoryMax= and the like is accepted is systemd's rule.
func Validate(n Name, f File) error {
	if _, err := ParseName(string(n)); err != nil {
		return err
	}
	if err := CheckOptions(n, f.Options); err != nil {
		return err
	}
	fl, err := f.fleet(n)
	if err != nil {
		return err
	}
	if err := fl.conflict(); err != nil {
		return err
	}
	if _, err := f.Fleet(n); err != nil {
		return err
	}
	own, err := f.Flota(n)
	if err != nil {
		return err
	}
	if own.Exclusive && fl.Global {
		return fault.New(fault.Invalid, "Exclusive cannot be used with Global")
	}
	return nil
}

// conflict refuses options of [X-Fleet] that cannot be met together, with fleet's messages.
func (fl Fleet) conflict() error {
	for _, peer := range fl.MachineOf {
		for _, glob := range fl.Conflicts {
			if ok, _ := path.Match(glob, string(peer)); ok {
				return fault.New(fault.Invalid, "unresolvable requirements: peer %q matches conflict %q", string(peer), glob)
			}
		}
		for _, glob := range fl.Replaces {
			if ok, _ := path.Match(glob, string(peer)); ok {
				return fault.New(fault.Invalid, "unresolvable requirements: peer %q matches replace %q", string(peer), glob)
			}
		}
	}
	machine, peers := fl.MachineID != "", len(fl.MachineOf) > 0
	conflicts, replaces := len(fl.Conflicts) > 0, len(fl.Replaces) > 0
	pairs := []struct {
		both bool
		text string
	}{
		{machine && peers, "MachineID cannot be used with Peers"},
		{machine && conflicts, "MachineID cannot be used with Conflicts"},
		{machine && fl.Global, "MachineID cannot be used with Global"},
		{machine && replaces, "MachineID cannot be used with Replaces"},
		{fl.Global && peers, "Global cannot be used with Peers"},
		{fl.Global && replaces, "Global cannot be used with Replaces"},
		{conflicts && replaces, "Conflicts cannot be used with Replaces"},
	}
	for _, pair := range pairs {
		if pair.both {
			return fault.New(fault.Invalid, "%s", pair.text)
		}
	}
	return nil
}
