package scheduler

import (
	"path"
	"slices"
	"strings"

	"maps"

	"flota/internal/unit"
)

// Prepare reads what a stored unit asks for. It never fails: what cannot be read is told in Bad.
func Prepare(u unit.Unit) Unit {
	p := Unit{Unit: u, Hash: u.Hash()}
	file := u.File()
	if u.Name.IsTemplate() {
		p.Bad = "it is a template: only its instances run"
		return p
	}
	fleet, err := file.Fleet(u.Name)
	if err != nil {
		p.Bad = err.Error()
		return p
	}
	flota, err := file.Flota(u.Name)
	if err != nil {
		p.Bad = err.Error()
		return p
	}
	p.Fleet, p.Exclusive, p.Needs = fleet, flota.Exclusive, flota.Needs
	p.compile()
	return p
}

// compile fills what is derived from the exported fields, for quick comparison.
func (u *Unit) compile() {
	if u.Name.IsInstance() {
		u.template = u.Name.Template()
	}
	u.metadata = nil
	u.conflicts, u.replaces = globs(u.Fleet.Conflicts), globs(u.Fleet.Replaces)
	var b strings.Builder
	if u.Fleet.MachineID != "" {
		b.WriteString("\x00" + u.Fleet.MachineID)
	}
	for _, k := range slices.Sorted(maps.Keys(u.Fleet.Metadata)) {
		u.metadata = append(u.metadata, wish{k, u.Fleet.Metadata[k]})
		b.WriteString("\x01" + k)
		for _, v := range u.Fleet.Metadata[k] {
			b.WriteString("\x02" + v)
		}
	}
	u.wants = b.String()
}

// wish is a label that a unit asks for: one of the values.
type wish struct {
	key    string
	values []string
}

// wanted says whether the unit is to be on a machine.
func (u *Unit) wanted() bool { return u.Target == unit.Loaded || u.Target == unit.Launched }

// glob is a pattern of path.Match with the part before its first special character, which tells most names apart.
type glob struct {
	pattern string
	prefix  string
	literal bool   // no special characters: pattern is the only match
	first   uint64 // the first bytes of prefix, as head gives them
	mask    uint64 // which of them count
}

// head is the first eight bytes of a name as a number, for a quick look whether a glob may match.
func head(s string) (n uint64) {
	for k := range 8 {
		n <<= 8
		if k < len(s) {
			n |= uint64(s[k])
		}
	}
	return n
}

// globs compiles patterns. Malformed ones match nothing, as in fleet.
func globs(patterns []string) []glob {
	var all []glob
	for _, p := range patterns {
		g := glob{pattern: p, prefix: p, literal: true}
		if i := strings.IndexAny(p, `*?[\`); i >= 0 {
			g.prefix, g.literal = p[:i], false
		}
		g.first, g.mask = head(g.prefix), ^uint64(0)
		if n := len(g.prefix); n < 8 {
			g.mask <<= 8 * (8 - n)
		}
		all = append(all, g)
	}
	return all
}

// match says whether one of the globs matches n.
func match(all []glob, n unit.Name) bool {
	for i := range all {
		g := &all[i]
		if g.literal {
			if g.pattern == string(n) {
				return true
			}
			continue
		}
		if strings.HasPrefix(string(n), g.prefix) {
			if ok, _ := path.Match(g.pattern, string(n)); ok {
				return true
			}
		}
	}
	return false
}
