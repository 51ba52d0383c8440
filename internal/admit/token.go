package admit

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust/token"
)

// Limits of tokens.
const (
	defaultTTL = time.Hour
	maxTTL     = 366 * 24 * time.Hour // a token that opens the cluster should not be forgotten for longer
	maxUses    = 1000                 // each use is written into the token: 36 bytes
	maxTokens  = 1000                 // all of them are listed with each new one
	// keepExpired is how long an expired token is kept, so that a machine that comes late is told what is wrong.
	keepExpired = 24 * time.Hour
	// maxLabel is the longest key or value of a label: 253 bytes, as long as a host name. Source: room api, which takes the same.
	maxLabel = 253
)

// NewToken is what is wanted of a token.
type NewToken struct {
	TTL    time.Duration     `json:"ttl,omitempty"`    // nanoseconds; 0: one hour; at most a year
	Uses   int               `json:"uses,omitempty"`   // machines that may join with it; 0: 1; at most 1,000
	Labels map[string]string `json:"labels,omitempty"` // each machine that joins with it gets these
}

// Created is a token that was made. Text and Command are told only here and never again.
type Created struct {
	Token   token.Token `json:"token"`
	Text    string      `json:"text"`    // the token itself, flj_ID_SECRET
	Join    []string    `json:"join"`    // addresses (IP:port) to join at
	CAHash  string      `json:"caHash"`  // sha256:HEX, what the new machine knows the cluster by
	Command string      `json:"command"` // what to run on the new machine: all of these in a line
	Note    string      `json:"note,omitempty"`
}

// check sets defaults. fault.Invalid for what cannot be.
func (n NewToken) check() (NewToken, error) {
	if n.TTL == 0 {
		n.TTL = defaultTTL
	}
	if n.Uses == 0 {
		n.Uses = 1
	}
	if n.TTL < time.Second || n.TTL > maxTTL {
		return n, fault.New(fault.Invalid, "a token that lives for %s: want 1s to %s", n.TTL, maxTTL)
	}
	if n.Uses < 1 || n.Uses > maxUses {
		return n, fault.New(fault.Invalid, "a token for %d machines: want 1 to %d", n.Uses, maxUses)
	}
	return n, checkLabels(n.Labels)
}

// checkLabels refuses what are no labels: fault.Invalid.
func checkLabels(labels map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		v := labels[k]
		if len(k) > maxLabel || len(v) > maxLabel {
			return fault.New(fault.Invalid, "a label of more than %d bytes", maxLabel)
		}
		if _, _, err := machine.ParseLabel(k + "=" + v); err != nil {
			return err
		}
	}
	return nil
}

// CreateToken makes a token and the command line that a new machine joins with. fault.Conflict if there are too many.
func (d *Desk) CreateToken(ctx context.Context, n NewToken) (Created, error) {
	n, err := n.check()
	if err != nil {
		return Created{}, err
	}
	all, err := d.Tokens(ctx)
	if err != nil {
		return Created{}, err
	}
	if len(all) >= maxTokens {
		return Created{}, fault.WithHint(fault.New(fault.Conflict, "there are %d join tokens already, which is the limit", len(all)), "revoke some: flota token list")
	}
	var id [token.IDBytes]byte
	var secret [token.SecretBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	t, text := token.Make(id, secret)
	t.Labels, t.Uses, t.Created = n.Labels, n.Uses, d.now()
	t.Expires = t.Created.Add(n.TTL)
	if err := d.o.Store.Joins.Put(ctx, t.ID, t, 0); err != nil { // again with the same content after a lost answer
		return Created{}, err
	}
	d.o.Log.Info("a join token was made", "token", t.ID, "uses", t.Uses, "expires", t.Expires)
	made := Created{Token: shown(t), Text: text}
	made.CAHash = d.o.Identity.CAHash()
	made.Join, made.Note = d.addrs(ctx)
	made.Command = "flota up --join " + strings.Join(made.Join, ",") + " --token " + text + " --ca-hash " + made.CAHash
	return made, nil
}

// shown is a token as it is shown: without the hash.
func shown(t token.Token) token.Token {
	t.Hash = ""
	return t
}

// Tokens gives all tokens, the oldest first, those that expired within the last day or are used up too; without their hashes.
func (d *Desk) Tokens(ctx context.Context) ([]token.Token, error) {
	all, _, err := d.o.Store.Joins.List(ctx, "", store.Read{})
	if err != nil {
		return nil, err
	}
	out := make([]token.Token, 0, len(all))
	for _, e := range all {
		out = append(out, shown(e.Value))
	}
	slices.SortStableFunc(out, func(a, b token.Token) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// Revoke ends a token at once; machines that joined with it stay. fault.NotFound if there is none with the id.
func (d *Desk) Revoke(ctx context.Context, id string) error {
	if len(id) > 2*token.IDBytes { // a whole token: its id is enough, and its secret must not come up in a message
		if s, err := token.Parse(id); err == nil {
			id = s.ID
		}
	}
	was, err := d.o.Store.Joins.Delete(ctx, id)
	if err != nil {
		return err
	}
	if !was {
		return fault.WithHint(fault.New(fault.NotFound, "there is no such join token"), "see them with: flota token list")
	}
	d.o.Log.Info("a join token was revoked", "token", id)
	return nil
}
