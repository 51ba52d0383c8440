package api

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"time"

	"flota/internal/fault"
	"flota/internal/keys/token"
	"flota/internal/store"
)

// maxKeyTokens is how many tokens there may be. Every machine holds all of them: 10,000 are about 5 MB.
const maxKeyTokens = 10_000

// keepExpired is how long an expired token is still listed, so that it can be seen why a program was refused. Then making another removes it.
const keepExpired = 24 * time.Hour

// MakeKeyToken asks for a token for the applications' keys: POST /v1/keytokens.
type MakeKeyToken struct {
	Prefixes   []token.Prefix `json:"prefixes"`
	Note       string         `json:"note,omitempty"`
	TTLSeconds int64          `json:"ttlSeconds,omitempty"` // 0: it never expires
}

// MadeKeyToken is a new token. Secret is told only here and never again.
type MadeKeyToken struct {
	token.Token
	Secret string `json:"secret"` // the token as a program brings it: flk_<id>_<secret>
}

// withoutHash is a token as it is sent: without the hash.
func withoutHash(t token.Token) token.Token {
	t.Hash = ""
	return t
}

// makeKeyToken answers POST /v1/keytokens.
func (s *Server) makeKeyToken(w http.ResponseWriter, r *http.Request) error {
	var ask MakeKeyToken
	if err := body(r, &ask); err != nil {
		return err
	}
	if limit := int64(100 * 365 * 24 * 60 * 60); ask.TTLSeconds < 0 || ask.TTLSeconds > limit {
		return fault.New(fault.Invalid, "ttlSeconds %d: want 0 (never expires) to %d", ask.TTLSeconds, limit)
	}
	var id [token.IDBytes]byte
	var secret [token.SecretBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	t, text := token.Make(id, secret)
	t.Prefixes, t.Note, t.Created = ask.Prefixes, ask.Note, time.Now().UTC()
	if ask.TTLSeconds > 0 {
		t.Expires = t.Created.Add(time.Duration(ask.TTLSeconds) * time.Second)
	}
	if err := t.Check(); err != nil {
		return err
	}
	if err := s.roomForKeyToken(r.Context()); err != nil {
		return err
	}
	_, _, err := modify(r.Context(), s, s.Store.Tokens, t.ID, func(token.Token, bool) (token.Token, act, error) { return t, put, nil })
	if err != nil {
		return err
	}
	s.Log.Info("a token for keys was made", "token", t.ID, "prefixes", t.Prefixes, "expires", t.Expires)
	return answer(w, http.StatusCreated, MadeKeyToken{Token: withoutHash(t), Secret: text})
}

// roomForKeyToken removes tokens that expired long ago, and refuses more than there may be: fault.Conflict.
func (s *Server) roomForKeyToken(ctx context.Context) error {
	all, err := s.keyTokens(ctx)
	if err != nil {
		return err
	}
	n := len(all)
	for _, t := range all {
		if !t.Expired(time.Now().Add(-keepExpired)) {
			continue
		}
		if _, err := s.Store.Tokens.Delete(ctx, t.ID); err != nil {
			return fault.Wrap(fault.KindOf(err), err, "remove the expired token %s", t.ID)
		}
		n--
	}
	if n >= maxKeyTokens {
		return fault.WithHint(fault.New(fault.Conflict, "there are %d tokens already, which is the limit", n), "revoke some: flota key token list")
	}
	return nil
}

// keyTokens reads all tokens, sorted by when they were made.
func (s *Server) keyTokens(ctx context.Context) ([]token.Token, error) {
	read, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	all, _, err := s.Store.Tokens.List(read, "", store.Read{})
	if err != nil {
		if ctx.Err() == nil && unavailable(err) {
			return nil, s.noQuorum(ctx, nil)
		}
		return nil, err
	}
	out := make([]token.Token, len(all))
	for i, e := range all {
		out[i] = e.Value
	}
	slices.SortStableFunc(out, func(a, b token.Token) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// listKeyTokens answers GET /v1/keytokens. It is never read without a quorum: who asks wants to know what still opens something.
func (s *Server) listKeyTokens(w http.ResponseWriter, r *http.Request) error {
	all, err := s.keyTokens(r.Context())
	if err != nil {
		return err
	}
	for i := range all {
		all[i] = withoutHash(all[i])
	}
	return answer(w, http.StatusOK, List[token.Token]{Items: all})
}

// revokeKeyToken answers DELETE /v1/keytokens/{id}.
func (s *Server) revokeKeyToken(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	_, _, err := modify(r.Context(), s, s.Store.Tokens, id, func(t token.Token, exists bool) (token.Token, act, error) {
		if !exists {
			return t, keep, fault.WithHint(fault.New(fault.NotFound, "there is no token %q", clip(id)), "see them with: flota key token list")
		}
		return t, remove, nil
	})
	if err != nil {
		return err
	}
	s.Log.Info("a token for keys was revoked", "token", id)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// MakeKeyToken makes a token for the applications' keys. Only a machine's own socket takes this: fault.Denied elsewhere.
func (c *Client) MakeKeyToken(ctx context.Context, ask MakeKeyToken) (MadeKeyToken, error) {
	var m MadeKeyToken
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, "/v1/keytokens", ask, &m)
	return m, err
}

// KeyTokens gives all tokens, the oldest first, expired ones of the last day too; without their hashes.
func (c *Client) KeyTokens(ctx context.Context) ([]token.Token, error) {
	var l List[token.Token]
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/keytokens", nil, &l)
	return l.Items, err
}

// RevokeKeyToken ends a token on all machines. fault.NotFound if there is none with the id.
func (c *Client) RevokeKeyToken(ctx context.Context, id string) error {
	_, _, err := c.call(ctx, answerPatience, http.MethodDelete, "/v1/keytokens/"+url.PathEscape(id), nil, nil)
	return err
}
