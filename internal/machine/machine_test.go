package machine

import (
	"maps"
	"strings"
	"testing"

	"flota/internal/fault"
)

func TestParseID(t *testing.T) {
	good := strings.Repeat("0a", 16)
	if id, err := ParseID(good); err != nil || id.Short() != "0a0a0a0a" {
		t.Errorf("%v %v", id, err)
	}
	for _, s := range []string{"", good[1:], good + "0", strings.ToUpper(good), strings.Repeat("g", 32), good[:31] + "\n"} {
		if _, err := ParseID(s); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseID(%q): %v, want invalid", s, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "m1", "web-01", strings.Repeat("a", 63)} {
		if err := CheckName(s); err != nil {
			t.Errorf("CheckName(%q): %v", s, err)
		}
	}
	for _, s := range []string{"", "-a", "a-", "A", "a.b", "a/b", "..", strings.Repeat("a", 64), "a\nb"} {
		if err := CheckName(s); !fault.Is(err, fault.Invalid) {
			t.Errorf("CheckName(%q): %v, want invalid", s, err)
		}
	}
}

func TestLabels(t *testing.T) {
	own := Presence{Labels: map[string]string{"disk": "ssd", "zone": "a"}}
	set := Machine{Labels: map[string]string{"zone": "", "rack": "7", "disk": "hdd"}}
	got := Labels(own, set)
	if want := (map[string]string{"disk": "hdd", "rack": "7"}); !maps.Equal(got, want) {
		t.Errorf("labels %v, want %v", got, want)
	}
	if own.Labels["zone"] != "a" {
		t.Error("the machine's own labels were changed")
	}
	if got := PrintLabels(got); got != "disk=hdd,rack=7" {
		t.Errorf("printed %q", got)
	}
	if got := PrintLabels(nil); got != "-" {
		t.Errorf("none printed %q", got)
	}
}

func TestParseLabel(t *testing.T) {
	if k, v, err := ParseLabel("a.b-c_1=x=y"); k != "a.b-c_1" || v != "x=y" || err != nil {
		t.Errorf("%q %q %v", k, v, err)
	}
	for _, s := range []string{"", "a", "=x", "a b=c", "a/b=c"} {
		if _, _, err := ParseLabel(s); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseLabel(%q): %v, want invalid", s, err)
		}
	}
}
