package unit

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"flota/internal/fault"
)

// MaxText is the largest unit in bytes: both its text and its options as JSON, the form that is stored, must
// fit, because a unit travels in one etcd request (1.5 MiB by default) together with its place.
// It is systemd's longest line too (1 MiB), so no line can be longer.
const MaxText = 1 << 20

// maxWarnings bounds what a file full of nonsense can make us say; the rest is counted.
const maxWarnings = 100

// Warning is something in a unit file that is ignored, as systemd does with a message in its log.
type Warning struct {
	Line int // physical line, from 1
	Text string
}

// String gives "line N: text".
func (w Warning) String() string { return fmt.Sprintf("line %d: %s", w.Line, w.Text) }

// bom is the UTF-8 byte order mark, which systemd allows before the first line.
const bom = "\uFEFF"

// blanks are the characters that systemd trims; its WHITESPACE.
const blanks = " \t\n\r"

// Parse reads a unit file as systemd does. What systemd ignores with a warning comes back as warnings; unknown
// sections stay in the File, since it is the driver that decides what it runs. Errors are fault.Invalid and name
// the file and the line: a section header without its "]", a NUL byte, text that is not UTF-8, a unit above MaxText.
func Parse(name Name, text []byte) (File, []Warning, error) {
	if len(text) > MaxText {
		return File{}, nil, fault.New(fault.Invalid, "%s: the unit file is %d bytes, the limit is %d (1 MiB)", name, len(text), MaxText)
	}
	p := parser{name: name, rest: strings.TrimPrefix(string(text), bom)}
	if err := p.run(); err != nil {
		return File{}, nil, err
	}
	f := File{Options: grouped(p.opts)}
	if size := storedSize(f.Options); size > MaxText {
		return File{}, nil, tooLarge(name, size)
	}
	if p.more > 0 {
		p.warnings = append(p.warnings, Warning{Line: p.line, Text: fmt.Sprintf("and %d more warnings", p.more)})
	}
	return f, p.warnings, nil
}

// parser is the state of one Parse.
type parser struct {
	name     Name
	rest     string // text not read yet
	line     int    // number of the physical line read last
	section  string // that assignments belong to
	open     bool   // a section header has been seen
	skip     bool   // the section cannot be kept: ignore its assignments
	opts     []Option
	warnings []Warning
	more     int // warnings beyond maxWarnings
}

// run reads all lines and joins those that continue. A comment line is dropped, also inside a continuation;
// a blank line ends one, because it does not end in a backslash.
func (p *parser) run() error {
	var parts []string // of one logical line, without the backslashes that joined them
	start := 0         // physical line of the first part
	for p.rest != "" {
		line := p.next()
		if err := p.checkLine(line); err != nil {
			return err
		}
		if isComment(line) {
			continue
		}
		if len(parts) == 0 {
			start = p.line
		}
		if continues(line) {
			parts = append(parts, line[:len(line)-1])
			continue
		}
		parts = append(parts, line)
		if err := p.statement(parts, start); err != nil {
			return err
		}
		parts = parts[:0]
	}
	return p.statement(parts, start)
}

// next takes the next physical line off rest. A line ends in LF, CR, CRLF or LFCR, as in systemd's read_line.
func (p *parser) next() string {
	p.line++
	end := strings.IndexAny(p.rest, "\n\r")
	if end == -1 {
		line := p.rest
		p.rest = ""
		return line
	}
	line, eol := p.rest[:end], p.rest[end]
	p.rest = p.rest[end+1:]
	if p.rest != "" && p.rest[0] != eol && (p.rest[0] == '\n' || p.rest[0] == '\r') {
		p.rest = p.rest[1:]
	}
	return line
}

// checkLine refuses bytes that are no text.
func (p *parser) checkLine(line string) error {
	if strings.IndexByte(line, 0) >= 0 {
		return fault.New(fault.Invalid, "%s:%d: NUL byte in the line", p.name, p.line)
	}
	if !utf8.ValidString(line) {
		return fault.New(fault.Invalid, "%s:%d: the line is not valid UTF-8", p.name, p.line)
	}
	return nil
}

// statement handles one logical line, given as its parts.
func (p *parser) statement(parts []string, line int) error {
	whole := ""
	switch len(parts) {
	case 0:
	case 1:
		whole = trim(parts[0])
	default:
		whole = trim(strings.Join(parts, " "))
	}
	if whole == "" {
		return nil
	}
	if whole[0] == '[' {
		return p.header(whole, line)
	}
	if p.skip {
		return nil
	}
	p.assign(parts, line)
	return nil
}

// header handles "[Section]".
func (p *parser) header(whole string, line int) error {
	if len(whole) < 2 || whole[len(whole)-1] != ']' {
		return fault.New(fault.Invalid, `%s:%d: section header %q does not end in "]"`, p.name, line, clip(whole))
	}
	p.section, p.open, p.skip = whole[1:len(whole)-1], true, false
	switch {
	case p.section == "" || strings.Contains(p.section, "]"):
		p.skip = true
		p.warn(line, "%q is not a section name, ignoring the section", clip(p.section))
	case !knownSection(p.name.Kind(), p.section):
		p.warn(line, "unknown section [%s], ignoring it", clip(p.section))
	}
	return nil
}

// assign handles "key=value". The key, too, may be continued over lines.
func (p *parser) assign(parts []string, line int) {
	at, eq := 0, -1
	for ; at < len(parts); at++ {
		if eq = strings.IndexByte(parts[at], '='); eq >= 0 {
			break
		}
	}
	if eq < 0 {
		p.warn(line, `no "=" in %q, ignoring the line`, clip(trim(parts[0])))
		return
	}
	key := trim(parts[at][:eq])
	if at > 0 {
		key = trim(strings.Join(parts[:at], " ") + " " + parts[at][:eq])
	}
	if key == "" {
		p.warn(line, `no key before "=", ignoring the line`)
		return
	}
	if !p.open {
		p.warn(line, "%s= stands before the first section, ignoring it", clip(key))
		return
	}
	if unknownKey(p.section, key) {
		p.warn(line, "unknown key %s= in section [%s], ignoring it", clip(key), p.section)
	}
	parts[at] = parts[at][eq+1:]
	p.opts = append(p.opts, Option{Section: p.section, Name: key, Value: rawValue(parts[at:])})
}

// warn adds a warning.
func (p *parser) warn(line int, format string, args ...any) {
	if len(p.warnings) >= maxWarnings {
		p.more++
		return
	}
	p.warnings = append(p.warnings, Warning{Line: line, Text: fmt.Sprintf(format, args...)})
}

// rawValue gives the parts of a value in the form that Option.Value has. Blank parts at the end go, with the
// backslashes before them: systemd makes blanks of them and trims.
func rawValue(parts []string) string {
	for len(parts) > 1 && trim(parts[len(parts)-1]) == "" {
		parts = parts[:len(parts)-1]
	}
	value := ""
	if len(parts) == 1 {
		value = trim(parts[0])
	} else {
		value = trim(strings.Join(parts, "\\\n"))
	}
	if continues(value) {
		value += " "
	}
	return value
}

// continues reports whether a line ends in a backslash that is not itself escaped: an odd number of them.
func continues(line string) bool {
	end := len(line)
	for end > 0 && line[end-1] == '\\' {
		end--
	}
	return (len(line)-end)%2 == 1
}

// isComment reports whether the first character that is not blank is "#" or ";".
func isComment(line string) bool {
	line = strings.TrimLeft(line, blanks)
	return line != "" && (line[0] == '#' || line[0] == ';')
}

// trim cuts systemd's blanks off both ends.
func trim(s string) string { return strings.Trim(s, blanks) }

// clip shortens s for a message.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// knownSection says whether systemd, Quadlet, fleet or Flota reads the section in a unit of this kind.
// Sections that start with X- are for other programs and never warned of.
func knownSection(kind Kind, section string) bool {
	switch section {
	case "Unit", "Install":
		return true
	case "Service", "Quadlet":
		return kind == Service && section == "Service" || kind == Container
	}
	if strings.HasPrefix(section, "X-") {
		return true
	}
	return len(section) == len(kind) && kind != "" && section[0] == kind[0]-'a'+'A' && section[1:] == string(kind[1:])
}
