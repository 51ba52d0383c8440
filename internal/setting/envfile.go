package setting

import "strings"

// fileState is where an environment file's reader is.
type fileState int

const (
	beforeKey fileState = iota
	inKey
	beforeValue // also after a closing quote
	inValue
	inValueEscape
	inSingle
	inDouble
	inDoubleEscape
	inComment
	inCommentEscape
)

// fileReader reads an environment file byte by byte.
type fileReader struct {
	state fileState
	key   []byte
	value []byte
	keep  int // this much of value is not to be trimmed: it was quoted or escaped
	env   []string
	bad   []string
}

// EnvFile reads the content of an EnvironmentFile=. It gives NAME=value assignments, one per name, in order of
// first use; and the names that are no variable names (or whose value is not UTF-8), which are skipped.
//
// Lines whose first non-blank byte is # or ; are comments. An unquoted value ends with the line, without trailing
// blanks; \x in it is x, a backslash at the end joins lines, a later quote is literal. '…' is verbatim over lines;
// in "…" a backslash counts only before " \ ` $ and a line end. Text after a closing quote is appended.
// Nothing is expanded. Source: systemd 252, env-file.c, as told in systemd.exec(5).
func EnvFile(content string) (env, bad []string) {
	var r fileReader
	for _, c := range []byte(content) {
		r.next(c)
	}
	switch r.state {
	case inValue, beforeValue, inValueEscape, inSingle, inDouble, inDoubleEscape:
		r.push()
	}
	return r.env, r.bad
}

func (r *fileReader) next(c byte) {
	blank, end := strings.IndexByte(blanks, c) >= 0, c == '\n' || c == '\r'
	switch r.state {
	case beforeKey:
		if c == '#' || c == ';' {
			r.state = inComment
		} else if !blank {
			r.state, r.key = inKey, append(r.key[:0], c)
		}
	case inKey:
		switch {
		case end:
			r.state = beforeKey
		case c == '=':
			r.state, r.value, r.keep = beforeValue, r.value[:0], 0
		default:
			r.key = append(r.key, c)
		}
	case beforeValue, inValue:
		r.nextOfValue(c, blank, end)
	case inValueEscape:
		if r.state = inValue; !end {
			r.add(c)
		}
	case inSingle:
		if c == '\'' {
			r.state = beforeValue
		} else {
			r.add(c)
		}
	case inDouble:
		switch c {
		case '"':
			r.state = beforeValue
		case '\\':
			r.state = inDoubleEscape
		default:
			r.add(c)
		}
	case inDoubleEscape:
		r.state = inDouble
		if strings.IndexByte("\"\\`$", c) >= 0 {
			r.add(c)
		} else if c != '\n' {
			r.add('\\')
			r.add(c)
		}
	case inComment:
		if end {
			r.state = beforeKey
		} else if c == '\\' {
			r.state = inCommentEscape
		}
	case inCommentEscape:
		r.state = inComment
	}
}

func (r *fileReader) nextOfValue(c byte, blank, end bool) {
	switch {
	case end:
		r.push()
		r.state = beforeKey
	case c == '\\':
		r.state, r.keep = inValueEscape, len(r.value)
	case r.state == inValue:
		r.value = append(r.value, c)
	case c == '\'':
		r.state = inSingle
	case c == '"':
		r.state = inDouble
	case !blank:
		r.state, r.value = inValue, append(r.value, c)
	}
}

// add appends a byte that trimming must spare.
func (r *fileReader) add(c byte) {
	r.value = append(r.value, c)
	r.keep = len(r.value)
}

// push ends an assignment.
func (r *fileReader) push() {
	key := strings.TrimRight(string(r.key), blanks)
	value := string(r.value[:r.keep]) + strings.TrimRight(string(r.value[r.keep:]), blanks)
	if !CheckEnvName(key) || !checkEnvValue(value) {
		r.bad = append(r.bad, key)
		return
	}
	r.env = SetEnv(r.env, key+"="+value)
}
