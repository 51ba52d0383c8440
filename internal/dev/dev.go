// Package dev runs several machines on one host: `flota dev`. Each is a whole `flota up` process with its own data directory, address,
// store and supervisor, so that what is tried on a laptop is what runs in production.
//
// The invariant: everything of a dev cluster lies under its folder, and Down leaves neither a process, a cgroup, a mount nor a file.
// The first machine makes the cluster and the others join it with a token, as machines anywhere do.
//
// Start reading at Up, then Kill and Down.
package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"flota/internal/daemon"
	"flota/internal/fault"
)

// DefaultBase is the network of machine addresses: BASE.1 to BASE.N, all on the loopback interface.
const DefaultBase = "127.7.0"

// keysPort is where the applications' keys are on each machine's address: etcd's own.
const keysPort = 2379

// maxMachines of one dev cluster. 32, as each takes about 50 MB and a few threads.
const maxMachines = 32

// Cluster is a dev cluster as DIR/dev.json remembers it.
type Cluster struct {
	Dir      string `json:"dir"`
	Base     string `json:"base"`     // the first three bytes of the machines' addresses
	Machines int    `json:"machines"` // m1 to mN

	ended map[string]chan struct{} // closed when a machine that this process started has ended
}

// DefaultDir is where `flota dev` keeps its cluster: FLOTA_DEV_DIR, or a folder of the user's state.
func DefaultDir() (string, error) {
	if d := os.Getenv("FLOTA_DEV_DIR"); d != "" {
		return d, nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "flota-dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fault.WithHint(fault.Wrap(fault.Invalid, err, "find a place for the dev cluster"), "give one with --dir")
	}
	return filepath.Join(home, ".local", "state", "flota-dev"), nil
}

// Open reads the cluster in dir: fault.NotFound if there is none.
func Open(dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("dev folder: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.WithHint(fault.New(fault.NotFound, "no dev cluster in %s", dir), "start one with: flota dev up --dir %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read dev cluster: %w", err)
	}
	c := &Cluster{ended: map[string]chan struct{}{}}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read %s", filepath.Join(dir, "dev.json"))
	}
	c.Dir = dir
	return c, nil
}

// save writes DIR/dev.json.
func (c *Cluster) save() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make dev folder: %w", err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(c.Dir, "dev.json")
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write dev cluster: %w", err)
	}
	return os.Rename(path+".new", path)
}

// Names are m1 to mN.
func (c *Cluster) Names() []string {
	names := make([]string, c.Machines)
	for i := range names {
		names[i] = "m" + strconv.Itoa(i+1)
	}
	return names
}

// MachineDir is the data directory of a machine.
func (c *Cluster) MachineDir(name string) string { return filepath.Join(c.Dir, name) }

// Socket is the API socket of a machine.
func (c *Cluster) Socket(name string) string { return filepath.Join(c.Dir, name, "flota.sock") }

// Endpoints are the API sockets of all machines, for a client that tries them in turn.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, n := range c.Names() {
		out = append(out, "unix://"+c.Socket(n))
	}
	return out
}

// Addr is the IP address of a machine.
func (c *Cluster) Addr(name string) string { return c.Base + "." + strings.TrimPrefix(name, "m") }

// has refuses names that are not of this cluster: fault.NotFound.
func (c *Cluster) has(name string) error {
	i, err := strconv.Atoi(strings.TrimPrefix(name, "m"))
	if err != nil || !strings.HasPrefix(name, "m") || i < 1 || i > c.Machines || name != "m"+strconv.Itoa(i) {
		return fault.New(fault.NotFound, "no machine %q in this dev cluster: it has m1 to m%d", name, c.Machines)
	}
	return nil
}

// checkBase refuses a base that is not three bytes of a loopback address.
func checkBase(base string) error {
	ip, err := netip.ParseAddr(base + ".1")
	if err != nil || !ip.Is4() || !ip.IsLoopback() {
		return fault.New(fault.Invalid, "base %q: want three bytes of a loopback address, such as %s", base, DefaultBase)
	}
	return nil
}

// freeWithin is how long checkFree waits for addresses: a process that was just killed holds them until the kernel has closed its sockets.
const freeWithin = 3 * time.Second

// checkFree refuses addresses on which somebody else listens: fault.Conflict.
func (c *Cluster) checkFree(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, freeWithin)
	defer cancel()
	for _, port := range []int{daemon.DefaultAPIPort, daemon.DefaultPeerPort, keysPort} {
		addr := net.JoinHostPort(c.Addr(name), strconv.Itoa(port))
		for {
			l, err := net.Listen("tcp", addr)
			if err == nil {
				l.Close()
				break
			}
			select {
			case <-ctx.Done():
				return fault.WithHint(fault.Wrap(fault.Conflict, err, "machine %s cannot listen on %s", name, addr),
					"another dev cluster may use these addresses: choose others with --base 127.8.0 (and another --dir)")
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}
