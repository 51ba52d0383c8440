package netbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bed is a network of machines m1 to mN. None runs before up, join or start. Its methods are for one goroutine, but for those that only run
// commands or look.
type bed struct {
	record
	root   string     // all files; unix sockets lie in it, so its path is short
	net    string     // the machines' addresses are net.1 to net.N
	bridge *namespace // holds the bridge and one end of each cable
	all    []*box
	cut    map[[2]int]bool // from, to: what is dropped
	disks  map[int]bool    // machines whose data directory is a file system of its own

	mu     sync.Mutex // guards what follows
	runs   map[int]*launched
	spaces map[int]*namespace // of the machines that have power
}

// box is one machine as the bed sees it.
type box struct {
	i    int
	name string
	addr string
	mac  string   // stays when the machine is started anew, as a network card's does
	dir  string   // data directory
	args []string // of its flota up, for when it is started again
}

// port is the API's and peers the store's. Source: DESIGN.md section 11.
const port, peers = 7700, 7701

// newBed makes a bed of n machines that do not run yet, cleared away after the test. It waits for its turn: see slots.
func newBed(t *testing.T, n int) *bed {
	t.Helper()
	need(t)
	t.Parallel()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	b, err := makeBed(n)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.logs())
		}
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// makeBed makes a bed. What it returns must be ended, also with an error.
func makeBed(n int) (*bed, error) {
	const letters = "abcdefghijklnopqrstuvwxyz23456789" // no m: it begins the machine's number
	id := "fn"
	for range 6 {
		id += string(letters[rand.IntN(len(letters))])
	}
	b := &bed{
		record: record{ID: id}, root: filepath.Join(top, id), net: fmt.Sprintf("10.%d.%d", 64+rand.IntN(64), rand.IntN(256)),
		cut: map[[2]int]bool{}, disks: map[int]bool{}, runs: map[int]*launched{}, spaces: map[int]*namespace{},
	}
	for i := 1; i <= n; i++ {
		b.all = append(b.all, &box{
			i: i, name: fmt.Sprintf("m%d", i), addr: fmt.Sprintf("%s.%d", b.net, i),
			mac: fmt.Sprintf("02:0b:%02x:%02x:00:%02x", rand.IntN(256), rand.IntN(256), i), dir: filepath.Join(b.root, fmt.Sprintf("m%d", i)),
		})
		b.Dirs = append(b.Dirs, b.all[i-1].dir)
	}
	for _, d := range []string{b.root, b.books(), filepath.Join(b.root, "logs")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return b, err
		}
	}
	text, err := json.Marshal(b.record)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.root, recordFile), text, 0o600)
	}
	if err != nil {
		return b, err
	}
	if b.bridge, err = newNamespace(); err != nil {
		return b, err
	}
	if err := b.bridge.ip("link add name hub type bridge", "link set dev hub up"); err != nil {
		return b, err
	}
	for _, m := range b.all {
		if err := b.attach(m); err != nil {
			return b, err
		}
	}
	return b, nil
}

// attach gives a machine a new namespace with a cable to the bridge: what a machine is after it was switched on, with no connections.
func (b *bed) attach(m *box) error {
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.spaces[m.i] = ns
	b.mu.Unlock()
	own, far := fmt.Sprintf("%sm%d", b.ID, m.i), fmt.Sprintf("port%d", m.i)
	err = b.bridge.ip(fmt.Sprintf("link add name %s type veth peer name %s address %s netns %s", far, own, m.mac, ns.path()),
		"link set dev "+far+" master hub up")
	if err == nil {
		err = ns.ip(fmt.Sprintf("addr add %s/24 dev %s", m.addr, own), "link set dev "+own+" up")
	}
	for pair := range b.cut {
		if err == nil && pair[0] == m.i {
			err = b.block(pair[0], pair[1])
		}
	}
	return err
}

// detach cuts a machine's cable and takes its namespace away; its processes must have been killed between.
func (b *bed) detach(m *box) {
	_ = b.bridge.ip(fmt.Sprintf("link del port%d", m.i)) // the other end goes with it
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spaces[m.i].close()
	delete(b.spaces, m.i)
}

// space is a machine's namespace; nil while it has no power.
func (b *bed) space(i int) *namespace {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spaces[i]
}

// end takes everything away and tells what was left.
func (b *bed) end() error {
	err := b.clear(b.root)
	for _, m := range b.all {
		if b.space(m.i) != nil {
			b.detach(m)
		}
	}
	if b.bridge != nil {
		b.bridge.close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.runs {
		<-l.ended
	}
	return errors.Join(err, b.left(b.root))
}

// at is machine i, m1 being 1.
func (b *bed) at(i int) *box { return b.all[i-1] }

// numbers are the machines' numbers: 1 to N.
func (b *bed) numbers() (is []int) {
	for _, m := range b.all {
		is = append(is, m.i)
	}
	return is
}

// books is the folder that units keep their books in.
func (b *bed) books() string { return filepath.Join(b.root, "books") }

// log is the file that a machine's agent writes its log to.
func (b *bed) log(i int) string { return filepath.Join(b.root, "logs", b.at(i).name) }

// logs gives the ends of the machines' logs.
func (b *bed) logs() string {
	var out strings.Builder
	for _, m := range b.all {
		files, _ := filepath.Glob(filepath.Join(m.dir, "logs", "supervisor.*"))
		for _, f := range append(files, b.log(m.i)) {
			text, _ := os.ReadFile(f) // a machine that never ran has none
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			lines = lines[max(0, len(lines)-25):]
			if len(text) > 0 {
				fmt.Fprintf(&out, "--- %s (%s)\n%s\n", f, m.addr, strings.Join(lines, "\n"))
			}
		}
	}
	return out.String()
}

// until tries every 50 ms until ok or until d is over, and says whether ok came.
func until(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-end.C:
			return ok()
		}
	}
}

// patience is how long things may take that take seconds on a quiet host and have no promise of their own.
const patience = 90 * time.Second

// promised is the time in which a thing is promised to happen. It is held to with -long, when nothing else runs; beside other tests on two cores
// a machine may have no processor for seconds, so there it is three times as much.
func promised(d time.Duration) time.Duration {
	if *long {
		return d
	}
	return 3 * d
}

// within waits until ok gives no error; the test fails with the last one when d is over. It gives how long it took.
func within(t *testing.T, d time.Duration, what string, ok func() error) time.Duration {
	t.Helper()
	began := time.Now()
	var err error
	if !until(d, func() bool { err = ok(); return err == nil }) {
		t.Fatalf("%s: not within %s: %v", what, d, err)
	}
	return time.Since(began)
}

// spend lets d pass while it looks, and ends the test when look gives an error.
func spend(t *testing.T, d time.Duration, look func() error) {
	t.Helper()
	var err error
	if until(d, func() bool { err = look(); return err != nil }) {
		t.Fatal(err)
	}
}
