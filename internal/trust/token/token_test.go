package token

import (
	"strings"
	"testing"
	"time"

	"flota/internal/fault"
)

func TestTokenOpens(t *testing.T) {
	one, text := Make([IDBytes]byte{1, 2, 3, 4, 5}, [SecretBytes]byte{9})
	s, err := Parse(text + "\n")
	if err != nil || !s.Opens(one) {
		t.Fatalf("own text: %v, opens %v", err, s.Opens(one))
	}
	other, otherText := Make([IDBytes]byte{1, 2, 3, 4, 5}, [SecretBytes]byte{8})
	wrong, err := Parse(otherText)
	if err != nil || wrong.Opens(one) || s.Opens(other) {
		t.Error("the secret of another token with the same id opens")
	}
	if (Secret{}).Opens(Token{}) {
		t.Error("nothing opens a token that is nothing")
	}
	if strings.Contains(text, one.Hash) {
		t.Error("the stored hash stands in the text")
	}
}

func TestExpired(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		now  time.Time
		want bool
	}{{at.Add(-time.Nanosecond), false}, {at, true}, {at.Add(time.Hour), true}} {
		if got := (Token{Expires: at}).Expired(c.now); got != c.want {
			t.Errorf("at %v: %v, want %v", c.now, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	_, text := Make([IDBytes]byte{1}, [SecretBytes]byte{2})
	f.Add(text)
	f.Add("flj__")
	f.Add(strings.ToUpper(text))
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			if !fault.Is(err, fault.Denied) {
				t.Errorf("kind of %v", err)
			}
			if len(s) > 20 && strings.Contains(err.Error(), s) {
				t.Error("the message repeats what was given")
			}
			return
		}
		if len(got.ID) != 2*IDBytes || len(got.sum) != 64 {
			t.Errorf("%q gives %+v", s, got)
		}
	})
}
