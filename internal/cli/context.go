package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"flota/internal/daemon"
	"flota/internal/fault"
)

// contexts is the file that names the clusters a person works with.
type contexts struct {
	Current  string              `json:"current,omitempty"`
	Contexts map[string][]string `json:"contexts"` // name to endpoints
}

// endpoints finds the cluster: --endpoint, --context, FLOTA_ENDPOINT, FLOTA_CONTEXT, the current context, the socket of this machine.
func (a *app) endpoints() ([]string, error) {
	if len(a.socket) > 0 {
		return a.socket, nil
	}
	if a.context == "" {
		if e := a.Getenv("FLOTA_ENDPOINT"); e != "" {
			return strings.Split(e, ","), nil
		}
	}
	name := a.context
	if name == "" {
		name = a.Getenv("FLOTA_CONTEXT")
	}
	c, err := a.readContexts()
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return []string{"unix://" + filepath.Join(daemon.DefaultDataDir, "flota.sock")}, nil
	}
	ends, ok := c.Contexts[name]
	if !ok {
		return nil, fault.WithHint(fault.New(fault.NotFound, "no context named %q", name), "see them with: flota context list")
	}
	return ends, nil
}

// contextFile is where contexts are kept: FLOTA_CONFIG, or a file of the user's configuration.
func (a *app) contextFile() (string, error) {
	if f := a.Getenv("FLOTA_CONFIG"); f != "" {
		return f, nil
	}
	if d := a.Getenv("XDG_CONFIG_HOME"); d != "" {
		return filepath.Join(d, "flota", "contexts.json"), nil
	}
	if h := a.Getenv("HOME"); h != "" {
		return filepath.Join(h, ".config", "flota", "contexts.json"), nil
	}
	return "", fault.WithHint(fault.New(fault.Invalid, "no place for the contexts: HOME is not set"), "set FLOTA_CONFIG to a file")
}

// readContexts reads the file; none is an empty one.
func (a *app) readContexts() (contexts, error) {
	c := contexts{Contexts: map[string][]string{}}
	path, err := a.contextFile()
	if err != nil {
		return c, nil // nothing can be kept, so nothing is known
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read contexts: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fault.WithHint(fault.Wrap(fault.Invalid, err, "read contexts in %s", path), "mend or remove that file")
	}
	return c, nil
}

// changeContexts reads, changes and writes the file.
func (a *app) changeContexts(change func(*contexts)) error {
	c, err := a.readContexts()
	if err != nil {
		return err
	}
	path, err := a.contextFile()
	if err != nil {
		return err
	}
	change(&c)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	return os.Rename(path+".new", path)
}
