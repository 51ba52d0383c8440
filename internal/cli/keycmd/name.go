package keycmd

import (
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// key reads the name of one key. fault.Invalid for the root, which is no key.
func (k *keys) key(arg string) (string, error) {
	name := k.dir(arg)
	if name == "/" && !k.raw || name == "" {
		return "", fault.New(fault.Invalid, "%q names no key", arg)
	}
	return name, nil
}

// dir reads the name of a key or of the root. "/shop/", "shop" and "//shop" are "/shop", as v2 reads them.
func (k *keys) dir(arg string) string {
	if k.raw {
		return arg
	}
	return path.Clean("/" + arg)
}

// scope is a set of keys: one, and those below it.
type scope struct {
	one      string // a key; "" for none
	from, to string // a range of keys; "" for none. to "\x00": to the end
}

// scope gives the one key, or with prefix all below it. With --raw the prefix is one of bytes.
func (k *keys) scope(name string, prefix bool) scope {
	switch {
	case !prefix:
		return scope{one: name}
	case k.raw && name == "":
		return scope{from: "\x00", to: "\x00"}
	case k.raw:
		return scope{from: name, to: clientv3.GetPrefixRangeEnd(name)}
	case name == "/":
		return scope{from: "/", to: "0"}
	}
	return scope{one: name, from: name + "/", to: name + "0"}
}

// each calls f for the key and for the range, whichever there are.
func (s scope) each(f func(key string, o ...clientv3.OpOption)) {
	if s.one != "" {
		f(s.one)
	}
	if s.from != "" {
		f(s.from, clientv3.WithRange(s.to))
	}
}

// parts gives the key and the range as scopes of their own.
func (s scope) parts() []scope {
	var out []scope
	if s.one != "" {
		out = append(out, scope{one: s.one})
	}
	if s.from != "" {
		out = append(out, scope{from: s.from, to: s.to})
	}
	return out
}

// hidden says whether a part of the name of a key below dir begins with "_", which v2 does not list either.
func hidden(key, dir string) bool {
	rest, ok := strings.CutPrefix(key, strings.TrimSuffix(dir, "/")+"/")
	return ok && (strings.HasPrefix(rest, "_") || strings.Contains(rest, "/_"))
}

// maxShown is how much of a value a table shows, in bytes.
const maxShown = 60

// printable is text as it is if a terminal can show it on one line, and quoted otherwise.
func printable(b []byte) string {
	s := string(b)
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// short is printable, cut to what a table shows.
func short(b []byte) string {
	if len(b) <= maxShown {
		return printable(b)
	}
	cut := b[:maxShown]
	for len(cut) > 0 && !utf8.RuneStart(b[len(cut)]) { // not within a letter
		cut = cut[:len(cut)-1]
	}
	return printable(cut) + "… (" + strconv.Itoa(len(b)) + " bytes)"
}

// marker says whether a key is what v2 keeps an empty directory by: it ends with "/". Such keys are no values of an application.
func (k *keys) marker(key []byte) bool { return !k.raw && strings.HasSuffix(string(key), "/") }
