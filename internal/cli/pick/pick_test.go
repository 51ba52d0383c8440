package pick

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/unit"
)

const text = "[Service]\nExecStart=/bin/true\n"

// stock is a cluster that only keeps units.
type stock struct {
	mu    sync.Mutex
	units map[string]unit.File
	puts  []string
}

func (s *stock) unit(name string) api.Unit {
	f := s.units[name]
	return api.Unit{Unit: unit.Unit{Name: unit.Name(name), Options: f.Options}, Hash: f.Hash()}
}

func (s *stock) Unit(_ context.Context, name string) (api.Unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.units[name]; !ok {
		return api.Unit{}, fault.New(fault.NotFound, "no %s", name)
	}
	return s.unit(name), nil
}

func (s *stock) Units(_ context.Context, patterns ...string) (l api.List[api.Unit], _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.units {
		if len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok }) {
			l.Items = append(l.Items, s.unit(name))
		}
	}
	slices.SortFunc(l.Items, func(a, b api.Unit) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return l, nil
}

func (s *stock) PutUnit(_ context.Context, name string, p api.PutUnit) (api.Unit, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, _, err := unit.Parse(unit.Name(name), []byte(p.Text))
	from := "text"
	if p.Text == "" {
		f, from = s.units[string(unit.Name(name).Template())], "template"
	}
	_, had := s.units[name]
	s.units[name] = f
	s.puts = append(s.puts, fmt.Sprintf("%s from %s", name, from))
	return s.unit(name), !had, err
}

// at makes a stock of units and a folder of files, which becomes the current one.
func at(t *testing.T, units, files []string) *stock {
	t.Helper()
	t.Chdir(t.TempDir())
	s := &stock{units: map[string]unit.File{}}
	for _, n := range units {
		f, _, err := unit.Parse(unit.Name(n), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		s.units[n] = f
	}
	for _, n := range files {
		name, body, ok := strings.Cut(n, ":")
		if !ok {
			body = text
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestBringLooksInFleetsOrder(t *testing.T) {
	for _, x := range []struct {
		name         string
		units, files []string
		args, puts   []string
		kind         fault.Kind
		words        string
	}{
		{name: "what is there stays", units: []string{"a.service"}, files: []string{"a.service"}, args: []string{"a", "./a.service"}},
		{name: "a file", files: []string{"a.service"}, args: []string{"a"}, puts: []string{"a.service from text"}},
		{name: "a file elsewhere", files: []string{"x/a.service"}, args: []string{"x/a"}, puts: []string{"a.service from text"}},
		{name: "a file without a type in its name", files: []string{"x/a"}, args: []string{"./x/a"}, puts: []string{"a.service from text"}},
		{name: "a file of the name itself that is no unit", files: []string{"a"}, args: []string{"a"}, kind: fault.NotFound, words: "no such file"},
		{name: "the instance's own file before the template", units: []string{"t@.service"}, files: []string{"t@1.service"}, args: []string{"t@1"}, puts: []string{"t@1.service from text"}},
		{name: "the cluster's template before the file", units: []string{"t@.service"}, files: []string{"t@.service:[Service]\nExecStart=/other\n"}, args: []string{"t@1"}, puts: []string{"t@1.service from template"}},
		{name: "the template's file", files: []string{"t@.service"}, args: []string{"t@{1..2}"}, puts: []string{"t@1.service from text", "t@2.service from text"}},
		{name: "each once", files: []string{"a.service"}, args: []string{"a", "a.service", "./a"}, puts: []string{"a.service from text"}},
		{name: "a bad word changes nothing", files: []string{"a.service"}, args: []string{"a", "b"}, kind: fault.NotFound, words: "b.service"},
		{name: "a bad file changes nothing", files: []string{"a.service", "b.service:"}, args: []string{"a", "b"}, kind: fault.Invalid, words: "says nothing"},
		{name: "a glob is of the cluster", units: []string{"a.service", "t@.service"}, args: []string{"*"}},
		{name: "a glob that matches nothing", args: []string{"z*"}, kind: fault.NotFound, words: `"z*"`},
		{name: "a glob with a path", args: []string{"x/*"}, kind: fault.NotFound, words: "no file matches"},
		{name: "a template does not run", args: []string{"t@.service"}, kind: fault.Invalid, words: "cannot activate template"},
		{name: "nothing but templates", units: []string{"t@.service"}, args: []string{"t@*"}, kind: fault.NotFound, words: "templates"},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := at(t, x.units, x.files)
			p := Picker{Source: s, Run: true}
			_, err := p.Bring(t.Context(), x.args)
			slices.Sort(s.puts)
			if !slices.Equal(s.puts, x.puts) {
				t.Errorf("put %q, want %q", s.puts, x.puts)
			}
			if (err != nil) != (x.kind != "") || err != nil && (!fault.Is(err, x.kind) || !strings.Contains(err.Error(), x.words)) {
				t.Errorf("error %v, want kind %q and %q", err, x.kind, x.words)
			}
		})
	}
}

func TestLocalDecides(t *testing.T) {
	s := at(t, []string{"a.service", "b.service"}, []string{"a.service", "b.service:[Service]\nExecStart=/other\n"})
	var seen []string
	p := Picker{Source: s, Local: func(old api.Unit, file string, same bool) bool {
		seen = append(seen, fmt.Sprintf("%s %s %v", old.Name, file, same))
		return !same
	}}
	all, err := p.Bring(t.Context(), []string{"a", "b"})
	if err != nil || all[0].Replaced || !all[1].Replaced {
		t.Error(all, err)
	}
	if !slices.Equal(seen, []string{"a.service a.service true", "b.service b.service false"}) || !slices.Equal(s.puts, []string{"b.service from text"}) {
		t.Error(seen, s.puts)
	}
}

func TestManyAreAskedForTogetherAndMissingOnesNamed(t *testing.T) {
	var units []string
	for i := range 30 {
		units = append(units, fmt.Sprintf("u@%d.service", i))
	}
	p := Picker{Source: at(t, units, nil)}
	found, missing, err := p.Find(t.Context(), []string{"u@{0..39}"})
	if err != nil || len(found) != 30 || len(missing) != 10 {
		t.Error(len(found), missing, err)
	}
	if text := Missing(missing).Error(); !strings.Contains(text, "and 5 more") {
		t.Error(text)
	}
	if Missing(nil) != nil {
		t.Error("nothing is missing")
	}
	plain := Picker{Source: p.Source, Plain: true}
	if _, _, err := plain.Find(t.Context(), []string{"u@*"}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
