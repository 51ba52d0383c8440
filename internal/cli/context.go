package cli

import (
	"path/filepath"
	"strings"

	"flota/internal/cli/known"
	"flota/internal/daemon"
	"flota/internal/fault"
)

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
	c, err := a.contexts().Read()
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

// contexts is the file that names the clusters a person works with.
func (a *app) contexts() known.File { return known.Find(a.Getenv) }
