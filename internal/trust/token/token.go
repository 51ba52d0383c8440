// Package token holds what lets a machine into the cluster: a join token, how often it may be used, until when, and which labels the machines get
// that come in by it. Stored at tokens/<id>; the api writes it.
//
// The invariant: the secret of a token is known only to who was shown it once; what is stored is its SHA-256, from which it cannot be found,
// because it is 32 random bytes.
//
// Pure values: no clock, no disk, no network, no randomness of its own. Start reading at Token.
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
	mark        = "flj"
	IDBytes     = 5  // random bytes of an id; 10 hex digits: 10^12 ids, so that 1,000 tokens never meet
	SecretBytes = 32 // random bytes of a secret, too many to be guessed
)

// Token is what is remembered of a token. Stored at tokens/<id>.
type Token struct {
	ID      string            `json:"id"`               // 10 lower-case hex digits
	Hash    string            `json:"hash,omitempty"`   // SHA-256 of the secret's bytes in hex; left out wherever a token is shown
	Labels  map[string]string `json:"labels,omitempty"` // set on each machine that joins with it, as by `flota machine label`
	Uses    int               `json:"uses"`             // machines that may still join with it
	Used    []string          `json:"used,omitempty"`   // IDs of the machines that did
	Created time.Time         `json:"created"`
	Expires time.Time         `json:"expires"`
}

// Make gives a token of random bytes, which the caller brings. text is what its owner is shown, once.
func Make(id [IDBytes]byte, secret [SecretBytes]byte) (t Token, text string) {
	t.ID = hex.EncodeToString(id[:])
	sum := sha256.Sum256(secret[:])
	t.Hash = hex.EncodeToString(sum[:])
	return t, mark + "_" + t.ID + "_" + hex.EncodeToString(secret[:])
}

// Expired says whether the token's time is over at now.
func (t Token) Expired(now time.Time) bool { return !now.Before(t.Expires) }

// Secret is what a machine brought to be let in. The zero value opens nothing.
type Secret struct {
	ID  string
	sum string // SHA-256 in hex
}

// Parse reads a token as it was shown. fault.Denied for anything else; the message never repeats what was given.
func Parse(text string) (Secret, error) {
	rest, marked := strings.CutPrefix(strings.TrimSpace(text), mark+"_")
	id, secret, two := strings.Cut(rest, "_")
	raw, err := hex.DecodeString(secret)
	_, badID := hex.DecodeString(id)
	if !marked || !two || err != nil || badID != nil || len(raw) != SecretBytes || len(id) != 2*IDBytes || id != strings.ToLower(id) {
		return Secret{}, fault.WithHint(fault.New(fault.Denied, "this is no join token: one has the form %s_ID_SECRET, %d characters in all",
			mark, len(mark)+2+2*IDBytes+2*SecretBytes), "flota token create, on a machine of the cluster, prints the whole command line")
	}
	sum := sha256.Sum256(raw)
	return Secret{ID: id, sum: hex.EncodeToString(sum[:])}, nil
}

// Opens says whether s is the secret of t; it takes as long for a wrong one as for the right one.
func (s Secret) Opens(t Token) bool {
	return s.ID != "" && s.ID == t.ID && subtle.ConstantTimeCompare([]byte(s.sum), []byte(t.Hash)) == 1
}
