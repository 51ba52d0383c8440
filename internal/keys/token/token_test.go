package token_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"flota/internal/fault"
	"flota/internal/keys/token"
)

func TestAllows(t *testing.T) {
	shop := []token.Prefix{{Path: "/shop", Write: true}, {Path: "/common/"}}
	for _, c := range []struct {
		key, end    string
		read, write bool
	}{
		{"/shop", "", true, true},
		{"/shop/color", "", true, true},
		{"/shop/", "/shop0", true, true},
		{"/shop", "/shop\x00", true, true},
		{"/shop", "/shop0", false, false}, // /shop-window lies in it
		{"/shopping", "", false, false},
		{"/shop.", "", false, false},
		{"/shop/a", "/shop/b", true, true},
		{"/shop/a", "\x00", false, false},
		{"/common/x", "", true, false},
		{"/common", "", false, false},
		{"shop", "", false, false},
		{"", "", false, false},
		{"\x00", "\x00", false, false},
		{"/shop/z", "/shop/a", true, true}, // nothing is in it
		{"/x", "/a", false, false},
	} {
		for _, g := range []token.Grant{token.GrantOf(shop), {Prefixes: shop}} {
			if r, w := g.Allows([]byte(c.key), []byte(c.end), false), g.Allows([]byte(c.key), []byte(c.end), true); r != c.read || w != c.write {
				t.Errorf("%q to %q: read %v, write %v", c.key, c.end, r, w)
			}
		}
	}
	if (token.Grant{}).Allows([]byte("/a"), nil, false) {
		t.Error("the zero grant allows something")
	}
	if !(token.Grant{All: true}).Allows([]byte("\x00"), []byte("\x00"), true) {
		t.Error("All does not allow everything")
	}
	if !token.GrantOf([]token.Prefix{{}}).Allows([]byte("\x00"), []byte("\x00"), false) {
		t.Error("the empty path does not open everything")
	}
}

// letters is enough to meet every border: a path's end is the path itself, "/" or "0" after it, or a byte 0.
var letters = []string{"\x00", "/", "0", "a", "\xff"}

// words gives all strings of at most n letters. Any range that is not wholly allowed holds a key that is not of at most one letter more
// than the longest path or border, so that asking each of them is an exact model.
func words(n int) []string {
	out, last := []string{""}, []string{""}
	for range n {
		var next []string
		for _, w := range last {
			for _, l := range letters {
				next = append(next, w+l)
			}
		}
		out, last = append(out, next...), next
	}
	return out
}

// opens is the naive model: may the one key be read or written?
func opens(ps []token.Prefix, key string, write bool) bool {
	for _, p := range ps {
		if write && !p.Write {
			continue
		}
		if p.Path == "" || key == p.Path && !strings.HasSuffix(p.Path, "/") || strings.HasPrefix(key, strings.TrimSuffix(p.Path, "/")+"/") {
			return true
		}
	}
	return false
}

func TestAllowsIsExact(t *testing.T) {
	keys := words(4)
	rapid.Check(t, func(t *rapid.T) {
		word := func(n int) *rapid.Generator[string] {
			return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(letters), 0, n), func(s []string) string { return strings.Join(s, "") })
		}
		var ps []token.Prefix
		for range rapid.IntRange(0, 4).Draw(t, "prefixes") {
			ps = append(ps, token.Prefix{Path: word(2).Draw(t, "path"), Write: rapid.Bool().Draw(t, "may write")})
		}
		key, end, write := word(3).Draw(t, "key"), word(3).Draw(t, "end"), rapid.Bool().Draw(t, "write")
		if rapid.IntRange(0, 3).Draw(t, "to the end") == 0 {
			end = "\x00"
		}
		want := opens(ps, key, write)
		for _, k := range keys {
			if k >= key && (k < end || end == "\x00") && end != "" {
				want = want && opens(ps, k, write)
			}
		}
		if end == "\x00" { // beyond all words, whatever they are
			want = want && opens(ps, strings.Repeat("\xff", 9), write)
		}
		for name, g := range map[string]token.Grant{"made": token.GrantOf(ps), "bare": {Prefixes: ps}} {
			if got := g.Allows([]byte(key), []byte(end), write); got != want {
				t.Fatalf("%s: %+v, %q to %q, write %v: %v, want %v", name, ps, key, end, write, got, want)
			}
		}
	})
}

func TestSecrets(t *testing.T) {
	tok, text := token.Make([token.IDBytes]byte{1, 2, 3, 4, 0xff}, [token.SecretBytes]byte{7})
	other, _ := token.Make([token.IDBytes]byte{1, 2, 3, 4, 0xff}, [token.SecretBytes]byte{8})
	if want := "flk_01020304ff_07" + strings.Repeat("00", 31); text != want {
		t.Errorf("shown as %s", text)
	}
	secret := strings.TrimPrefix(text, "flk_01020304ff_")
	for _, good := range []string{text, "01020304ff:" + secret, "01020304ff:" + text} {
		s, err := token.Parse(good)
		if err != nil || !s.Opens(tok) || s.Opens(other) || s.Opens(token.Token{}) {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", ":", "flk_", "flk__", secret, ":" + secret, "root:" + secret, "0000000000:" + text, text + "00",
		text[:len(text)-1], "01020304ff:" + secret + "\x00", "flk_01020304ff_" + strings.Repeat("zz", 32), "Bearer " + text} {
		s, err := token.Parse(bad)
		if !fault.Is(err, fault.Denied) || s.Opens(tok) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if (token.Secret{}).Opens(token.Token{}) {
		t.Error("nothing opens nothing")
	}
}

func FuzzParse(f *testing.F) {
	_, text := token.Make([token.IDBytes]byte{}, [token.SecretBytes]byte{})
	f.Add(text)
	f.Add("0000000000:" + text)
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := token.Parse(s); (err == nil) == (got.ID == "") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	})
}

func TestCheckAndExpiry(t *testing.T) {
	for name, c := range map[string]struct {
		t  token.Token
		ok bool
	}{
		"no prefix": {token.Token{}, false},
		"one":       {token.Token{Prefixes: []token.Prefix{{Path: "/a"}}}, true},
		"all":       {token.Token{Prefixes: []token.Prefix{{}}}, true},
		"too many":  {token.Token{Prefixes: make([]token.Prefix, token.MaxPrefixes+1)}, false},
		"too long":  {token.Token{Prefixes: []token.Prefix{{Path: strings.Repeat("a", token.MaxPath+1)}}}, false},
		"byte 0":    {token.Token{Prefixes: []token.Prefix{{Path: "/a\x00"}}}, false},
	} {
		if err := c.t.Check(); (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	end := time.Unix(1000, 0)
	if (token.Token{}).Expired(end) || (token.Token{Expires: end}).Expired(end.Add(-1)) || !(token.Token{Expires: end}).Expired(end) {
		t.Error("expiry is wrong")
	}
}
