package v2

import (
	"path"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Side keys hold what v3 has no place for. They begin with a zero byte, so that no listing of names shows them and no key that
// anybody types is one of them.
const (
	side       = "\x00v2/"
	sideLast   = side + "last" // the record of the last write: overwritten by every one, so its history is the history of writes
	sideDetail = side + "node" // + data key: the detail of that key
	sideNext   = side + "next" // + directory's key: the highest in-order name given there
	sideEnd    = "0"           // the first key after "/…": [side, sideEnd) holds all that v2 looks at
)

// clean gives the name of a node: "/" for the root, else "/a/b" without "." and "..", doubled or trailing slashes.
func clean(p string) string { return path.Clean("/" + p) }

// dirKey is the v3 key of a directory's marker, which is at the same time the prefix of all keys below.
func dirKey(p string) string {
	if p == "/" {
		return "/"
	}
	return p + "/"
}

// below is the first key that can be under a directory, its marker left out.
func below(p string) string { return dirKey(p) + "\x00" }

// pastDir is the first key after all keys below p.
func pastDir(p string) string { return clientv3.GetPrefixRangeEnd(dirKey(p)) }

// above gives the directories over p, outermost first, without the root.
func above(p string) (dirs []string) {
	for i := 1; i < len(p); i++ {
		if p[i] == '/' {
			dirs = append(dirs, p[:i])
		}
	}
	return dirs
}

// nodeOf gives the node that a v3 key is part of and whether it is a marker. ok is false for keys that v2 cannot name: without a leading
// slash, with empty, "." or ".." parts.
func nodeOf(key string) (p string, marker, ok bool) {
	p = strings.TrimSuffix(key, "/")
	if p == "" || p[0] != '/' || clean(p) != p {
		return "", false, false
	}
	return p, len(p) != len(key), true
}

// hidden says whether p lies, seen from the directory dir, under a name that begins with an underscore.
func hidden(dir, p string) bool {
	if len(dir) > len(p) {
		return false
	}
	return strings.Contains(clean(p[len(dir):]), "/_")
}
