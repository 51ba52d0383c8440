// Package token holds what lets a program into the applications' keys: a token, which prefixes of keys it opens, for reading
// or for writing too, and until when. Stored at keytokens/<id>; the api writes it.
//
// The invariant: the secret of a token is known only to who was shown it once; what is stored is its SHA-256, from which it
// cannot be found, because it is 32 random bytes. Grant.Allows is exact: a range of keys is allowed if and only if every key in
// it is, and no key outside of what a token says ever is.
//
// Pure values: no clock, no disk, no network, no randomness of its own. Start reading at Token and Grant.
package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
	"time"

	"flota/internal/fault"
)

// The form of a token: mark, id and secret in hex, joined by "_". The mark lets programs that look for leaked secrets find it.
const (
	mark        = "flk"
	IDBytes     = 5  // random bytes of an id; 10 hex digits: 10^12 ids, so that 1,000 tokens never meet
	SecretBytes = 32 // random bytes of a secret, too many to be guessed. Source: facts on libraries, 10
)

// MaxPrefixes is how many prefixes a token may have, and MaxPath how long one may be in bytes. Checked against each request, so they
// bound what a request costs; MaxPath is also more than any key that etcd's clients use in practice.
const (
	MaxPrefixes = 100
	MaxPath     = 1024
)

// Token is what is remembered of a token. Stored at keytokens/<id>.
type Token struct {
	ID       string    `json:"id"`             // 10 lower-case hex digits
	Hash     string    `json:"hash,omitempty"` // SHA-256 of the secret's bytes in hex; left out wherever a token is shown
	Prefixes []Prefix  `json:"prefixes"`
	Note     string    `json:"note,omitempty"` // what it is for, for people
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"` // zero: never
}

// Prefix is a part of the keys. Path without a "/" at its end is that key and all keys below Path+"/"; with one it is all keys that
// start with it; "" is every key there is. Write allows changes too; reading always is allowed.
type Prefix struct {
	Path  string `json:"path"`
	Write bool   `json:"write,omitempty"`
}

// Make gives a token of random bytes, which the caller brings: IDBytes and SecretBytes of them. text is what its owner is shown, once.
func Make(id [IDBytes]byte, secret [SecretBytes]byte) (t Token, text string) {
	t.ID = hex.EncodeToString(id[:])
	sum := sha256.Sum256(secret[:])
	t.Hash = hex.EncodeToString(sum[:])
	return t, mark + "_" + t.ID + "_" + hex.EncodeToString(secret[:])
}

// Check refuses what cannot be stored: no prefix at all, too many, too long, or with a byte 0. fault.Invalid.
func (t Token) Check() error {
	switch {
	case len(t.Prefixes) == 0:
		return fault.New(fault.Invalid, "a token needs a prefix of the keys that it opens")
	case len(t.Prefixes) > MaxPrefixes:
		return fault.New(fault.Invalid, "%d prefixes, a token has at most %d", len(t.Prefixes), MaxPrefixes)
	case len(t.Note) > MaxPath:
		return fault.New(fault.Invalid, "the note is %d bytes, at most %d", len(t.Note), MaxPath)
	}
	for _, p := range t.Prefixes {
		if len(p.Path) > MaxPath || strings.ContainsRune(p.Path, 0) {
			return fault.New(fault.Invalid, "prefix %.40q: at most %d bytes, none of them 0", p.Path, MaxPath)
		}
	}
	return nil
}

// Expired says whether the token's time is over at now.
func (t Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// Secret is what a caller brought to prove who he is. The zero value proves nothing.
type Secret struct {
	ID  string
	sum string // SHA-256 in hex
}

// Parse reads credentials: a token as it was shown, or "ID:SECRET", or "ID:TOKEN" (what user and password come as). fault.Denied for
// anything else; the message never repeats what was given.
func Parse(credentials string) (Secret, error) {
	bad := fault.New(fault.Denied, "these credentials are no token of this cluster")
	user, rest, pair := strings.Cut(credentials, ":")
	if !pair {
		rest = credentials
	}
	if whole, ok := strings.CutPrefix(rest, mark+"_"); ok {
		id, secret, ok := strings.Cut(whole, "_")
		if !ok || pair && id != user {
			return Secret{}, bad
		}
		user, rest = id, secret
	} else if !pair {
		return Secret{}, bad
	}
	raw, err := hex.DecodeString(rest)
	if err != nil || len(raw) != SecretBytes || len(user) != 2*IDBytes {
		return Secret{}, bad
	}
	sum := sha256.Sum256(raw)
	return Secret{ID: user, sum: hex.EncodeToString(sum[:])}, nil
}

// Opens says whether s is the secret of t; it takes as long for a wrong one as for the right one.
func (s Secret) Opens(t Token) bool {
	return s.ID != "" && s.ID == t.ID && subtle.ConstantTimeCompare([]byte(s.sum), []byte(t.Hash)) == 1
}
