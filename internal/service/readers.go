package service

import (
	"slices"
	"syscall"
	"time"

	"flota/internal/fault"
	"flota/internal/setting"
)

// The functions of this file make setters for the kinds of values that many keys share. Each takes a function that
// gives the field to set.

// boolean is for yes and no.
func boolean(field func(*Service) *bool) setter {
	return func(p *parser, value string) error {
		b, err := setting.Bool(value)
		if err == nil {
			*field(&p.Service) = b
		}
		return err
	}
}

// span is for time spans. With zeroEndless, 0 means without end.
func span(field func(*Service) *time.Duration, zeroEndless bool) setter {
	return func(p *parser, value string) error {
		d, err := setting.Span(value)
		if err != nil {
			return err
		}
		if d == 0 && zeroEndless {
			d = setting.Infinity
		}
		*field(&p.Service) = d
		return nil
	}
}

// choice is for one of a few words.
func choice[T ~string](field func(*Service) *T, words ...T) setter {
	return func(p *parser, value string) error {
		if !slices.Contains(words, T(value)) {
			return fault.New(fault.Invalid, "%q is none of %v", value, words)
		}
		*field(&p.Service) = T(value)
		return nil
	}
}

// choiceOrBool is choice for keys that are also yes ("yes") or no (off).
func choiceOrBool(field func(*Service) *string, off string, words ...string) setter {
	return func(p *parser, value string) error {
		if b, err := setting.Bool(value); err == nil {
			value = off
			if b {
				value = "yes"
			}
		} else if !slices.Contains(words, value) {
			return fault.New(fault.Invalid, "%q is neither a boolean nor one of %v", value, words)
		}
		*field(&p.Service) = value
		return nil
	}
}

// text is for free text with specifiers; empty sets back to nothing.
func text(field func(*Service) *string) setter {
	return func(p *parser, value string) error {
		v, err := p.expand(value)
		if err == nil {
			*field(&p.Service) = v
		}
		return err
	}
}

// absolute is for one absolute path; empty sets back to nothing.
func absolute(field func(*Service) *string) setter {
	return func(p *parser, value string) error {
		if value == "" {
			*field(&p.Service) = ""
			return nil
		}
		v, err := p.path(value)
		if err == nil {
			*field(&p.Service) = v
		}
		return err
	}
}

// path expands and checks an absolute path.
func (p *parser) path(value string) (string, error) {
	v, err := p.expand(value)
	if err != nil {
		return "", err
	}
	return setting.Path(v)
}

// octal is for modes.
func octal(field func(*Service) *uint32) setter {
	return func(p *parser, value string) error {
		m, err := setting.Mode(value)
		if err == nil {
			*field(&p.Service) = m
		}
		return err
	}
}

// integer is for whole numbers from low to high.
func integer(field func(*Service) *int, low, high int) setter {
	return func(p *parser, value string) error {
		n, err := setting.Int(value)
		if err != nil || n < low || n > high {
			return fault.New(fault.Invalid, "%q is not a whole number from %d to %d", value, low, high)
		}
		*field(&p.Service) = n
		return nil
	}
}

// settable is integer for keys that an empty value sets back: to the number it gives, and set to false.
func settable(field func(*Service) (n *int, set *bool), back, low, high int) setter {
	return func(p *parser, value string) error {
		n, set := field(&p.Service)
		if value == "" {
			*n, *set = back, false
			return nil
		}
		err := integer(func(*Service) *int { return n }, low, high)(p, value)
		*set = *set || err == nil
		return err
	}
}

// signal is for signals.
func signal(field func(*Service) *syscall.Signal) setter {
	return func(p *parser, value string) error {
		sig, err := setting.Signal(value)
		if err == nil {
			*field(&p.Service) = sig
		}
		return err
	}
}

// exits is for lists of exit statuses; empty forgets those before, bad words are skipped.
func exits(field func(*Service) *setting.Exits) setter {
	return func(p *parser, value string) error {
		set := field(&p.Service)
		if value == "" {
			*set = setting.Exits{}
			return nil
		}
		words, err := setting.PlainWords(value)
		for _, w := range words {
			if err := set.Add(w); err != nil {
				p.skip(err)
			}
		}
		return err
	}
}

// list is for words with specifiers that add up; empty forgets those before. check, unless nil, refuses a word.
func list(field func(*Service) *[]string, check func(string) error) setter {
	return func(p *parser, value string) error {
		if value == "" {
			*field(&p.Service) = nil
			return nil
		}
		return add(field, check)(p, value)
	}
}

// add is list without the reset.
func add(field func(*Service) *[]string, check func(string) error) setter {
	return func(p *parser, value string) error {
		words, err := p.expandWords(value)
		if err != nil {
			return err
		}
		all := field(&p.Service)
		for _, w := range words {
			if check != nil {
				if err := check(w); err != nil {
					p.skip(err)
					continue
				}
			}
			if !slices.Contains(*all, w) {
				*all = append(*all, w)
			}
		}
		return nil
	}
}

// oneOf makes a check for list.
func oneOf(what string, words ...string) func(string) error {
	return func(w string) error {
		if !slices.Contains(words, w) {
			return fault.New(fault.Invalid, "%q is no %s", w, what)
		}
		return nil
	}
}
