package setting

import "strings"

// Substitute replaces variables in the words of a command, just before it is run.
//
// A word that begins with $ and goes on with neither { nor $ is the name of a variable, to its end: its value is split
// at blanks (quotes respected) into any number of words, none when it is unset. In other words ${NAME} becomes
// the value, nothing when unset, and $$ a single $; everything else stays, ${NAME:-x} and a lone $NAME in
// mid-word too. Source: systemd.service(5), Command Lines; env-util.c of systemd 252.
func Substitute(argv []string, lookup func(name string) (value string, ok bool)) []string {
	out := make([]string, 0, len(argv))
	for _, w := range argv {
		if strings.HasPrefix(w, "$") && !strings.HasPrefix(w, "${") && !strings.HasPrefix(w, "$$") {
			if value, ok := lookup(w[1:]); ok {
				out = append(out, looseWords(value)...)
			}
			continue
		}
		out = append(out, substituteWord(w, lookup))
	}
	return out
}

func substituteWord(w string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(w, '$')
		if at < 0 {
			break
		}
		out.WriteString(w[:at])
		w = w[at:]
		switch {
		case strings.HasPrefix(w, "$$"):
			out.WriteByte('$')
			w = w[2:]
		case strings.HasPrefix(w, "${"):
			end := strings.IndexAny(w, "}:")
			if end < 0 {
				out.WriteString(w)
				return out.String()
			}
			if w[end] == ':' {
				out.WriteString(w[:end+1])
			} else if value, ok := lookup(w[2:end]); ok {
				out.WriteString(value)
			}
			w = w[end+1:]
		case len(w) == 1:
			out.WriteString(w)
			return out.String()
		default:
			out.WriteString(w[:2])
			w = w[2:]
		}
	}
	out.WriteString(w)
	return out.String()
}

// looseWords splits the value of a variable: quotes are removed, a backslash makes the next byte ordinary, and what
// is unbalanced ends with the text.
func looseWords(s string) []string {
	var words []string
	var word []byte
	open, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			open = true
			if i++; i < len(s) {
				word = append(word, s[i])
			}
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, open = c, true
		case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			if open {
				words = append(words, string(word))
			}
			word, open = word[:0], false
		default:
			word, open = append(word, c), true
		}
	}
	if open {
		words = append(words, string(word))
	}
	return words
}
