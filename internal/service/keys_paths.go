package service

import (
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// pathRules is for lists of paths with the prefixes - and +; empty forgets those before.
func pathRules(field func(*Sandbox) *[]PathRule) setter {
	return func(p *parser, value string) error {
		rules := field(&p.Sandbox)
		if value == "" {
			*rules = nil
			return nil
		}
		words, err := setting.PathWords(value)
		for _, w := range words {
			var r PathRule
			w, r.Optional = strings.CutPrefix(w, "-")
			w, r.InRoot = strings.CutPrefix(w, "+")
			if r.Path, err = p.path(w); err != nil {
				p.skip(err)
				err = nil
				continue
			}
			*rules = append(*rules, r)
		}
		return err
	}
}

// binds is for bind mounts, SOURCE[:DEST[:rbind|norbind]]; an empty value of either key forgets all.
func binds(readOnly bool) setter {
	return func(p *parser, value string) error {
		if value == "" {
			p.Sandbox.Binds = nil
			return nil
		}
		words, err := setting.PlainWords(value)
		if err != nil {
			return err
		}
		for _, w := range words {
			b, err := p.bind(w)
			if err != nil {
				p.skip(err)
				continue
			}
			b.ReadOnly = readOnly
			p.Sandbox.Binds = append(p.Sandbox.Binds, b)
		}
		return nil
	}
}

func (p *parser) bind(word string) (b Bind, err error) {
	word, b.Optional = strings.CutPrefix(word, "-")
	parts := setting.SplitColons(word)
	if len(parts) > 3 {
		return b, fault.New(fault.Invalid, "%q has too many parts", word)
	}
	if b.Source, err = p.path(parts[0]); err != nil {
		return b, err
	}
	b.Dest = b.Source
	if len(parts) > 1 {
		if b.Dest, err = p.path(parts[1]); err != nil {
			return b, err
		}
	}
	if len(parts) > 2 {
		switch parts[2] {
		case "", "rbind":
		case "norbind":
			b.Single = true
		default:
			return b, fault.New(fault.Invalid, "%q is not a mount option (rbind or norbind)", parts[2])
		}
	}
	return b, nil
}

func tmpfs(p *parser, value string) error {
	if value == "" {
		p.Sandbox.Tmpfs = nil
		return nil
	}
	words, err := setting.PlainWords(value)
	if err != nil {
		return err
	}
	for _, w := range words {
		path, options, _ := strings.Cut(w, ":")
		if path, err = p.path(path); err != nil {
			p.skip(err)
			continue
		}
		p.Sandbox.Tmpfs = append(p.Sandbox.Tmpfs, Tmpfs{Path: path, Options: options})
	}
	return nil
}
