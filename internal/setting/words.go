package setting

import (
	"strings"
	"unicode/utf8"

	"flota/internal/fault"
)

// Words splits s at unquoted blanks, removes quotes of both kinds and resolves C escapes. An escape that is
// not known stays as it is, with its backslash: `a\qb` is `a\qb`, and `e\ f` is one word. Quotes may open
// anywhere in a word; "" is an empty word. An unbalanced quote is fault.Invalid.
func Words(s string) ([]string, error) { return allWords(s, relaxed) }

// WordsStrict is Words, but an unknown escape is fault.Invalid. Environment= is read so.
func WordsStrict(s string) ([]string, error) { return allWords(s, strict) }

// PlainWords is Words without escapes: a backslash is an ordinary character. Lists of unit names,
// capabilities and the like are read so.
func PlainWords(s string) ([]string, error) { return allWords(s, verbatim) }

// PathWords is Words, but a backslash only makes the next byte an ordinary one. Lists of paths are read so.
// A backslash at the end is fault.Invalid.
func PathWords(s string) ([]string, error) { return allWords(s, removed) }

// escapes says what a backslash means to a word reader.
type escapes int

const (
	relaxed  escapes = iota // C escapes; unknown ones stay
	strict                  // C escapes; unknown ones are an error
	verbatim                // no escapes
	removed                 // a backslash is taken away and the next byte stays
)

func allWords(s string, mode escapes) ([]string, error) {
	var words []string
	for {
		w, rest, ok, err := nextWord(s, mode)
		if err != nil {
			return nil, err
		}
		if !ok {
			return words, nil
		}
		words, s = append(words, w), rest
	}
}

// NextWord takes the first word off s by the rules of Words and gives it with the rest, whose leading
// blanks are gone. ok is false at the end of s.
func NextWord(s string) (word, rest string, ok bool, err error) { return nextWord(s, relaxed) }

func nextWord(s string, mode escapes) (word, rest string, ok bool, err error) {
	s = strings.TrimLeft(s, blanks)
	if s == "" {
		return "", "", false, nil
	}
	var out []byte
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && mode != verbatim:
			text, n, err := escape(s[i:], mode)
			if err != nil {
				return "", "", false, err
			}
			out, i = append(out, text...), i+n-1
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			return string(out), strings.TrimLeft(s[i:], blanks), true, nil
		default:
			out = append(out, c)
		}
	}
	if quote != 0 {
		return "", "", false, fault.New(fault.Invalid, "unbalanced %c in %q", quote, s)
	}
	return string(out), "", true, nil
}

// escape resolves the escape that s begins with and gives its text and its length in s.
func escape(s string, mode escapes) (text []byte, n int, err error) {
	if mode == removed && len(s) > 1 {
		return []byte{s[1]}, 2, nil
	}
	if text, n, ok := Unescape(s); ok && mode != removed {
		return text, n, nil
	}
	if mode != relaxed {
		return nil, 0, fault.New(fault.Invalid, "unknown escape in %q", s)
	}
	if len(s) < 2 {
		return []byte(s), len(s), nil
	}
	return []byte(s[:2]), 2, nil
}

// simpleEscapes are the escapes of one letter. Source: systemd.syntax(7), Quoting.
var simpleEscapes = map[byte]byte{
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
	'\\': '\\', '"': '"', '\'': '\'', 's': ' ',
}

// Unescape resolves the C escape that s begins with: \a \b \f \n \r \t \v \\ \" \' \s, \xHH, \OOO, \uHHHH or
// \UHHHHHHHH. n is its length in s. ok is false when s begins with none of these, or with one for NUL or for what
// is no character.
func Unescape(s string) (text []byte, n int, ok bool) {
	if len(s) < 2 || s[0] != '\\' {
		return nil, 0, false
	}
	if c, ok := simpleEscapes[s[1]]; ok {
		return []byte{c}, 2, true
	}
	switch s[1] {
	case 'x':
		if v, ok := number(s[2:], 2, 16); ok && v != 0 {
			return []byte{byte(v)}, 4, true
		}
	case 'u':
		if v, ok := number(s[2:], 4, 16); ok && v != 0 && utf8.ValidRune(rune(v)) {
			return utf8.AppendRune(nil, rune(v)), 6, true
		}
	case 'U':
		if v, ok := number(s[2:], 8, 16); ok && v != 0 && isCharacter(v) {
			return utf8.AppendRune(nil, rune(v)), 10, true
		}
	default:
		if v, ok := number(s[1:], 3, 8); ok && v != 0 && v <= 255 {
			return []byte{byte(v)}, 4, true
		}
	}
	return nil, 0, false
}

// isCharacter reports whether v is a code point that \U may name: no surrogate and none of Unicode's noncharacters.
func isCharacter(v uint64) bool {
	return v <= utf8.MaxRune && utf8.ValidRune(rune(v)) && v&0xFFFE != 0xFFFE && (v < 0xFDD0 || v > 0xFDEF)
}

// number reads exactly n digits of base at the start of s.
func number(s string, n int, base uint64) (v uint64, ok bool) {
	if len(s) < n {
		return 0, false
	}
	for _, c := range []byte(s[:n]) {
		d := uint64(99)
		switch {
		case c >= '0' && c <= '9':
			d = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			d = uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = uint64(c-'A') + 10
		}
		if d >= base {
			return 0, false
		}
		v = v*base + d
	}
	return v, true
}
