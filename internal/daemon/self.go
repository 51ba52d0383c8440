package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"flota/internal/fault"
)

// self is what a machine was told when it came into its cluster: a later `flota up` without flags means the same machine.
type self struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Witness bool   `json:"witness,omitempty"`
	// Founded: this machine made its cluster, and with it the first member of its store.
	Founded bool `json:"founded,omitempty"`
	// Store is the etcd of the user's own that the cluster is kept in; nil: the cluster's own store.
	Store *external `json:"store,omitempty"`
	// Removed says why this machine is in no cluster any more; "": it is, or was in none yet.
	Removed string `json:"removed,omitempty"`
}

// selfFile is where self lies in the data directory.
const selfFile = "machine.json"

// recall fills what was not given now from what was given when the machine joined. A damaged file is fault.Invalid; fault.Denied if the machine was
// removed from its cluster.
func (o Options) recall() (Options, self, error) {
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir
	}
	path := filepath.Join(o.DataDir, selfFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return o, self{}, nil
	}
	var s self
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return o, s, fault.WithHint(fault.Wrap(fault.Invalid, err, "read %s", path), "remove the file and start with --name and --addr")
	}
	if s.Removed != "" {
		return o, s, fault.WithHint(fault.New(fault.Denied, "this machine is in no cluster any more: %s", s.Removed),
			"to use it again move %s away, and join with what flota token create prints", o.DataDir)
	}
	if o.Name == "" {
		o.Name = s.Name
	}
	// An address that this host has no longer, as after DHCP gave it another one, is not insisted on.
	if o.Addr == "" && (isLoopback(s.Addr) || slices.Contains(ownAddrs(), s.Addr)) {
		o.Addr = s.Addr
	}
	o.Witness = o.Witness || s.Witness
	o, err = o.recallStore(s)
	return o, s, err
}

// rememberSelf writes down who this machine is now.
func (m *machineNow) rememberSelf() error {
	m.self.Name, m.self.Addr, m.self.Witness, m.self.Store = m.Name, m.Addr, m.Witness, m.describeStore()
	b, err := json.Marshal(m.self)
	if err != nil {
		return err
	}
	path := m.home.path(selfFile)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("remember this machine's name: %w", err)
	}
	return os.Rename(path+".new", path)
}
