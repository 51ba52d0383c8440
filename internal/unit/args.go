package unit

import (
	"path"
	"strconv"
	"strings"

	"flota/internal/fault"
)

// maxNames is how many names one command may stand for; a typing error in a range must not fill the memory.
const maxNames = 10_000

// maxBraceArg is the longest argument with braces, in bytes: the longest path on Linux. With maxNames it bounds
// what an expansion can take (40 MB).
const maxBraceArg = 4096

// maxBraceDepth is how deep braces may nest.
const maxBraceDepth = 16

// ExpandArgs replaces braces as a shell does, so that names work quoted and from programs: "app@{1..3}" counts,
// up or down and with leading zeros kept, "{web,db}" lists, and both may stand side by side and nest. Braces with
// neither ".." nor "," stay as they are. More than 10,000 names in all, and braces without end, are refused before
// anything is built: fault.Invalid.
func ExpandArgs(args []string) ([]string, error) {
	trees := make([]sequence, len(args))
	total := 0
	for i, arg := range args {
		if !strings.Contains(arg, "{") {
			total++
			continue
		}
		if len(arg) > maxBraceArg {
			return nil, fault.New(fault.Invalid, "argument %q is %d bytes, the limit with braces is %d", clip(arg), len(arg), maxBraceArg)
		}
		tree, err := parseBraces(arg)
		if err != nil {
			return nil, err
		}
		trees[i] = tree
		total += tree.count()
		if total > maxNames {
			return nil, fault.New(fault.Invalid, "%q stands for too many names: the limit is %d in one command", clip(arg), maxNames)
		}
	}
	if total > maxNames {
		return nil, fault.New(fault.Invalid, "%d names are too many: the limit is %d in one command", total, maxNames)
	}
	all := make([]string, 0, total)
	for i, arg := range args {
		if trees[i] == nil {
			all = append(all, arg)
			continue
		}
		all = append(all, trees[i].expand()...)
	}
	return all, nil
}

// sequence is an argument as parts that follow each other.
type sequence []part

// part is plain text, a list of alternatives, or a range; exactly one of the three.
type part struct {
	text string
	list []sequence
	rng  *numbers
}

// numbers is a range of numbers, both ends included; from may be above to.
type numbers struct{ from, to, width int }

// add appends p; text after text becomes one part, so that only parts with several choices cost an expansion.
func (s sequence) add(p part) sequence {
	if last := len(s) - 1; last >= 0 && p.isText() && s[last].isText() {
		s[last].text += p.text
		return s
	}
	return append(s, p)
}

func (p part) isText() bool { return p.list == nil && p.rng == nil }

// count gives how many names a sequence stands for; anything above maxNames is maxNames+1.
func (s sequence) count() int {
	product := 1
	for _, p := range s {
		product = min(product*p.count(), maxNames+1) // both at most 10,001: no overflow
	}
	return product
}

func (p part) count() int {
	switch {
	case p.rng != nil:
		return min(max(p.rng.to-p.rng.from, p.rng.from-p.rng.to), maxNames) + 1
	case p.list != nil:
		sum := 0
		for _, alternative := range p.list {
			sum = min(sum+alternative.count(), maxNames+1)
		}
		return sum
	}
	return 1
}

// expand gives the names in the order of a shell: the last part changes fastest.
func (s sequence) expand() []string {
	names := []string{""}
	for _, p := range s {
		options := p.expand()
		if len(options) == 1 {
			for i := range names {
				names[i] += options[0]
			}
			continue
		}
		next := make([]string, 0, len(names)*len(options))
		for _, name := range names {
			for _, option := range options {
				next = append(next, name+option)
			}
		}
		names = next
	}
	return names
}

func (p part) expand() []string {
	switch {
	case p.rng != nil:
		all := make([]string, 0, p.count())
		step := 1
		if p.rng.from > p.rng.to {
			step = -1
		}
		for n := p.rng.from; ; n += step {
			all = append(all, pad(n, p.rng.width))
			if n == p.rng.to {
				return all
			}
		}
	case p.list != nil:
		var all []string
		for _, alternative := range p.list {
			all = append(all, alternative.expand()...)
		}
		return all
	}
	return []string{p.text}
}

// pad prints n with leading zeros up to width characters.
func pad(n, width int) string {
	digits := strconv.Itoa(n)
	return strings.Repeat("0", max(width-len(digits), 0)) + digits
}

// parseBraces reads one argument.
func parseBraces(arg string) (sequence, error) {
	b := braces{arg: arg}
	all, err := b.sequence(0)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// braces reads an argument from left to right.
type braces struct {
	arg string
	at  int
}

// sequence reads up to the end or, inside braces, up to a "," or "}" that belongs to them.
func (b *braces) sequence(depth int) (sequence, error) {
	if depth > maxBraceDepth {
		return nil, fault.New(fault.Invalid, "argument %q nests braces deeper than %d", clip(b.arg), maxBraceDepth)
	}
	all := sequence{}
	for b.at < len(b.arg) {
		switch c := b.arg[b.at]; {
		case c == '{':
			parts, err := b.group(depth)
			if err != nil {
				return nil, err
			}
			for _, p := range parts {
				all = all.add(p)
			}
		case depth > 0 && (c == ',' || c == '}'):
			return all, nil
		default:
			start := b.at
			for b.at < len(b.arg) && b.arg[b.at] != '{' && (depth == 0 || b.arg[b.at] != ',' && b.arg[b.at] != '}') {
				b.at++
			}
			all = all.add(part{text: b.arg[start:b.at]})
		}
	}
	return all, nil
}

// group reads "{...}".
func (b *braces) group(depth int) (sequence, error) {
	start := b.at
	b.at++
	var list []sequence
	for {
		alternative, err := b.sequence(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, alternative)
		if b.at == len(b.arg) {
			return nil, fault.New(fault.Invalid, `argument %q has a "{" without its "}"`, clip(b.arg))
		}
		b.at++
		if b.arg[b.at-1] == '}' {
			break
		}
	}
	if len(list) > 1 {
		return sequence{{list: list}}, nil
	}
	rng, err := parseRange(b.arg[start+1 : b.at-1])
	if err != nil {
		return nil, err
	}
	if rng != nil && rng.from == rng.to {
		return sequence{{text: pad(rng.from, rng.width)}}, nil
	}
	if rng != nil {
		return sequence{{rng: rng}}, nil
	}
	plain := append(sequence{{text: "{"}}, list[0]...)
	return append(plain, part{text: "}"}), nil
}

// parseRange reads "1..3"; nil if it is no range.
func parseRange(s string) (*numbers, error) {
	from, to, ok := strings.Cut(s, "..")
	if !ok || from == "" || to == "" || strings.Trim(from+to, "0123456789") != "" {
		return nil, nil
	}
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil {
		return nil, fault.New(fault.Invalid, "range {%s} has a number that is too large", clip(s))
	}
	r := &numbers{from: first, to: last}
	if from[0] == '0' && len(from) > 1 || to[0] == '0' && len(to) > 1 {
		r.width = max(len(from), len(to))
	}
	return r, nil
}

// IsGlob reports whether arg is a pattern and not a name: it has one of * ? [ in it.
func IsGlob(arg string) bool { return strings.ContainsAny(arg, "*?[") }

// MatchGlob reports whether name matches the pattern: equal, or by the rules of path.Match, which are fleet's.
// A malformed pattern matches only itself. A backslash in a pattern quotes the next character; "web\x2d*" for
// names with an escape is written `web\\x2d*`.
func MatchGlob(pattern string, name Name) bool {
	if pattern == string(name) {
		return true
	}
	ok, err := path.Match(pattern, string(name))
	return ok && err == nil
}
