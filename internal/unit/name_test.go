package unit

import (
	"strings"
	"testing"

	"flota/internal/fault"
)

func TestParseName(t *testing.T) {
	long := strings.Repeat("a", 255-len(".service"))
	tests := []struct{ in, err string }{
		{"web.service", ""},
		{"web@.service", ""},
		{"web@8080.service", ""},
		{"shop.web.v12@1.container", ""},
		{`foo-bar@in\x2dst:a_b.timer`, ""},
		{"a@b@c.target", ""},
		{"dev-sda.device", ""},
		{"x.slice", ""},
		{long + ".service", ""},
		{"", "unit name cannot be empty"},
		{"a" + long + ".service", "unit name exceeds maximum length (255)"},
		{"a/b.service", `unit name "a/b.service" cannot contain "/"`},
		{"../etc/passwd.service", `unit name "../etc/passwd.service" cannot contain "/"`},
		{"..service", `unit name "..service" cannot contain ".."`},
		{"..", `unit name ".." cannot contain ".."`},
		{"web", `unit name must contain "."`},
		{"web.", `unit name cannot end in "."`},
		{"web.html", `invalid unit type: "html"`},
		{"web.Service", `invalid unit type: "Service"`},
		{"we b.service", "invalid character ' ' in unit name"},
		{"wéb.service", "invalid character 'é' in unit name"},
		{"app{1}.service", "invalid character '{' in unit name"},
		{"a\x00.service", `invalid character '\x00' in unit name`},
		{"a\xff.service", "invalid character '\uFFFD' in unit name"},
		{"@a.service", `unit name cannot start in "@"`},
		{".service", `unit name cannot start in "."`},
		{"a@b.mount", `invalid unit type for a name with "@": "mount"`},
	}
	for _, tt := range tests {
		n, err := ParseName(tt.in)
		if tt.err == "" {
			if err != nil || string(n) != tt.in {
				t.Errorf("ParseName(%q) = %q, %v", tt.in, n, err)
			}
			continue
		}
		if err == nil || err.Error() != tt.err || !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseName(%q) error %v, want %q", tt.in, err, tt.err)
		}
	}
}

func TestNameParts(t *testing.T) {
	tests := []struct {
		name                   Name
		kind                   Kind
		base, prefix, instance string
		template               Name
		isTemplate, isInstance bool
	}{
		{"web.service", Service, "web", "web", "", "", false, false},
		{"web@.service", Service, "web@", "web", "", "web@.service", true, false},
		{"web@8080.service", Service, "web@8080", "web", "8080", "web@.service", false, true},
		{"foo@bar@baz.timer", Timer, "foo@bar@baz", "foo", "bar@baz", "foo@.timer", false, true},
		{"shop.web.v12@1.container", Container, "shop.web.v12@1", "shop.web.v12", "1", "shop.web.v12@.container", false, true},
		{"a.b.socket", Socket, "a.b", "a.b", "", "", false, false},
		{"", "", "", "", "", "", false, false},
		{"nodot", "", "nodot", "nodot", "", "", false, false},
	}
	for _, tt := range tests {
		n := tt.name
		if n.Kind() != tt.kind || n.Base() != tt.base || n.Prefix() != tt.prefix || n.Instance() != tt.instance ||
			n.Template() != tt.template || n.IsTemplate() != tt.isTemplate || n.IsInstance() != tt.isInstance {
			t.Errorf("%q: kind %q base %q prefix %q instance %q template %q %v %v", n, n.Kind(), n.Base(), n.Prefix(),
				n.Instance(), n.Template(), n.IsTemplate(), n.IsInstance())
		}
	}
	for _, n := range []Name{"web@.service", "web@1.service", "web.service"} {
		if got := n.WithInstance("2"); got != "web@2.service" {
			t.Errorf("%q.WithInstance(2) = %q", n, got)
		}
	}
}

func TestCanActivate(t *testing.T) {
	err := CanActivate("x@.service")
	if err == nil || err.Error() != `cannot activate template "x@.service"` || !fault.Is(err, fault.Invalid) {
		t.Errorf("template: %v", err)
	}
	for _, n := range []Name{"x.service", "x@1.service"} {
		if err := CanActivate(n); err != nil {
			t.Errorf("%q: %v", n, err)
		}
	}
}

func TestCompleteName(t *testing.T) {
	tests := map[string]string{
		"hello":                   "hello.service",
		"hello@2":                 "hello@2.service",
		"./units/hello.service":   "hello.service",
		"/a/b/web@.timer":         "web@.timer",
		"x.target":                "x.target.service",
		"x.slice":                 "x.slice.service",
		"x.socket":                "x.socket",
		"x.path":                  "x.path",
		"x.mount":                 "x.mount",
		"x.automount":             "x.automount",
		"x.device":                "x.device",
		"shop.web.v1@1.container": "shop.web.v1@1.container",
		"shop.web":                "shop.web.service",
		"hello@*":                 "hello@*.service",
	}
	for in, want := range tests {
		if got := CompleteName(in); got != want {
			t.Errorf("CompleteName(%q) = %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"", "/", "..", ".", "a/.."} { // whatever the argument, no path gets through
		if n, err := ParseName(CompleteName(in)); err == nil {
			t.Errorf("CompleteName(%q) gives the valid name %q", in, n)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"web.service", "web@1.service", "@.service", "..", "a/b.service", "a@.mount", "a.b@c@d.container"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		_, _ = n.Template(), n.WithInstance("1") // must not panic on what was refused, either
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: kind of %v", s, err)
			}
			return
		}
		if strings.ContainsAny(s, "/\x00 \n") || strings.Contains(s, "..") || len(s) > 255 {
			t.Fatalf("accepted %q", s)
		}
		if n.Base()+"."+string(n.Kind()) != s {
			t.Fatalf("%q: base %q and kind %q do not make the name", s, n.Base(), n.Kind())
		}
		if n.IsInstance() && n.Template().WithInstance(n.Instance()) != n {
			t.Fatalf("%q: template %q and instance %q do not make the name", s, n.Template(), n.Instance())
		}
		if n.IsTemplate() && n.Template() != n {
			t.Fatalf("%q: template of the template is %q", s, n.Template())
		}
	})
}
