package fleet

import (
	"encoding/json"
	"testing"
)

func TestCut(t *testing.T) {
	all := make([]int, 70000)
	for i := range all {
		all[i] = i
	}
	for _, x := range []struct {
		n          int
		page       uint16
		first, len int
		next       bool
	}{
		{0, 1, 0, 0, false}, {99, 1, 0, 99, false}, {100, 1, 0, 100, false}, {101, 1, 0, 100, true}, {101, 2, 100, 1, false},
		{101, 3, 0, 0, false}, {70000, 656, 65500, 100, true}, {70000, 700, 69900, 100, false},
	} {
		page, next := cut(all[:x.n], token{limit: pageLimit, page: x.page})
		if len(page) != x.len || len(page) > 0 && page[0] != x.first || (next != "") != x.next {
			t.Errorf("%+v: %d things, next %q", x, len(page), next)
		}
		if next != "" {
			if got, err := parseToken(next); err != nil || got.page != x.page+1 {
				t.Errorf("%+v: next is %+v, %v", x, got, err)
			}
		}
	}
}

func TestTokenOfFleet(t *testing.T) {
	if got := (token{limit: 2, page: 2}).String(); got != "AgACAA==" {
		t.Errorf("%q", got)
	}
}

func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "AgACAA==", "ZAABAA==", "EwBMLg==", "%%", "ZAABAAAAAA=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parseToken(s)
		if err != nil {
			return
		}
		if tok.limit != pageLimit || tok.page == 0 {
			t.Errorf("%q gives %+v", s, tok)
		}
		if again, err := parseToken(tok.String()); err != nil || again != tok {
			t.Errorf("%+v prints and reads as %+v, %v", tok, again, err)
		}
		page, next := cut(make([]int, 1000), tok)
		if len(page) > pageLimit || (next != "" && len(page) != pageLimit) {
			t.Errorf("%+v: %d things, next %q", tok, len(page), next)
		}
	})
}

func FuzzPatch(f *testing.F) {
	f.Add(`{"op":"add","path":"/0123456789abcdef0123456789abcdef/metadata/a","value":{"value":"b"}}`)
	f.Add(`{"op":"remove","path":"/0123456789abcdef0123456789abcdef/metadata/a"}`)
	f.Add(`{"op":"add","path":"/../metadata/a","value":{"value":"b"}}`)
	f.Fuzz(func(t *testing.T, s string) {
		var p wirePatch
		if json.Unmarshal([]byte(s), &p) != nil {
			return
		}
		id, key, value, message := parsePatch(p)
		if message != "" {
			return
		}
		if len(id) != 32 || key == "" || (p.Op == "remove") != (value == nil) || value != nil && *value == "" {
			t.Errorf("%q gives %q %q %v", s, id, key, value)
		}
		for _, c := range string(id) + key {
			if c == '/' || c < ' ' {
				t.Errorf("%q gives %q %q", s, id, key)
			}
		}
	})
}
