// Package e2e tests the real binary: dev clusters of whole machines with real processes on them, through the commands, the
// sockets and the signals that people use. What fleet's functional tests asserted is here under fleet's names.
//
// The invariant: a test that passes has left nothing behind: no process, control group, mount or file (leak_test.go). Nothing
// waits for a time to pass where it could wait for something to happen, and every wait has a deadline that is generous on a busy host.
// The package has no code of the product.
//
// Start reading at bed below, then borrow and the tests in unit_test.go.
package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// version is linked into the binary, so that tests know what it prints.
const version = "9.8.7-e2e"

// bins is where TestMain has put flota, and fleetctl, which is the same file.
var bins string

// shared are the clusters that tests borrow.
var shared = pool{slots: make(chan *bed, 2)}

// TestMain builds the binary once, and ends the shared clusters after the last test.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "fe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bins = dir
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range cap(shared.slots) {
		shared.slots <- nil
	}
	code = m.Run()
	for _, err := range shared.end() {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	return code
}

// build makes the binary as it is shipped: static, stripped.
func build(dir string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", filepath.Join(dir, "flota"), "flota/cmd/flota")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build flota: %w\n%s", err, out)
	}
	return os.Symlink("flota", filepath.Join(dir, "fleetctl"))
}

// bed is a dev cluster of N machines, m1 to mN, with a context file of its own.
type bed struct {
	root string // holds all of it
	dir  string // the cluster's folder
	base string // addresses are base.1 to base.N
	n    int
	keys []string // by which its control groups are found
}

// pool lends clusters of three machines, one test at a time each. A test on a cluster of its own takes a slot too, so that no
// more clusters work at once than slots.
type pool struct {
	slots chan *bed // nil: not started yet

	mu  sync.Mutex // guards all below
	all []*bed
}

// borrow gives a test a cluster of three machines that are ready, without units. What the test does to units, machines and labels is
// undone after it; a cluster that cannot be mended, or whose test failed, is not lent again.
func borrow(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	b := <-shared.slots
	if b == nil {
		var err error
		if b, err = start(3); err != nil {
			shared.slots <- nil
			t.Fatal(err)
		}
		shared.add(b)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			if err := b.restore(); err != nil {
				t.Errorf("the cluster cannot be put back in order: %v", err)
			}
		}
		if t.Failed() {
			b.tell(t)
			shared.drop(b)
			if err := b.end(); err != nil {
				t.Error(err)
			}
			b = nil
		}
		shared.slots <- b
	})
	return b
}

// newCluster gives a test a cluster of its own of n machines, ended after it.
func newCluster(t *testing.T, n int) *bed {
	t.Helper()
	t.Parallel()
	slot := <-shared.slots
	t.Cleanup(func() { shared.slots <- slot })
	b, err := start(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b.tell(t)
		}
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (p *pool) add(b *bed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, b)
}

func (p *pool) drop(b *bed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.all {
		if other == b {
			p.all = append(p.all[:i], p.all[i+1:]...)
			return
		}
	}
}

// end ends the clusters that are left and gives what went wrong.
func (p *pool) end() (errs []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.all {
		if err := b.end(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// start makes a cluster. The folder's path is short, since unix sockets lie in it.
func start(n int) (*bed, error) {
	root, err := os.MkdirTemp("", "fe")
	if err != nil {
		return nil, err
	}
	b := &bed{root: root, dir: filepath.Join(root, "c"), n: n}
	for range 5 { // somebody else may take the addresses first
		if b.base, err = freeBase(n); err != nil {
			break
		}
		r := b.run("flota", "dev", "up", "--detach", "-n", strconv.Itoa(n), "--dir", b.dir, "--base", b.base)
		if r.code == 0 {
			b.keys = keysOf(b)
			return b, nil
		}
		err = fmt.Errorf("flota dev up: %v\n%s", r, b.logs())
		b.run("flota", "dev", "down", "--dir", b.dir)
		if !strings.Contains(r.err, "cannot listen") {
			break
		}
	}
	return nil, errors.Join(err, os.RemoveAll(root))
}

// freeBase finds three bytes of loopback addresses on which nobody listens.
func freeBase(n int) (string, error) {
	for range 200 {
		base := fmt.Sprintf("127.%d.%d", 50+rand.IntN(10), 1+rand.IntN(254))
		free := true
		for i := 1; i <= n && free; i++ {
			for _, port := range []string{"7700", "7701"} {
				l, err := net.Listen("tcp", net.JoinHostPort(base+"."+strconv.Itoa(i), port))
				if err != nil {
					free = false
					break
				}
				l.Close()
			}
		}
		if free {
			return base, nil
		}
	}
	return "", errors.New("no free addresses in 127.50.0.0 to 127.59.255.255")
}

// end takes the cluster down and tells what it has left behind.
func (b *bed) end() error {
	r := b.run("flota", "dev", "down", "--dir", b.dir)
	var err error
	if r.code != 0 {
		err = fmt.Errorf("flota dev down: %v", r)
	}
	err = errors.Join(err, b.leaks())
	return errors.Join(err, os.RemoveAll(b.root))
}

// restore puts a cluster back in order: all machines there and ready, no units, no labels but their own.
func (b *bed) restore() error {
	for _, m := range b.processes() {
		if m.Agent == 0 {
			if r := b.run("flota", "dev", "start", m.Name); r.code != 0 {
				return fmt.Errorf("start %s: %v", m.Name, r)
			}
		}
	}
	if r := b.run("flota", "destroy", "*"); r.code != 0 && r.code != 3 { // 3: there are none
		return fmt.Errorf("destroy units: %v", r)
	}
	var last error
	if !until(time.Minute, func() bool { last = b.tidy(); return last == nil }) {
		return last
	}
	return nil
}

// tidy says what is not in order; what it can put in order it does.
func (b *bed) tidy() error {
	ms, err := b.machines()
	if err != nil {
		return err
	}
	ready := 0
	for _, m := range ms {
		if m.Status == "ready" {
			ready++
		}
		for k := range m.All {
			if k != "dev" { // its own
				b.run("flota", "machine", "label", m.Name, k+"-")
				err = fmt.Errorf("%s has label %s", m.Name, k)
			}
		}
		if m.Drained {
			b.run("flota", "machine", "resume", m.Name)
			err = fmt.Errorf("%s is drained", m.Name)
		}
	}
	if ready != b.n || len(ms) != b.n {
		return fmt.Errorf("%d of %d machines are ready: %+v", ready, b.n, ms)
	}
	units, unitErr := b.units()
	if unitErr == nil && len(units) > 0 {
		unitErr = fmt.Errorf("%d units are left", len(units))
	}
	return errors.Join(err, unitErr)
}

// tell prints the ends of the machines' logs.
func (b *bed) tell(t *testing.T) {
	t.Helper()
	t.Logf("cluster in %s at %s.1:\n%s", b.dir, b.base, b.logs())
}

// logs gives the ends of the machines' logs.
func (b *bed) logs() string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(b.dir, "*", "agent.log"))
	more, _ := filepath.Glob(filepath.Join(b.dir, "*", "logs", "supervisor.*"))
	for _, f := range append(files, more...) {
		text, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(lines) > 25 {
			lines = lines[len(lines)-25:]
		}
		if len(text) > 0 {
			fmt.Fprintf(&out, "--- %s\n%s\n", f, strings.Join(lines, "\n"))
		}
	}
	return out.String()
}
