package journal

import (
	"bytes"
	"time"
)

// Line is one record.
type Line struct {
	Time   time.Time
	Stream string // stdout, or flota for what is said of the unit
	Text   string // without the line end
	More   bool   // the unit's line goes on in the next record of this stream
}

// maxText is the longest text of one record; longer lines are split. 64 KiB holds any line that people read.
const maxText = 64 << 10

// The streams as they stand in the files.
const (
	streamOut   = "out"
	streamFlota = "flota"
)

// timeForm has microseconds always, so that records sort as text.
const timeForm = "2006-01-02T15:04:05.000000Z"

// appendText appends text as records, one for each of its lines, long ones split.
func appendText(b []byte, now time.Time, stream string, text []byte) []byte {
	for {
		line, rest, found := bytes.Cut(text, []byte{'\n'})
		for len(line) > maxText {
			b = appendRecord(b, now, stream, line[:maxText], true)
			line = line[maxText:]
		}
		b = appendRecord(b, now, stream, line, false)
		if !found || len(rest) == 0 {
			return b
		}
		text = rest
	}
}

// appendRecord appends one record. text has no line end.
func appendRecord(b []byte, now time.Time, stream string, text []byte, more bool) []byte {
	b = now.UTC().AppendFormat(b, timeForm)
	b = append(b, ' ')
	b = append(b, stream...)
	if more {
		b = append(b, '+')
	}
	b = append(b, ' ')
	b = append(b, text...)
	return append(b, '\n')
}

// parse reads one record without its line end. ok is false for what a crash tore.
func parse(b []byte) (l Line, ok bool) {
	when, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok {
		return l, false
	}
	stream, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return l, false
	}
	t, err := time.Parse(timeForm, string(when))
	if err != nil {
		return l, false
	}
	stream, l.More = bytes.CutSuffix(stream, []byte{'+'})
	switch string(stream) {
	case streamOut:
		l.Stream = "stdout"
	case streamFlota:
		l.Stream = "flota"
	default:
		return l, false
	}
	l.Time, l.Text = t, string(text)
	return l, true
}
