package unit

import (
	"path"
	"slices"
	"strings"

	"flota/internal/fault"
)

// xFleet is the section with fleet's options.
const xFleet = "X-Fleet"

// maxValues is how many values one option of [X-Fleet] may have in a unit. Each is compared with each of another
// option, and globs with every unit of the cluster. A thousand is the largest cluster fleet was made for.
const maxValues = 1000

// Fleet is what [X-Fleet] asks of the placement of a unit; the zero value asks nothing.
// Source of all rules: facts on fleet, section 3.1.
type Fleet struct {
	// MachineID is the only machine that will do: a whole ID or its first eight digits; "" for any.
	MachineID string
	// MachineOf are units that must be on the same machine.
	MachineOf []Name
	// Metadata: for each key one of the values must be the machine's label; nil for none.
	Metadata map[string][]string
	// Conflicts are globs of units that must not be on the same machine; either side's glob counts.
	Conflicts []string
	// Replaces are globs of units that have to leave the machine for this one.
	Replaces []string
	// Global units run on every machine that fits.
	Global bool
}

// Fleet reads [X-Fleet] for the unit n, with the deprecated names and the specifiers %n %N %p %i. Unless n is a
// template, a MachineOf= that is no unit name and a malformed glob are errors, because fleet would silently
// never match them; so are more than 1,000 values of an option: fault.Invalid.
func (f File) Fleet(n Name) (Fleet, error) {
	fl, err := f.fleet(n)
	if err != nil || n.IsTemplate() {
		return fl, err
	}
	for _, peer := range fl.MachineOf {
		if _, err := ParseName(string(peer)); err != nil {
			return Fleet{}, fault.Wrap(fault.Invalid, err, "%s: [X-Fleet] MachineOf=%s", n, clip(string(peer)))
		}
	}
	if err := checkGlobs(n, "Conflicts", fl.Conflicts); err != nil {
		return Fleet{}, err
	}
	if err := checkGlobs(n, "Replaces", fl.Replaces); err != nil {
		return Fleet{}, err
	}
	return fl, nil
}

// checkGlobs refuses a malformed glob.
func checkGlobs(n Name, key string, globs []string) error {
	for _, glob := range globs {
		if _, err := path.Match(glob, ""); err != nil {
			return fault.New(fault.Invalid, "%s: [X-Fleet] %s=%s: malformed pattern", n, key, clip(glob))
		}
	}
	return nil
}

// fleet reads [X-Fleet] and checks no more than the number of values.
func (f File) fleet(n Name) (Fleet, error) {
	if !f.Has(xFleet) {
		return Fleet{}, nil
	}
	r := &fleetReader{file: f, specifiers: strings.NewReplacer(
		"%n", string(n), "%N", n.Base(), "%p", n.Prefix(), "%i", n.Instance())}
	fl := Fleet{
		MachineID: r.first("MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"),
		Conflicts: r.words("X-Conflicts", "Conflicts"),
		Replaces:  r.words("Replaces"),
	}
	for _, peer := range r.words("X-ConditionMachineOf", "MachineOf") {
		fl.MachineOf = append(fl.MachineOf, Name(peer))
	}
	for _, pair := range r.values("X-ConditionMachineMetadata", "MachineMetadata") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || value == "" || strings.Contains(value, "=") || slices.Contains(fl.Metadata[key], value) {
			continue // fleet ignores what is not one key=value
		}
		if fl.Metadata == nil {
			fl.Metadata = map[string][]string{}
		}
		fl.Metadata[key] = append(fl.Metadata[key], value)
	}
	if all := r.values("Global"); len(all) > 0 {
		fl.Global = truthy(all[len(all)-1])
	}
	if r.over != "" {
		return Fleet{}, fault.New(fault.Invalid, "%s: [X-Fleet] %s= has more than %d values, or too many specifiers", n, r.over, maxValues)
	}
	return fl, nil
}

// fleetReader reads values of [X-Fleet] with specifiers replaced.
type fleetReader struct {
	file       File
	specifiers *strings.Replacer
	over       string // a key with more values or specifiers than are allowed, which are cut off
}

// bound cuts all to maxValues and remembers the key if it had to.
func (r *fleetReader) bound(key string, all []string) []string {
	if len(all) <= maxValues {
		return all
	}
	r.over = key
	return all[:maxValues]
}

// values gives the values of the keys, those of the first key first.
func (r *fleetReader) values(keys ...string) []string {
	var all []string
	for _, key := range keys {
		for _, value := range r.file.All(xFleet, key) {
			for _, one := range quoted(value) {
				if strings.Count(one, "%")*maxName > MaxText {
					r.over = key // what it expands to could be hundreds of times a unit
					continue
				}
				all = append(all, r.specifiers.Replace(one))
			}
		}
	}
	return r.bound(keys[len(keys)-1], all)
}

// words gives the blank-separated words of the values.
func (r *fleetReader) words(keys ...string) []string {
	var all []string
	for _, value := range r.values(keys...) {
		all = append(all, strings.Fields(value)...)
	}
	return r.bound(keys[len(keys)-1], all)
}

// first gives the first value that is not empty, looking at the keys in order; "" for none.
func (r *fleetReader) first(keys ...string) string {
	for _, value := range r.values(keys...) {
		if value != "" {
			return value
		}
	}
	return ""
}

// quoted splits a value that starts and ends in a double quote into its quoted parts, at blanks outside quotes,
// as fleet does for `"a=b" "c=d"`. Any other value is one part, quotes and all.
func quoted(value string) []string {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return []string{value}
	}
	var parts []string
	var part strings.Builder
	inside := false
	for _, c := range []byte(value) {
		switch {
		case c == '"':
			inside = !inside
		case (c == ' ' || c == '\t') && !inside:
			if part.Len() > 0 {
				parts = append(parts, part.String())
				part.Reset()
			}
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}

// truthy is fleet's reading of a boolean: anything else is false.
func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "true", "yes", "1", "on", "t":
		return true
	}
	return false
}

// unknownKey says whether key means nothing in a section whose keys this room knows: [X-Fleet], [X-Flota].
func unknownKey(section, key string) bool {
	switch section {
	case xFleet:
		switch key {
		case "MachineID", "MachineOf", "MachineMetadata", "Conflicts", "Replaces", "Global", "X-Conflicts",
			"X-ConditionMachineID", "X-ConditionMachineBootID", "X-ConditionMachineOf", "X-ConditionMachineMetadata":
			return false
		}
		return true
	case xFlota:
		return key != "Exclusive" && key != "Memory" && key != "CPU"
	}
	return false
}

// Unknown lists the keys of [X-Fleet] and [X-Flota] that mean nothing, each once, as "[X-Fleet] Key".
func (f File) Unknown() []string {
	var all []string
	seen := map[string]bool{}
	for _, o := range f.Options {
		if !unknownKey(o.Section, o.Name) {
			continue
		}
		if s := "[" + o.Section + "] " + o.Name; !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}
