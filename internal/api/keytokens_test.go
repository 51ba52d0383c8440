package api

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/keys/token"
	"flota/internal/store"
)

func TestKeyTokens(t *testing.T) {
	r := newRig(t, 1)
	w := r.do("POST", "/v1/keytokens", `{"prefixes":[{"path":"/shop","write":true}],"note":"the shop","ttlSeconds":3600}`)
	if w.Code != http.StatusCreated {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	made := decode[MadeKeyToken](t, w.Body)
	if made.Hash != "" || made.Note != "the shop" || !made.Expires.Equal(made.Created.Add(time.Hour)) || time.Since(made.Created) > time.Minute {
		t.Errorf("made %+v", made)
	}
	s, err := token.Parse(made.Secret)
	if err != nil {
		t.Fatal(err)
	}
	stored, ok, err := r.st.Tokens.Get(t.Context(), made.ID, store.Read{})
	if err != nil || !ok || !s.Opens(stored.Value) || stored.Value.Prefixes[0] != (token.Prefix{Path: "/shop", Write: true}) {
		t.Errorf("stored %+v, %v, %v", stored, ok, err)
	}
	items, _, _ := r.st.KV.List(t.Context(), "", store.Read{})
	for _, it := range items {
		if bytes.Contains(it.Value, []byte(made.Secret[16:])) {
			t.Errorf("%s holds the secret", it.Key)
		}
	}
	w = r.do("GET", "/v1/keytokens", "")
	if strings.Contains(w.Body.String(), "hash") {
		t.Errorf("listed with its hash: %s", w.Body)
	}
	if l := decode[List[token.Token]](t, w.Body); len(l.Items) != 1 || l.Items[0].ID != made.ID {
		t.Errorf("listed %+v", l)
	}
	if w := r.do("DELETE", "/v1/keytokens/"+made.ID, ""); w.Code != http.StatusNoContent {
		t.Errorf("revoke: %d %s", w.Code, w.Body)
	}
	if w := r.do("DELETE", "/v1/keytokens/"+made.ID, ""); w.Code != http.StatusNotFound {
		t.Errorf("revoke again: %d %s", w.Code, w.Body)
	}
}

func TestKeyTokensRefused(t *testing.T) {
	r := newRig(t, 1)
	for _, bad := range []string{`{}`, `{"prefixes":[]}`, `{"prefixes":[{"path":"/a"}],"ttlSeconds":-1}`, `{"prefixes":[{"path":"/a"}],"ttlSeconds":9223372036854775807}`,
		`{"prefixes":[{"path":"/a\u0000"}]}`, `{"prefixes":[{"path":"/a","hash":"x"}]}`, `{"prefixes":[{"path":"` + strings.Repeat("a", token.MaxPath+1) + `"}]}`} {
		if w := r.do("POST", "/v1/keytokens", bad); w.Code != http.StatusBadRequest {
			t.Errorf("%.60s: %d %s", bad, w.Code, w.Body)
		}
	}
	// Over TCP nobody knows who asks.
	c := r.client(1)
	_, err := c.MakeKeyToken(t.Context(), MakeKeyToken{Prefixes: []token.Prefix{{Path: "/a"}}})
	_, listErr := c.KeyTokens(t.Context())
	for _, err := range []error{err, listErr, c.RevokeKeyToken(t.Context(), "0000000000")} {
		if !fault.Is(err, fault.Denied) {
			t.Errorf("over TCP: %v", err)
		}
	}
}

func TestExpiredKeyTokensGo(t *testing.T) {
	r := newRig(t, 1)
	for n, age := range []time.Duration{-time.Hour, time.Hour, 25 * time.Hour} { // since it expired
		tok, _ := token.Make([token.IDBytes]byte{byte(n)}, [token.SecretBytes]byte{})
		tok.Prefixes, tok.Expires = []token.Prefix{{Path: "/a"}}, time.Now().Add(-age)
		if err := r.st.Tokens.Create(t.Context(), tok.ID, tok); err != nil {
			t.Fatal(err)
		}
	}
	if w := r.do("POST", "/v1/keytokens", `{"prefixes":[{"path":"/b"}]}`); w.Code != http.StatusCreated {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	l := decode[List[token.Token]](t, r.do("GET", "/v1/keytokens", "").Body)
	var ids []string
	for _, tok := range l.Items {
		ids = append(ids, tok.ID[:2])
	}
	if got := strings.Join(ids[:2], " "); len(ids) != 3 || got != "00 01" {
		t.Errorf("left: %q", ids)
	}
}
