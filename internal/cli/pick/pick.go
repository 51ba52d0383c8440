// Package pick turns the UNIT... words of a command line into units: files, names, templates, app@{1..3} ranges, and globs of
// the cluster's units; and it brings units that are not in the cluster yet there.
//
// The invariant: fleetctl's order of looking: the unit in the cluster, the local file, the template in the cluster, the template's
// file beside. What a person wrote is never guessed at further: a word that means nothing is an error that names it.
//
// Start reading at Picker.
package pick

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/unit"
)

// Source is what a Picker needs of a client.
type Source interface {
	Unit(ctx context.Context, name string) (api.Unit, error)
	Units(ctx context.Context, patterns ...string) (api.List[api.Unit], error)
	PutUnit(ctx context.Context, name string, p api.PutUnit) (u api.Unit, created bool, err error)
}

// Picker finds units. Source must be set.
type Picker struct {
	Source Source
	Strict bool // refuse what would only be warned of
	Plain  bool // words are names and files only: no ranges, no globs (fleetctl)
	// Run leaves out templates that a glob matches and refuses those that are named: they cannot run.
	Run bool
	// Local decides whether a local file is put in the place of the cluster's unit old; same: it has the same content. nil: it is not.
	Local func(old api.Unit, file string, same bool) (replace bool)
	// Warn is told what is odd about a unit file, each once. nil: nobody is.
	Warn func(name unit.Name, note string)
}

// few units are asked for one by one, more with one request for all. limit bounds the requests at once.
const (
	few   = 16
	limit = 16
)

// word is one argument.
type word struct {
	arg  string
	name unit.Name
}

// words expands ranges and globs and makes names; each unit comes once, in the order given. seen gets the units that a glob has brought.
func (p *Picker) words(ctx context.Context, args []string, seen map[unit.Name]api.Unit) ([]word, error) {
	all, err := args, error(nil)
	if !p.Plain {
		all, err = unit.ExpandArgs(args)
	}
	if err != nil {
		return nil, fault.WithHint(err, "ranges such as app@{1..3} stand for one name each")
	}
	var out []word
	had := map[unit.Name]bool{}
	add := func(arg string, name unit.Name) {
		if !had[name] {
			had[name] = true
			out = append(out, word{arg: arg, name: name})
		}
	}
	for _, arg := range all {
		if p.isGlob(arg) {
			found, err := p.glob(ctx, arg)
			if err != nil {
				return nil, err
			}
			for _, u := range found {
				if p.Run && u.Name.IsTemplate() {
					continue
				}
				seen[u.Name] = u
				add(arg, u.Name)
			}
			continue
		}
		name, err := unit.ParseName(unit.CompleteName(arg))
		if err != nil {
			return nil, fault.WithHint(err, "a unit is named like web.service, web@1.service or web (for web.service)")
		}
		if err := unit.CanActivate(name); p.Run && err != nil {
			return nil, fault.WithHint(err, "name an instance of it, such as %s", name.WithInstance("1"))
		}
		add(arg, name)
	}
	if len(out) == 0 && len(all) > 0 {
		return nil, fault.WithHint(fault.New(fault.NotFound, "%q matches nothing but templates", all[0]), "name instances, such as web@1.service")
	}
	return out, nil
}

// isGlob says whether a word is a pattern.
func (p *Picker) isGlob(arg string) bool { return !p.Plain && unit.IsGlob(arg) && !isFile(arg) }

// glob gives the cluster's units that match; none is fault.NotFound.
func (p *Picker) glob(ctx context.Context, pattern string) ([]api.Unit, error) {
	if strings.Contains(pattern, "/") {
		return nil, fault.WithHint(fault.New(fault.NotFound, "no file matches %q", pattern), "patterns without a / match the cluster's units")
	}
	patterns := []string{pattern}
	if c := unit.CompleteName(pattern); c != pattern {
		patterns = append(patterns, c)
	}
	list, err := p.Source.Units(ctx, patterns...)
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, fault.WithHint(fault.New(fault.NotFound, "no unit of the cluster matches %q", pattern), "flota list-unit-files shows what there is")
	}
	return list.Items, nil
}

// isFile says whether there is such a file.
func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// Names gives the names that the arguments stand for; they need not exist, but for globs.
func (p *Picker) Names(ctx context.Context, args []string) ([]unit.Name, error) {
	words, err := p.words(ctx, args, map[unit.Name]api.Unit{})
	var out []unit.Name
	for _, w := range words {
		out = append(out, w.name)
	}
	return out, err
}

// Find gives the units of the cluster that the arguments stand for, and the names of those that are not there.
func (p *Picker) Find(ctx context.Context, args []string) (found []api.Unit, missing []unit.Name, err error) {
	seen := map[unit.Name]api.Unit{}
	words, err := p.words(ctx, args, seen)
	if err != nil {
		return nil, nil, err
	}
	if err := p.look(ctx, words, seen); err != nil {
		return nil, nil, err
	}
	for _, w := range words {
		if u, ok := seen[w.name]; ok {
			found = append(found, u)
		} else {
			missing = append(missing, w.name)
		}
	}
	return found, missing, nil
}

// look fills seen with those of the words that are in the cluster.
func (p *Picker) look(ctx context.Context, words []word, seen map[unit.Name]api.Unit) error {
	var open []word
	for _, w := range words {
		if _, ok := seen[w.name]; !ok {
			open = append(open, w)
		}
	}
	if len(open) > few {
		list, err := p.Source.Units(ctx)
		for _, u := range list.Items {
			seen[u.Name] = u
		}
		return err
	}
	units := make([]api.Unit, len(open))
	err := Each(len(open), func(i int) error {
		u, err := p.Source.Unit(ctx, string(open[i].name))
		if err == nil {
			units[i] = u
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
		return nil
	})
	for _, u := range units {
		if u.Name != "" {
			seen[u.Name] = u
		}
	}
	return err
}

// Each calls f for 0 to n-1, at most limit at once, and gives the first error in that order.
func Each(n int, f func(int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, limit)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Brought is a unit that is in the cluster now.
type Brought struct {
	api.Unit
	Before   *api.Unit // as it was; nil if it is new
	Created  bool
	Replaced bool // its content is another now
}

// Bring gives the units that the arguments stand for and puts those into the cluster that are not there.
func (p *Picker) Bring(ctx context.Context, args []string) ([]Brought, error) {
	seen := map[unit.Name]api.Unit{}
	words, err := p.words(ctx, args, seen)
	if err != nil {
		return nil, err
	}
	if err := p.look(ctx, words, seen); err != nil {
		return nil, err
	}
	puts := make([]api.PutUnit, len(words))
	for i, w := range words { // all files are read before the first is put: a bad word changes nothing
		if puts[i], err = p.content(ctx, w, seen); err != nil {
			return nil, err
		}
	}
	out := make([]Brought, len(words))
	err = Each(len(words), func(i int) error {
		w := words[i]
		if u := seen[w.name]; u.Name != "" {
			out[i].Unit, out[i].Before = u, &u
			if puts[i].Text == "" {
				return nil
			}
		}
		u, created, err := p.Source.PutUnit(ctx, string(w.name), puts[i])
		if err != nil {
			return err
		}
		out[i].Replaced = out[i].Before != nil && out[i].Before.Hash != u.Hash
		out[i].Unit, out[i].Created = u, created
		return nil
	})
	p.warn(out)
	return out, err
}

// warn tells the notes of all unit files; those of instances of one template once.
func (p *Picker) warn(all []Brought) {
	if p.Warn == nil {
		return
	}
	told := map[string]bool{}
	for _, b := range all {
		subject := b.Name
		if b.Name.IsInstance() {
			subject = b.Name.Template()
		}
		for _, note := range b.Notes {
			if !told[string(subject)+note] {
				told[string(subject)+note] = true
				p.Warn(b.Name, note)
			}
		}
	}
}

// content gives what is to be put for a word: nothing if the cluster's unit stays as it is.
func (p *Picker) content(ctx context.Context, w word, seen map[unit.Name]api.Unit) (api.PutUnit, error) {
	put := api.PutUnit{Strict: p.Strict}
	var paths []string
	if p.isGlob(w.arg) {
		return put, nil
	}
	own := ownFile(w)
	template := ""
	if w.name.IsInstance() {
		template = filepath.Join(filepath.Dir(w.arg), string(w.name.Template()))
	}
	old := seen[w.name]
	exists := old.Name != ""
	if exists {
		paths = []string{own, template}
	} else if own != "" || template == "" {
		paths = []string{own}
	} else {
		has, err := p.has(ctx, w.name.Template(), seen)
		if err != nil {
			return put, err
		}
		if has {
			return put, nil // no text: the cluster's template
		}
		paths = []string{template}
	}
	for _, file := range paths {
		if file == "" || !isFile(file) {
			continue
		}
		text, f, err := Read(file, w.name)
		if err != nil {
			return put, err
		}
		if !exists {
			put.Text = text
			return put, nil
		}
		if p.Local != nil && p.Local(old, file, f.Hash() == old.Hash) {
			put.Text, put.Replace = text, true
		}
		return put, nil
	}
	if exists {
		return put, nil
	}
	return put, unknown(w)
}

// has says whether the cluster has the template, and remembers it.
func (p *Picker) has(ctx context.Context, template unit.Name, seen map[unit.Name]api.Unit) (bool, error) {
	if u, ok := seen[template]; ok {
		return u.Name != "", nil
	}
	u, err := p.Source.Unit(ctx, string(template))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return false, err
	}
	seen[template] = u // without a name if there is none
	return err == nil, nil
}

// ownFile is the local file of a word: the word itself if it is a path or ends in a type of unit, else its name beside; "" for none.
func ownFile(w word) string {
	if (strings.Contains(w.arg, "/") || path.Base(w.arg) == string(w.name)) && isFile(w.arg) {
		return w.arg
	}
	if beside := filepath.Join(filepath.Dir(w.arg), string(w.name)); isFile(beside) {
		return beside
	}
	return ""
}

// unknown is the error for a word that means nothing.
func unknown(w word) error {
	what := fmt.Sprintf("no unit %q in the cluster and no such file", w.name)
	if strings.Contains(w.arg, "/") {
		what = fmt.Sprintf("no unit %q in the cluster and no file %s", w.name, w.arg)
	}
	if w.name.IsInstance() {
		what += fmt.Sprintf(", nor its template %q", w.name.Template())
	}
	return fault.WithHint(fault.New(fault.NotFound, "%s", what), "flota list-unit-files shows what the cluster has")
}

// Read reads and checks a unit file that a unit called name gets its content from. fault.Invalid for one that cannot be; messages
// name the file.
func Read(file string, name unit.Name) (text string, f unit.File, err error) {
	h, err := os.Open(file)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", f, fault.New(fault.NotFound, "no file %s", file)
		}
		return "", f, fault.Wrap(fault.Invalid, err, "read unit file")
	}
	defer h.Close()
	if fi, err := h.Stat(); err == nil && !fi.Mode().IsRegular() {
		return "", f, fault.New(fault.Invalid, "%s is no regular file", file)
	}
	b, err := io.ReadAll(io.LimitReader(h, unit.MaxText+1))
	if err != nil {
		return "", f, fault.Wrap(fault.Invalid, err, "read unit file")
	}
	if len(b) > unit.MaxText {
		return "", f, fault.New(fault.Invalid, "%s is larger than a unit may be (%d bytes)", file, unit.MaxText)
	}
	f, _, err = unit.Parse(name, b) // the server gives the warnings
	if err != nil {
		return "", f, fault.Wrap(fault.Invalid, err, "%s", file)
	}
	if len(f.Options) == 0 {
		return "", f, fault.New(fault.Invalid, "%s: the unit file says nothing", file)
	}
	return string(b), f, nil
}

// Missing is the error for units that are not in the cluster; nil for none.
func Missing(names []unit.Name) error {
	if len(names) == 0 {
		return nil
	}
	var quoted []string
	for _, n := range slices.Compact(names) {
		if len(quoted) == 5 {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(names)-5))
			break
		}
		quoted = append(quoted, fmt.Sprintf("%q", string(n)))
	}
	what := "unit " + quoted[0] + " does not exist"
	if len(quoted) > 1 {
		what = "units " + strings.Join(quoted, ", ") + " do not exist"
	}
	return fault.WithHint(fault.New(fault.NotFound, "%s", what), "flota list-unit-files shows what there is")
}
