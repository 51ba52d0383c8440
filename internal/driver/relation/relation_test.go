package relation_test

import (
	"fmt"
	"testing"

	"flota/internal/driver/relation"
	"flota/internal/service"
	"flota/internal/unit"
)

// load reads units of their [Unit] lines and, after a |, their [Install] lines.
func load(t *testing.T, texts map[unit.Name][2]string) relation.Loaded {
	t.Helper()
	l := relation.Loaded{}
	for name, text := range texts {
		f, _, err := unit.Parse(name, []byte("[Unit]\n"+text[0]+"\n[Service]\nExecStart=/bin/true\n[Install]\n"+text[1]+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := service.Parse(name, f, service.Host{})
		if err != nil {
			t.Fatal(err)
		}
		l[name] = relation.Of(&s)
	}
	return l
}

func TestLoaded(t *testing.T) {
	type units = map[unit.Name][2]string
	for _, c := range []struct {
		name  string
		units units
		want  string // of x.service: pulled now, pulled later, bound, following
	}{
		{"alone", units{"x.service": {}, "y.service": {}}, "[] [] [] []"},
		{"not loaded", units{"x.service": {"Wants=y.service"}}, "[] [] [] []"},
		{"sidekick", units{"x.service": {}, "y.service": {"BindsTo=x.service", "WantedBy=x.service"}},
			"[y.service] [] [y.service] [y.service]"},
		{"sidekick, after", units{"x.service": {}, "y.service": {"BindsTo=x.service\nAfter=x.service", "WantedBy=x.service"}},
			"[] [y.service] [y.service] [y.service]"},
		{"what it wants", units{"x.service": {"Wants=a.service\nRequires=b.service\nBindsTo=c.service"}, "a.service": {}, "b.service": {}, "c.service": {}},
			"[a.service b.service c.service] [] [] []"},
		{"before", units{"x.service": {"Wants=a.service\nBefore=a.service"}, "a.service": {}}, "[] [a.service] [] []"},
		{"its own order is not kept", units{"x.service": {"Wants=a.service\nAfter=a.service"}, "a.service": {}}, "[a.service] [] [] []"},
		{"by request only", units{"x.service": {}, "r.service": {"Requires=x.service"}, "p.service": {"PartOf=x.service"}},
			"[] [] [] [p.service r.service]"},
		{"required by", units{"x.service": {}, "r.service": {"", "RequiredBy=x.service"}}, "[r.service] [] [] []"},
		{"requires by the other's [Install]", units{"x.service": {"", "RequiredBy=r.service"}, "r.service": {}}, "[] [] [] [r.service]"},
		{"a chain", units{"x.service": {}, "a.service": {"BindsTo=x.service", "WantedBy=x.service"}, "b.service": {"PartOf=a.service", "WantedBy=a.service"}},
			"[a.service] [] [a.service] [a.service b.service]"},
		{"a circle", units{"x.service": {"PartOf=y.service", "WantedBy=y.service"}, "y.service": {"PartOf=x.service", "WantedBy=x.service"}},
			"[y.service] [] [] [y.service]"},
		{"itself", units{"x.service": {"BindsTo=x.service", "WantedBy=x.service"}}, "[] [] [] []"},
		{"both ways at once", units{"x.service": {"Wants=y.service"}, "y.service": {"", "WantedBy=x.service x.service"}}, "[y.service] [] [] []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := load(t, c.units)
			now, later := l.Pulled("x.service")
			if got := fmt.Sprint(now, later, l.Bound("x.service"), l.Following("x.service")); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSpecifiersAreExpanded(t *testing.T) {
	l := load(t, map[unit.Name][2]string{"web@1.service": {}, "side@1.service": {"BindsTo=web@%i.service\nAfter=web@%i.service", "WantedBy=web@%i.service"}})
	if _, later := l.Pulled("web@1.service"); fmt.Sprint(later) != "[side@1.service]" {
		t.Errorf("got %v", later)
	}
}
