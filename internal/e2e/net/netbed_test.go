// Package netbed tests the real binary on machines of a network: each is a network namespace of this host with an address, a data directory
// and a supervisor of its own, joined to the others by a bridge, so that links can be cut, machines paused and their power cut.
//
// The invariant: nothing outlives the tests, however they end. Namespaces have no names: the kernel drops them with the last process in
// them. Everything else (processes, mounts, control groups, files) is ended by the test that made it; by a warden process if the tests are
// killed; and by the next tests if the warden is killed too. No interface is touched that was not made here, and no traffic leaves the
// namespaces.
//
// What these machines do not share with real ones: the clock (it is the host's and cannot be stepped for one of them), and the page
// cache: what a process has written and not synced survives the loss of its machine.
//
// Start reading at bed in bed_test.go, then link_test.go and power_test.go; what is observed is in ledger_test.go, judge_test.go and places_test.go.
package netbed

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// long asks for the whole matrix and all rounds instead of the part that CI has time for.
var long = flag.Bool("long", false, "run all partitions and rounds (an hour) instead of the part for CI (minutes)")

// top is the folder that everything of this process lies in.
var top string

// watcher clears top away if this process cannot.
var watcher *warden

// slots bounds how many beds work at once: with more, two cores have no time left to keep leases.
var slots = make(chan struct{}, 2)

// TestMain sweeps up what dead tests have left, and ends with an empty folder. As the warden (see sweep_test.go) it runs no tests.
func TestMain(m *testing.M) {
	if dir := os.Getenv(wardenVar); dir != "" {
		os.Exit(wardMain(dir))
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	flag.Parse()
	var err error
	if top, err = openTop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	watcher, err = startWarden(top)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(top)
		return 1
	}
	code = m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	if err := sweep(top); err != nil { // beds have ended themselves; this is the folder
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	watcher.dismiss()
	return code
}

// flotaProgram builds the binary once, as it is shipped: static, stripped.
var flotaProgram = sync.OnceValues(func() (string, error) {
	return program("flota", "flota/cmd/flota")
})

// ledgerProgram builds the unit that keeps a book of its life.
var ledgerProgram = sync.OnceValues(func() (string, error) {
	return program("ledger", "./testdata/ledger")
})

// program builds one program into top.
func program(name, pkg string) (string, error) {
	path := filepath.Join(top, "bin", name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=9.8.7-net", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}
