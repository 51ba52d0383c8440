// Package known is the file that names the clusters a person works with: contexts, and which of them is the current one.
//
// The invariant: a change is written whole or not at all, and only its owner can read the file. A file that is not there is an empty
// one; a file that cannot be read as what it should be is never overwritten.
//
// Start reading at File.
package known

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"flota/internal/fault"
)

// Contexts are the named clusters.
type Contexts struct {
	Current  string              `json:"current,omitempty"` // "" for none
	Contexts map[string][]string `json:"contexts"`          // name to endpoints
}

// File is the path of the file; "" when there is no place for one.
type File string

// Find gives the place of the file: FLOTA_CONFIG, or a file of the user's configuration; "" when neither is set.
func Find(getenv func(string) string) File {
	if f := getenv("FLOTA_CONFIG"); f != "" {
		return File(f)
	}
	if d := getenv("XDG_CONFIG_HOME"); d != "" {
		return File(filepath.Join(d, "flota", "contexts.json"))
	}
	if h := getenv("HOME"); h != "" {
		return File(filepath.Join(h, ".config", "flota", "contexts.json"))
	}
	return ""
}

// Read reads the file. fault.Invalid for one that makes no sense.
func (f File) Read() (Contexts, error) {
	c := Contexts{Contexts: map[string][]string{}}
	if f == "" {
		return c, nil // nothing can be kept, so nothing is known
	}
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read contexts: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fault.WithHint(fault.Wrap(fault.Invalid, err, "read contexts in %s", f), "mend or remove that file")
	}
	if c.Contexts == nil {
		c.Contexts = map[string][]string{}
	}
	return c, nil
}

// Change reads, changes and writes the file.
func (f File) Change(change func(*Contexts)) error {
	if f == "" {
		return fault.WithHint(fault.New(fault.Invalid, "no place for the contexts: HOME is not set"), "set FLOTA_CONFIG to a file")
	}
	c, err := f.Read()
	if err != nil {
		return err
	}
	change(&c)
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o700); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(string(f)+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	return os.Rename(string(f)+".new", string(f))
}
