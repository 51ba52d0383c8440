// Package flota_test holds the code to ARCHITECTURE.md: see TestRooms.
package flota_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// room is one row of the room table.
type room struct {
	floor   string
	imports []string // rooms it may import, by table name
	alone   []string // third-party module prefixes that it may import
}

// maxLines is the enforced length of a product file. Source: CONTRIBUTING.md.
const maxLines = 500

// pureBan lists what rooms on the floors WORDS and MIND must not import or call. (syscall is allowed for its numbers: signals, errors.)
var (
	pureBan  = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "testing"}
	clockUse = regexp.MustCompile(`\btime\.(Now|Sleep|After|AfterFunc|NewTimer|NewTicker|Since|Until|Tick)\(`)
)

// readTable reads the table between the markers: | room | floor | purpose | may import | alone may import |.
func readTable(t *testing.T) map[string]room {
	t.Helper()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok1 := strings.Cut(string(text), "<!-- rooms -->")
	table, _, ok2 := strings.Cut(rest, "<!-- /rooms -->")
	if !ok1 || !ok2 {
		t.Fatal("ARCHITECTURE.md has no room table between <!-- rooms --> and <!-- /rooms -->")
	}
	rooms := map[string]room{}
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || strings.Contains(line, "---") || strings.TrimSpace(cells[1]) == "room" {
			continue
		}
		name := strings.Trim(cells[1], " `")
		rooms[name] = room{floor: strings.TrimSpace(cells[2]), imports: words(cells[4]), alone: words(cells[5])}
	}
	return rooms
}

// words splits a cell; "-" means nothing.
func words(cell string) []string {
	return slices.DeleteFunc(strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(cell)), func(s string) bool { return s == "-" })
}

// sourceDirs gives every folder with Go files of the product, by table name (internal/ cut off).
func sourceDirs(t *testing.T) map[string][]string {
	t.Helper()
	dirs := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		dir := filepath.Dir(path)
		if strings.HasSuffix(path, ".go") && dir != "." && !strings.HasPrefix(dir, "examples") {
			name := strings.TrimPrefix(dir, "internal/")
			dirs[name] = append(dirs[name], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// TestRooms fails if a room is missing on either side, or imports what its row does not allow.
func TestRooms(t *testing.T) {
	rooms, dirs := readTable(t), sourceDirs(t)
	for name := range rooms {
		if _, ok := dirs[name]; !ok {
			t.Errorf("room %s stands in ARCHITECTURE.md but has no code", name)
		}
	}
	for name, files := range dirs {
		r, ok := rooms[name]
		if !ok {
			t.Errorf("room %s is not in the table of ARCHITECTURE.md", name)
			continue
		}
		documented := false
		for _, path := range files {
			for _, fault := range checkFile(t, r, path, &documented) {
				t.Errorf("%s: %s", path, fault)
			}
		}
		if !documented && r.floor != "TESTS" {
			t.Errorf("room %s has no package comment", name)
		}
	}
}

// checkFile gives what is wrong with one file; documented is set when it has a package comment.
func checkFile(t *testing.T, r room, path string, documented *bool) (faults []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, "_test.go") {
		return nil
	}
	*documented = *documented || f.Doc != nil
	if n := strings.Count(string(text), "\n"); n > maxLines {
		faults = append(faults, fmt.Sprintf("%d lines, at most %d", n, maxLines))
	}
	pure := r.floor == "WORDS" || r.floor == "MIND"
	if pure && clockUse.Match(withoutComments(text, f)) {
		faults = append(faults, "reads a clock on floor "+r.floor)
	}
	for _, spec := range f.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		switch {
		case strings.HasPrefix(p, "flota/internal/"):
			if !slices.Contains(r.imports, strings.TrimPrefix(p, "flota/internal/")) {
				faults = append(faults, "imports "+p+", which its row does not allow")
			}
		case strings.Contains(strings.Split(p, "/")[0], "."):
			if !slices.ContainsFunc(r.alone, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") }) {
				faults = append(faults, "imports "+p+", which its row does not allow")
			}
		case pure && slices.Contains(pureBan, p):
			faults = append(faults, "imports "+p+" on floor "+r.floor)
		case p == "testing" && r.floor != "TESTS":
			faults = append(faults, "imports testing in product code")
		}
	}
	return faults
}

// withoutComments blanks the comments of a file.
func withoutComments(text []byte, f *ast.File) []byte {
	out := slices.Clone(text)
	for _, g := range f.Comments {
		for i := g.Pos() - f.FileStart; i < g.End()-f.FileStart && int(i) < len(out); i++ {
			out[i] = ' '
		}
	}
	return out
}
