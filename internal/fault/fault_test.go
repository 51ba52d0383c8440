package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestKindOf(t *testing.T) {
	base := New(NotFound, "unit %q does not exist", "a")
	for _, c := range []struct {
		name string
		err  error
		want Kind
	}{
		{"nil", nil, Internal},
		{"unclassified", errors.New("x"), Internal},
		{"made", base, NotFound},
		{"wrapped by fmt", fmt.Errorf("start: %w", base), NotFound},
		{"wrapped anew", Wrap(Unavailable, base, "ask m2"), Unavailable},
		{"with a hint", WithHint(base, "look"), NotFound},
		{"deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), TimedOut},
		{"classified deadline", Wrap(Unavailable, context.DeadlineExceeded, "store"), Unavailable},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("%s: kind %q, want %q", c.name, got, c.want)
		}
	}
	if Is(nil, Internal) {
		t.Error("no error has no kind")
	}
}

func TestHintsAndMessages(t *testing.T) {
	inner := WithHint(New(Invalid, "bad"), "mend it")
	outer := Wrap(Invalid, fmt.Errorf("read file: %w", inner), "submit %s", "a.service")
	if got := outer.Error(); got != "submit a.service: read file: bad" {
		t.Errorf("message %q", got)
	}
	if got := Hint(outer); got != "mend it" {
		t.Errorf("hint %q", got)
	}
	if got := Hint(WithHint(outer, "or leave it")); got != "or leave it" {
		t.Errorf("the outermost hint counts, got %q", got)
	}
	if !errors.Is(New(Failed, "x: %w", context.Canceled), context.Canceled) {
		t.Error("%w does not wrap")
	}
	if Wrap(Failed, nil, "x") != nil || WithHint(nil, "x") != nil {
		t.Error("no error stays none")
	}
}
