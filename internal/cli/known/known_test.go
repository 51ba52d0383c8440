package known

import (
	"os"
	"path/filepath"
	"testing"

	"flota/internal/fault"
)

func TestFileIsFoundReadAndChanged(t *testing.T) {
	env := map[string]string{}
	get := func(k string) string { return env[k] }
	for _, x := range []struct {
		key, value string
		want       File
	}{{"", "", ""}, {"HOME", "/h", "/h/.config/flota/contexts.json"}, {"XDG_CONFIG_HOME", "/x", "/x/flota/contexts.json"}, {"FLOTA_CONFIG", "/f", "/f"}} {
		env[x.key] = x.value
		if got := Find(get); got != x.want {
			t.Errorf("with %s: got %q, want %q", x.key, got, x.want)
		}
	}
	if err := File("").Change(func(*Contexts) {}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	f := File(filepath.Join(t.TempDir(), "deep", "c.json"))
	if err := f.Change(func(c *Contexts) { c.Contexts["a"], c.Current = []string{"unix:///a"}, "a" }); err != nil {
		t.Fatal(err)
	}
	if c, err := f.Read(); err != nil || c.Current != "a" || c.Contexts["a"][0] != "unix:///a" {
		t.Error(c, err)
	}
	if err := os.WriteFile(string(f), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Change(func(*Contexts) {}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a broken file is overwritten: %v", err)
	}
}
