// Package unit holds what a person asks Flota to run: unit names, unit files in systemd's syntax, the
// options of [X-Fleet] and [X-Flota] in them, and what is stored of units, their places and their states.
//
// The invariant: a File that Parse gave prints (Text) to a text that parses to the same File, and so to the
// same Hash on every machine. An option that CheckOptions accepted cannot smuggle in another option or section
// when it is printed.
//
// The package knows the syntax of unit files, not the meaning of the keys in [Service] and the like: that is
// room service. It never expands specifiers outside [X-Fleet], and never reads a clock, a disk or the network.
//
// Start reading at Name (name.go), File (here), Parse (parse.go) and Unit (stored.go).
package unit

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
)

// Option is one assignment of a unit file. Crosses fleet's API in this form.
type Option struct {
	Section string `json:"section"` // without brackets
	Name    string `json:"name"`    // the key
	// Value is raw, as fleet keeps it: trimmed, and a continuation stands in it as backslash and newline.
	// If the trimmed value ends in a lone backslash, one blank stays after it, so that the printed line does
	// not swallow the next. Joined gives what systemd sees.
	Value string `json:"value"`
}

// Joined gives the value as systemd sees it: each continuation (backslash, newline) replaced by one blank,
// comment lines inside it left out, and trimmed.
func (o Option) Joined() string {
	if !strings.Contains(o.Value, "\n") {
		return trim(o.Value)
	}
	var b strings.Builder
	lines := strings.Split(o.Value, "\n")
	for i, line := range lines {
		if i > 0 && isComment(line) {
			continue
		}
		if i < len(lines)-1 && continues(line) {
			b.WriteString(line[:len(line)-1])
			b.WriteByte(' ')
			continue
		}
		b.WriteString(line)
	}
	return trim(b.String())
}

// File is the content of a unit: its options grouped by section, sections in the order first seen.
// The zero value is an empty file.
type File struct {
	Options []Option `json:"options"`
}

// All gives the joined values of every assignment of the key, in order; nil for none.
func (f File) All(section, name string) []string {
	var all []string
	for _, o := range f.Options {
		if o.Name == name && o.Section == section {
			all = append(all, o.Joined())
		}
	}
	return all
}

// Last gives the joined value of the last assignment of the key, which may be empty, and whether there is one.
func (f File) Last(section, name string) (string, bool) {
	for i := len(f.Options) - 1; i >= 0; i-- {
		if o := f.Options[i]; o.Name == name && o.Section == section {
			return o.Joined(), true
		}
	}
	return "", false
}

// List gives the joined values of a key whose assignments add up and whose empty assignment forgets those
// before it, as ExecStart= and Environment= do; nil for none.
func (f File) List(section, name string) []string {
	all := f.All(section, name)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] != "" {
			continue
		}
		if i == len(all)-1 {
			return nil
		}
		return all[i+1:]
	}
	return all
}

// Has reports whether the file has an option in the section.
func (f File) Has(section string) bool {
	for _, o := range f.Options {
		if o.Section == section {
			return true
		}
	}
	return false
}

// Text gives fleet's normalised text: sections in the order first seen, "[S]" and "k=v" lines, one empty line
// between sections, no comments. Source: facts on fleet, section 3.3.
func (f File) Text() string { return string(f.text()) }

// Hash is fleet's hash: the SHA-1 of Text, 40 hex digits.
func (f File) Hash() string {
	sum := sha1.Sum(f.text())
	return hex.EncodeToString(sum[:])
}

// text is Text as bytes.
func (f File) text() []byte {
	size := 0
	for _, o := range f.Options {
		size += len(o.Name) + len(o.Value) + 2
	}
	text := make([]byte, 0, size+64)
	section, first := "", true
	for _, o := range grouped(f.Options) {
		if first || o.Section != section {
			if !first {
				text = append(text, '\n')
			}
			text = append(text, '[')
			text = append(text, o.Section...)
			text = append(text, "]\n"...)
			section, first = o.Section, false
		}
		text = append(text, o.Name...)
		text = append(text, '=')
		text = append(text, o.Value...)
		text = append(text, '\n')
	}
	return text
}

// grouped brings the options of one section together, sections and options in the order first seen.
// It gives opts itself if they are grouped already.
func grouped(opts []Option) []Option {
	index := map[string]int{} // section -> its place among the sections
	var counts []int          // options of each section
	runs := 0                 // stretches of options of one section
	for i, o := range opts {
		if i > 0 && o.Section == opts[i-1].Section {
			counts[index[o.Section]]++
			continue
		}
		runs++
		at, seen := index[o.Section]
		if !seen {
			at = len(counts)
			index[o.Section] = at
			counts = append(counts, 0)
		}
		counts[at]++
	}
	if runs == len(counts) {
		return opts
	}
	next := make([]int, len(counts)) // where the next option of each section goes
	for i := 1; i < len(next); i++ {
		next[i] = next[i-1] + counts[i-1]
	}
	all := make([]Option, len(opts))
	for _, o := range opts {
		at := index[o.Section]
		all[next[at]] = o
		next[at]++
	}
	return all
}
