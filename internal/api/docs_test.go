package api

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"flota/internal/fault"
)

// document reads a file of docs.
func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// matchesOf gives what the group of a pattern matches in a text, each once, sorted.
func matchesOf(pattern, text string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// TestDocumentOfRoutes holds the table of routes in docs/api.md to the routes.
func TestDocumentOfRoutes(t *testing.T) {
	var want []string
	for _, r := range newRig(t, 1).boxes[0].srv.routes {
		want = append(want, r.method+" "+r.path)
	}
	slices.Sort(want)
	if got := matchesOf("(?m)^\\| `([A-Z]+ /v1/[^`]*)` \\|", document(t, "api.md")); !slices.Equal(got, want) {
		t.Errorf("docs/api.md has the routes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDocumentOfErrors holds the table of kinds in docs/api.md to what is sent.
func TestDocumentOfErrors(t *testing.T) {
	text := document(t, "api.md")
	rows := map[string]bool{}
	for _, row := range statuses {
		kind := string(row.kind)
		if row.kind == fault.Internal {
			kind = internalKind
		}
		rows[kind] = true
		if want := fmt.Sprintf("| `%s` | %d", kind, StatusOf(row.kind)); !strings.Contains(text, want) {
			t.Errorf("no row %s", want)
		}
	}
	if got := matchesOf("(?m)^\\| `([a-z-]+)` \\| \\d", text); len(got) != len(rows) {
		t.Errorf("kinds %q, want %v", got, rows)
	}
	if !strings.Contains(text, StaleHeader) {
		t.Errorf("%s is not told of", StaleHeader)
	}
}

// TestDocumentOfMetrics holds the metrics in docs/operations.md to those that are there.
func TestDocumentOfMetrics(t *testing.T) {
	r := newRig(t, 1)
	r.hands()
	launch(t, r.client(1), "a.service", hello)
	active(t, r.client(1), "a.service", 1)
	srv := httptest.NewServer(r.boxes[0].srv.Handler(Local))
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	have := matchesOf(`(?m)^(flota_[a-z_]+)`, string(b))
	text := document(t, "operations.md")
	if told := matchesOf("(?m)^\\| `(flota_[a-z_]+)` \\|", text); !slices.Equal(told, have) {
		t.Errorf("docs/operations.md tells of the metrics\n%q, there are\n%q", told, have)
	}
	for _, name := range matchesOf(`(flota_[a-z_]+)`, text) {
		if !slices.Contains(have, name) {
			t.Errorf("docs/operations.md names %s, which is not there", name)
		}
	}
	for _, line := range strings.Split(string(b), "\n") { // the labels that a row tells are those that it has
		name, labels, ok := strings.Cut(line, "{")
		if !ok || !strings.HasPrefix(name, "flota_") {
			continue
		}
		labels, _, _ = strings.Cut(labels, "}")
		row := regexp.MustCompile("(?m)^\\| `" + name + "` \\|[^|]*\\|").FindString(text)
		for _, l := range matchesOf(`([a-z]+)="`, labels) {
			if !strings.Contains(row, "`"+l+"`") {
				t.Errorf("the row %q lacks the label %s", row, l)
			}
		}
	}
}
