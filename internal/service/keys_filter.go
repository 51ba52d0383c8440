package service

import (
	"slices"
	"strings"

	"flota/internal/fault"
	"flota/internal/setting"
)

// filter applies one assignment to an allow or deny list; check refuses a word. Empty takes the filter away.
func (p *parser) filter(f *Filter, value string, check func(string) error) error {
	if value == "" {
		*f = Filter{}
		return nil
	}
	value, invert := strings.CutPrefix(value, "~")
	words, err := setting.PlainWords(value)
	if err != nil {
		return err
	}
	if !f.Set {
		f.Set, f.Deny = true, invert
	}
	for _, w := range words {
		if err := check(w); err != nil {
			p.skip(err)
			continue
		}
		f.Rules = append(f.Rules, FilterRule{Name: w, Remove: invert != f.Deny})
	}
	return nil
}

// families reads RestrictAddressFamilies=; "none" allows no family at all.
func families(p *parser, value string) error {
	if value == "none" {
		p.Sandbox.Families = Filter{Set: true}
		return nil
	}
	return p.filter(&p.Sandbox.Families, value, func(w string) error {
		if !strings.HasPrefix(w, "AF_") || strings.Trim(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return fault.New(fault.Invalid, "%q is not an address family", w)
		}
		return nil
	})
}

func fileSystems(p *parser, value string) error {
	return p.filter(&p.Sandbox.RestrictFileSystem, value, checkCallName)
}

// systemCalls reads SystemCallFilter=. An allow list begins with @default, without which nothing could run.
func systemCalls(p *parser, value string) error {
	f := &p.Sandbox.SystemCalls
	if value != "" && value[0] != '~' && !f.Set {
		*f = Filter{Set: true, Rules: []FilterRule{{Name: "@default"}}}
	}
	return p.filter(f, value, checkCallName)
}

func checkCallName(w string) error {
	name, number, colon := strings.Cut(strings.TrimPrefix(w, "@"), ":")
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return fault.New(fault.Invalid, "%q is not a name or a group", w)
	}
	if colon && number != "kill" {
		_, err := setting.Errno(number)
		return err
	}
	return nil
}

func systemCallErrno(p *parser, value string) error {
	if value == "" || value == "kill" {
		p.Sandbox.SystemCallErrno = ""
		return nil
	}
	n, err := setting.Errno(value)
	if err == nil {
		p.Sandbox.SystemCallErrno = n
	}
	return err
}

// checkArch accepts systemd's names of processor architectures for system calls.
func checkArch(w string) error {
	return oneOf("architecture", strings.Fields(`native x86 x86-64 x32 arm arm64 loongarch64 mips mips64 mips64-n32
		mips-le mips64-le mips64-le-n32 parisc parisc64 ppc ppc64 ppc64-le riscv64 s390 s390x`)...)(w)
}

// namespaceKinds in systemd's order.
func namespaceKinds() []string { return []string{"cgroup", "ipc", "net", "mnt", "pid", "user", "uts"} }

// restrictNamespaces reads RestrictNamespaces=: a boolean or a list of the kinds that stay allowed, or with ~ of
// those that do not. The first assignment replaces the default, later ones add to it or take from it.
func restrictNamespaces(p *parser, value string) error {
	if value == "" {
		p.namespaces = nil
		return nil
	}
	value, invert := strings.CutPrefix(value, "~")
	words, kinds := []string{}, namespaceKinds()
	if yes, err := setting.Bool(value); err == nil && !invert {
		if !yes {
			words = kinds
		}
	} else if words, err = setting.PlainWords(value); err != nil {
		return err
	}
	for _, w := range words {
		if !slices.Contains(kinds, w) {
			return fault.New(fault.Invalid, "%q is not a kind of namespace", w)
		}
	}
	if p.namespaces == nil {
		p.namespaces = map[string]bool{}
		if invert {
			p.namespaces = set(strings.Join(kinds, " "))
		}
	}
	for _, w := range words {
		if invert {
			delete(p.namespaces, w)
		} else {
			p.namespaces[w] = true
		}
	}
	return nil
}
