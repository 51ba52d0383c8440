package dev

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MachineStatus is what runs of a machine on this host.
type MachineStatus struct {
	Name       string `json:"name"`
	Addr       string `json:"addr"`
	Socket     string `json:"socket"`
	Agent      int    `json:"agent,omitempty"`      // process id; 0: does not run
	Supervisor int    `json:"supervisor,omitempty"` // process id; 0: does not run
}

// Status gives the processes of all machines.
func (c *Cluster) Status() []MachineStatus {
	var out []MachineStatus
	for _, n := range c.Names() {
		m := MachineStatus{Name: n, Addr: c.Addr(n), Socket: c.Socket(n)}
		if pid, ok := c.agentPid(n); ok {
			m.Agent = pid
		}
		if b, err := os.ReadFile(filepath.Join(c.MachineDir(n), "supervisor.pid")); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && !isZombie(pid) {
				m.Supervisor = pid
			}
		}
		out = append(out, m)
	}
	return out
}
