package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPrograms runs programs that use etcd's Go client of version 2 and Debian's python3-etcd, as room keys/v2 has them for its tests, against every
// machine of a cluster.
func TestPrograms(t *testing.T) {
	data, err := filepath.Abs("../../internal/keys/v2/testdata")
	if err != nil {
		t.Fatal(err)
	}
	run := func(dir string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Dir = dir
		b, err := c.CombinedOutput()
		return string(b), err
	}
	programs := map[string][]string{}
	bin := filepath.Join(t.TempDir(), "client")
	if out, err := run(filepath.Join(data, "client"), "go", "build", "-o", bin, "."); err != nil {
		t.Logf("etcd's client of version 2 cannot be built here, its modules may be out of reach: %s", out)
	} else {
		programs["Go"] = []string{bin, "http://%s.%d:2379"}
	}
	const python = "/usr/bin/python3" // Debian's, which finds Debian's modules
	if _, err := run("", python, "-c", "import etcd"); err != nil {
		t.Log("python3-etcd is not installed: scripts/setup does that")
	} else {
		programs["Python"] = []string{python, filepath.Join(data, "client.py"), "%s.%d:2379"}
	}
	if len(programs) == 0 {
		t.Skip("neither can be run here")
	}
	_, _, base := docCluster(t)
	for name, args := range programs {
		for m := 1; m <= 3; m++ {
			args := append([]string{}, args...)
			args[len(args)-1] = fmt.Sprintf(args[len(args)-1], base, m)
			if out, err := run("", args...); err != nil || !strings.Contains(out, "all is well") {
				t.Errorf("%s at m%d: %v\n%s", name, m, err, out)
			}
		}
	}
}
