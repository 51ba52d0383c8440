package service

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// workingDirectory reads WorkingDirectory=; a bad path is fatal unless it may be missing.
func workingDirectory(p *parser, value string) error {
	rest, optional := strings.CutPrefix(value, "-")
	if value == "" || rest == "~" {
		p.Dirs.Working, p.Dirs.WorkingOptional = rest, optional
		return nil
	}
	v, err := p.path(rest)
	if err != nil {
		if !optional {
			err = fatal{err}
		}
		return err
	}
	p.Dirs.Working, p.Dirs.WorkingOptional = v, optional
	return nil
}

// rootDirectory reads RootDirectory=; a bad path is fatal.
func rootDirectory(p *parser, value string) error {
	err := absolute(func(s *Service) *string { return &s.Dirs.Root })(p, value)
	if err != nil {
		return fatal{err}
	}
	return nil
}

// directories reads RuntimeDirectory= and its like: names, or NAME:LINK, sorted so that parents come first.
func directories(name string, field func(*Service) *DirSet) setter {
	return func(p *parser, value string) error {
		set := field(&p.Service)
		if value == "" {
			set.Dirs = nil
			return nil
		}
		words, err := setting.PlainWords(value)
		if err != nil {
			return err
		}
		for _, w := range words {
			dir, link, err := setting.DirLink(w)
			if err == nil {
				dir, err = p.relative(dir)
			}
			if err == nil && link != "" {
				if name == "Configuration" {
					err = fault.New(fault.Invalid, "%q: links are not supported here", w)
				} else {
					link, err = p.relative(link)
				}
			}
			if err != nil {
				p.skip(err)
				continue
			}
			set.add(dir, link)
		}
		return nil
	}
}

// relative expands and checks a path below one of the base directories.
func (p *parser) relative(w string) (string, error) {
	v, err := p.expand(w)
	if err != nil {
		return "", err
	}
	parts := strings.Split(setting.CleanPath(v), "/")
	switch {
	case path.IsAbs(v):
		return "", fault.New(fault.Invalid, "path %q is absolute", v)
	case parts[0] == "" || slices.Contains(parts, "..") || strings.ContainsAny(v, "\x00"):
		return "", fault.New(fault.Invalid, "path %q is not below its base directory", v)
	case parts[0] == "private":
		return "", fault.New(fault.Invalid, "path %q is reserved", v)
	}
	return strings.Join(parts, "/"), nil
}

func (d *DirSet) add(dir, link string) {
	at, found := slices.BinarySearchFunc(d.Dirs, dir, func(have Dir, want string) int { return cmp.Compare(have.Path, want) })
	if !found {
		d.Dirs = slices.Insert(d.Dirs, at, Dir{Path: dir})
	}
	if link != "" && !slices.Contains(d.Dirs[at].Links, link) {
		d.Dirs[at].Links = append(d.Dirs[at].Links, link)
	}
}
