package service

import (
	"encoding/base64"
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

func standardInput(p *parser, value string) error {
	if rest, ok := strings.CutPrefix(value, "file:"); ok {
		v, err := p.path(rest)
		if err == nil {
			p.IO.Input = Stream{Kind: "file", Path: v}
		}
		return err
	}
	if rest, ok := strings.CutPrefix(value, "fd:"); ok {
		s, err := p.descriptor(rest, "stdin")
		if err == nil {
			p.IO.Input = s
		}
		return err
	}
	switch value {
	case "null", "tty", "tty-force", "tty-fail", "socket", "data":
		p.IO.Input = Stream{Kind: value}
	case "fd":
		p.IO.Input = Stream{Kind: value, Name: "stdin"}
	default:
		return fault.New(fault.Invalid, "%q is not a source of input", value)
	}
	return nil
}

// descriptor reads the name of a file descriptor; empty is what it is called by default.
func (p *parser) descriptor(name, otherwise string) (Stream, error) {
	v, err := p.expand(name)
	if err != nil {
		return Stream{}, err
	}
	if v == "" {
		v = otherwise
	}
	if len(v) > 255 || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
		return Stream{}, fault.New(fault.Invalid, "%q is not the name of a file descriptor", v)
	}
	return Stream{Kind: "fd", Name: v}, nil
}

// standardOutput reads StandardOutput= and StandardError=.
func standardOutput(field func(*Service) *Stream) setter {
	return func(p *parser, value string) error {
		stream := field(&p.Service)
		kind, rest, colon := strings.Cut(value, ":")
		switch {
		case colon && (kind == "file" || kind == "append" || kind == "truncate"):
			v, err := p.path(rest)
			if err != nil {
				return err
			}
			*stream = Stream{Kind: kind, Path: v}
			return nil
		case colon && kind == "fd":
			otherwise := "stdout"
			if p.key == "StandardError" {
				otherwise = "stderr"
			}
			s, err := p.descriptor(rest, otherwise)
			if err == nil {
				*stream = s
			}
			return err
		}
		if value == "fd" {
			return standardOutput(field)(p, "fd:")
		}
		value = strings.Replace(value, "syslog", "journal", 1)
		switch value {
		case "inherit", "null", "tty", "journal", "kmsg", "journal+console", "kmsg+console", "socket":
			*stream = Stream{Kind: value}
			return nil
		}
		return fault.New(fault.Invalid, "%q is not a place for output", value)
	}
}

// inputText adds a line of text to what is fed to the standard input.
func inputText(p *parser, value string) error {
	if value == "" {
		p.IO.InData = nil
		return nil
	}
	var plain []byte
	for rest := value; rest != ""; {
		if b, n, ok := setting.Unescape(rest); ok {
			plain, rest = append(plain, b...), rest[n:]
		} else {
			plain, rest = append(plain, rest[0]), rest[1:]
		}
	}
	v, err := p.expand(string(plain))
	if err == nil {
		p.IO.InData = append(append(p.IO.InData, v...), '\n')
	}
	return err
}

func inputData(p *parser, value string) error {
	if value == "" {
		p.IO.InData = nil
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(value), ""))
	if err != nil {
		return fault.New(fault.Invalid, "the value is not base64")
	}
	p.IO.InData = append(p.IO.InData, data...)
	return nil
}
