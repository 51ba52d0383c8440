package token

import (
	"slices"
	"strings"
)

// Grant is what a caller may do with the applications' keys. The zero value allows nothing. Safe for concurrent use.
type Grant struct {
	Prefixes []Prefix
	All      bool // everything, reading and writing; Prefixes do not count then

	read, write []span // of Prefixes, sorted, apart from each other; nil: not made yet (see GrantOf)
}

// span is the keys from, inclusive, to to, exclusive; to "" has no end.
type span struct{ from, to string }

// GrantOf prepares what a token with these prefixes may do. A Grant made by hand works too, but works its spans out at each question.
func GrantOf(prefixes []Prefix) Grant {
	return Grant{Prefixes: prefixes, read: spans(prefixes, false), write: spans(prefixes, true)}
}

// Allows says whether the caller may read (or, with write, change) the key, or with a rangeEnd every key from key to before rangeEnd. As in
// etcd, rangeEnd "\x00" means to the end of all keys. A range that holds nothing, because it ends before it begins, is judged by key alone.
func (g Grant) Allows(key, rangeEnd []byte, write bool) bool {
	if g.All {
		return true
	}
	ask := span{from: string(key), to: string(rangeEnd)}
	switch {
	case ask.to == "\x00":
		ask.to = ""
	case ask.to <= ask.from: // one key (rangeEnd is empty), or none
		ask.to = ask.from + "\x00"
	}
	have := g.read
	if write {
		have = g.write
	}
	if have == nil {
		have = spans(g.Prefixes, write)
	}
	i, exact := slices.BinarySearchFunc(have, ask.from, func(s span, from string) int { return strings.Compare(s.from, from) })
	if !exact {
		i-- // the last span that begins before the question does
	}
	return i >= 0 && have[i].holds(ask)
}

// holds says whether every key of o, which does not begin before s, is in s.
func (s span) holds(o span) bool { return s.to == "" || o.to != "" && o.to <= s.to }

// spans gives the keys that the prefixes open as sorted spans with keys between them that are not opened: what overlaps or touches is one.
func spans(prefixes []Prefix, write bool) []span {
	all := []span{}
	for _, p := range prefixes {
		if p.Write || !write {
			all = append(all, p.spans()...)
		}
	}
	slices.SortFunc(all, func(a, b span) int { return strings.Compare(a.from, b.from) })
	out := []span{}
	for _, s := range all {
		last := len(out) - 1
		switch {
		case last < 0 || out[last].to != "" && out[last].to < s.from:
			out = append(out, s)
		case out[last].to != "" && (s.to == "" || s.to > out[last].to):
			out[last].to = s.to
		}
	}
	return out
}

// spans gives the keys of one prefix.
func (p Prefix) spans() []span {
	if p.Path == "" {
		return []span{{}}
	}
	path, dir := strings.CutSuffix(p.Path, "/")
	below := span{from: path + "/", to: path + "0"} // "0" follows "/"
	if dir {
		return []span{below}
	}
	return []span{{from: path, to: path + "\x00"}, below}
}
