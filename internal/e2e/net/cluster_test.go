package netbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The periods in which units write their books. Exclusive ones by a twentieth of the second that fences stop them early.
const soleTick, plainTick = 50 * time.Millisecond, 200 * time.Millisecond

// needFlota builds the programs, or fails the test.
func needFlota(t *testing.T) {
	t.Helper()
	if _, err := flotaProgram(); err != nil {
		t.Fatal(err)
	}
	if _, err := ledgerProgram(); err != nil {
		t.Fatal(err)
	}
}

// newCluster makes a bed of n machines of which the first size make a cluster; flags are for the `flota up` of each.
func newCluster(t *testing.T, n, size int, flags ...string) *bed {
	t.Helper()
	b := newBed(t, n)
	b.cluster(t, size, flags...)
	return b
}

// cluster makes the first size machines of a bed a cluster, with all the voters that it should have.
func (b *bed) cluster(t *testing.T, size int, flags ...string) {
	t.Helper()
	needFlota(t)
	b.found(t, 1, flags...)
	if size > 1 {
		var others []int
		for i := 2; i <= size; i++ {
			others = append(others, i)
		}
		b.join(t, 1, others, flags...)
		b.ready(t, 1, b.numbers()[:size]...)
		b.voting(t, 1, wantVoters(size))
	}
}

// wantVoters is how many of n machines vote. Source: the issue; 2 machines have one voter and a learner.
func wantVoters(n int) int {
	switch {
	case n < 3:
		return 1
	case n < 7:
		return 3
	}
	return 5
}

// up runs flota up on a machine and remembers its flags, but for extra ones that are for this time only.
func (b *bed) up(t *testing.T, i int, flags []string, extra ...string) {
	t.Helper()
	b.at(i).args = flags
	b.launch(t, i, "flota", slices.Concat([]string{"up"}, flags, extra)...)
}

// start starts a machine that was in a cluster before, as its service manager would at boot.
func (b *bed) start(t *testing.T, i int) {
	t.Helper()
	b.up(t, i, b.at(i).args)
}

// found makes a machine the first of a cluster.
func (b *bed) found(t *testing.T, i int, flags ...string) {
	t.Helper()
	b.up(t, i, flags)
	b.ready(t, i, i)
}

// invitation is what `flota token create --json` prints.
type invitation struct {
	CAHash, Command string
	token           string // as it stands in the command, flj_ID_SECRET
}

// invite makes a join token on a machine.
func (b *bed) invite(t *testing.T, i int, flags ...string) (in invitation) {
	t.Helper()
	out := b.must(t, i, append([]string{"token", "create", "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &in); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	words := strings.Fields(in.Command)
	if n := slices.Index(words, "--token"); n > 0 && n+1 < len(words) {
		in.token = words[n+1]
	}
	if !strings.HasPrefix(in.Command, "flota up --join ") || strings.Count(in.token, "_") != 2 || !strings.Contains(in.Command, in.CAHash) {
		t.Fatalf("the command to join by is %q", in.Command)
	}
	return in
}

// join lets machines join the cluster of machine at, all at once.
func (b *bed) join(t *testing.T, at int, machines []int, flags ...string) {
	t.Helper()
	in := b.invite(t, at, "--uses", fmt.Sprint(len(machines)))
	for _, i := range machines {
		b.up(t, i, flags, strings.Fields(in.Command)[2:]...)
	}
}

// seen is what a machine says of one machine of the cluster.
type seen struct {
	Name, Status                    string
	Voter, Learner, Witness, Leader bool
}

// status is what `flota status --json` says.
type status struct {
	Leader   string
	Stale    bool
	Machines []seen
	Store    struct {
		Quorum  bool
		Leader  string
		Members []struct {
			Name    string
			Learner bool
		}
	}
}

// status asks machine i.
func (b *bed) status(i int) (s status, err error) { return s, b.decode(i, &s, "status") }

// readyNow says which of the named machines are not ready in the eyes of machine at.
func (b *bed) readyNow(at int, machines ...int) error {
	s, err := b.status(at)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range machines {
		if !slices.ContainsFunc(s.Machines, func(m seen) bool { return m.Name == b.at(i).name && m.Status == "ready" }) {
			errs = append(errs, fmt.Errorf("%s is not ready: %+v", b.at(i).name, s.Machines))
		}
	}
	if s.Stale {
		errs = append(errs, errors.New("the answer is old"))
	}
	return errors.Join(errs...)
}

// ready waits until machine at sees the named machines ready. It does not wait for one whose agent has ended.
func (b *bed) ready(t *testing.T, at int, machines ...int) {
	t.Helper()
	within(t, patience, fmt.Sprintf("%v ready", machines), func() error {
		for _, i := range machines {
			if b.over(i) {
				t.Fatalf("flota up on %s has ended", b.at(i).name)
			}
		}
		return b.readyNow(at, machines...)
	})
}

// over reports whether the agent of a machine has ended by itself.
func (b *bed) over(i int) bool {
	b.mu.Lock()
	l := b.runs[i]
	b.mu.Unlock()
	if l == nil {
		return false
	}
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// voters gives the names of the machines that vote, as the store's own members say; an error if the table of machines says another thing.
func (b *bed) voters(at int) (names []string, err error) {
	s, err := b.status(at)
	if err != nil {
		return nil, err
	}
	var table []string
	for _, m := range s.Store.Members {
		if !m.Learner {
			names = append(names, m.Name)
		}
	}
	for _, m := range s.Machines {
		if m.Voter && !m.Learner {
			table = append(table, m.Name)
		}
	}
	slices.Sort(names)
	slices.Sort(table)
	if s.Stale || fmt.Sprint(names) != fmt.Sprint(table) {
		return nil, fmt.Errorf("members of the store are %v, voters among the machines %v (old: %v)", names, table, s.Stale)
	}
	return names, nil
}

// voting waits until n machines vote, and gives their names. A newcomer takes seconds each: the store takes one learner at a time.
func (b *bed) voting(t *testing.T, at, n int) (names []string) {
	t.Helper()
	within(t, 2*patience, fmt.Sprintf("%d voters", n), func() (err error) {
		if names, err = b.voters(at); err == nil && len(names) != n {
			err = fmt.Errorf("%v vote", names)
		}
		return err
	})
	return names
}

// leader gives the machine that leads, as machine at says.
func (b *bed) leader(t *testing.T, at int) (leader int) {
	t.Helper()
	within(t, patience, "a leader", func() error {
		s, err := b.status(at)
		if err != nil {
			return err
		}
		for _, m := range b.all {
			if m.name == s.Leader {
				leader = m.i
				return nil
			}
		}
		return fmt.Errorf("%q leads", s.Leader)
	})
	return leader
}

// number is the machine of that name.
func (b *bed) number(t *testing.T, name string) int {
	t.Helper()
	for _, m := range b.all {
		if m.name == name {
			return m.i
		}
	}
	t.Fatalf("no machine is called %q", name)
	return 0
}

// launchUnits starts units that keep books: so many exclusive ones, sole@1 and on, and plain ones, plain@1 and on. It gives the names of both
// without ".service", when all run where the store says.
func (b *bed) launchUnits(t *testing.T, at, soles, plains int) (sole, plain []string) {
	t.Helper()
	for _, k := range []struct {
		name, more string
		tick       time.Duration
		n          int
		list       *[]string
	}{
		{"sole", "[X-Flota]\nExclusive=true\n", soleTick, soles, &sole},
		{"plain", "", plainTick, plains, &plain},
	} {
		if k.n == 0 {
			continue
		}
		file := filepath.Join(b.root, k.name+"@.service")
		text := fmt.Sprintf("[Service]\nExecStart=%s %s %s@%%i %s\nRestart=always\nRestartSec=100ms\n%s",
			filepath.Join(top, "bin", "ledger"), b.books(), k.name, k.tick, k.more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.must(t, at, "submit", file)
		b.must(t, at, "start", fmt.Sprintf("%s@{1..%d}", k.name, k.n))
		for n := range k.n {
			*k.list = append(*k.list, fmt.Sprintf("%s@%d", k.name, n+1))
		}
	}
	within(t, patience, "all units run", func() error {
		if n := len(b.running()); n < len(sole)+len(plain) {
			return fmt.Errorf("%d run", n)
		}
		return b.agree(at)
	})
	return sole, plain
}

// lives reads all books.
func (b *bed) lives(t *testing.T) []life {
	t.Helper()
	lives, err := readBooks(b.books())
	if err != nil {
		t.Fatal(err)
	}
	return lives
}

// exclusiveEver fails the test if an exclusive unit ever ran twice at the same time, or never ran.
func (b *bed) exclusiveEver(t *testing.T, sole []string) {
	t.Helper()
	lives := only(b.lives(t), sole...)
	if len(lives) < len(sole) {
		t.Errorf("%d exclusive units have %d lives", len(sole), len(lives))
	}
	if err := judgeExclusive(lives); err != nil {
		t.Error(err)
	}
}
