package e2e

import (
	"strings"
	"testing"
)

// TestKnownHostsVerification of fleet has no counterpart here: it guards fleetctl's SSH against a machine that answers with another
// host key, and nothing here speaks SSH. That a machine proves who it is comes with mutual TLS; until then machines listen on loopback
// addresses only, which is tested in room daemon.

// unplaced is a bed for commands that need no cluster.
func unplaced(t *testing.T) *bed {
	t.Helper()
	dir := t.TempDir()
	return &bed{root: dir, dir: dir + "/none"}
}

func TestClientVersionFlag(t *testing.T) {
	b := unplaced(t)
	for _, args := range [][]string{{"version"}, {"--version"}, {"-v"}} {
		if out := b.fleetctl(t, args...); strings.TrimSpace(out) != "fleetctl version "+version {
			t.Errorf("fleetctl %v prints %q", args, out)
		}
	}
}

func TestClientVersionHelpOutput(t *testing.T) {
	if out := unplaced(t).fleetctl(t, "help"); !strings.Contains(out, version) {
		t.Errorf("help does not say the version: %s", out)
	}
}

func TestClientHelpFlag(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {}} {
		if out := unplaced(t).fleetctl(t, args...); !strings.Contains(out, "list-machines") {
			t.Errorf("fleetctl %v prints %q", args, out)
		}
	}
}

// TestFleetctlWithEnv names the cluster by FLEETCTL_ENDPOINT, and one that is not there.
func TestFleetctlWithEnv(t *testing.T) {
	b := borrow(t)
	fleetctl := bins + "/fleetctl"
	elsewhere := []string{"FLOTA_CONFIG=" + t.TempDir() + "/none.json"}
	r := b.runEnv(fleetctl, append(elsewhere, "FLEETCTL_ENDPOINT=unix://"+b.socket(2)), "list-machines", "--no-legend")
	if r.code != 0 || strings.Count(r.out, "\n") != 3 {
		t.Error(r)
	}
	r = b.runEnv(fleetctl, append(elsewhere, "FLEETCTL_ENDPOINT=unix://"+b.socket(2)+".none"), "list-machines", "--no-legend")
	if r.code != 1 || r.err == "" {
		t.Error(r)
	}
}
