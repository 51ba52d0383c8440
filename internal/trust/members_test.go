package trust

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/mem"
)

func TestCheck(t *testing.T) {
	a, b, c, d := idOf("a"), idOf("b"), idOf("c"), idOf("d")
	now := time.Now()
	o := Options{Dir: t.TempDir(), Now: func() time.Time { return now }}
	m := NewMembers(o)
	check := func(when string, want map[machine.ID]bool) {
		t.Helper()
		for id, in := range want {
			if err := m.Check(id, "key"); (err == nil) != in || err != nil && !fault.Is(err, fault.Denied) {
				t.Errorf("%s: %s: %v", when, id[24:], err)
			}
		}
	}
	check("nothing known", map[machine.ID]bool{a: true, d: true})
	live := func(known map[machine.ID]string, removed map[machine.ID]time.Time) {
		t.Helper()
		if err := m.Live(known, removed); err != nil {
			t.Fatal(err)
		}
	}
	live(map[machine.ID]string{a: "key", b: "", c: "other"}, map[machine.ID]time.Time{d: now.Add(-time.Hour)})
	check("live", map[machine.ID]bool{a: true, b: true, c: false, d: false, idOf("e"): false})
	m.Away()
	check("away", map[machine.ID]bool{a: true, b: true, c: true, d: false, idOf("e"): true})
	m = NewMembers(o)
	check("started again", map[machine.ID]bool{a: true, d: false})
	live(map[machine.ID]string{a: "key", d: "key"}, map[machine.ID]time.Time{d: now})
	check("d is back", map[machine.ID]bool{a: true, d: true})
	live(map[machine.ID]string{d: "key"}, nil) // a leaves, before removed/ says so
	m.Away()
	check("a left", map[machine.ID]bool{a: false, d: true})
	now = now.Add(goneFor)
	live(map[machine.ID]string{d: "key"}, nil)
	m.Away()
	check("a is forgotten", map[machine.ID]bool{a: true})
}

func TestMemoryOfMembersIsBounded(t *testing.T) {
	m := NewMembers(Options{Dir: t.TempDir()})
	gone := map[machine.ID]time.Time{}
	for n := range maxGone + 10 {
		gone[machine.ID(string(idOf("x"))[:24]+string("0123456789abcdef"[n>>28&15])+hex7(n))] = time.Now().Add(-time.Duration(n) * time.Second)
	}
	if err := m.Live(nil, gone); err != nil {
		t.Fatal(err)
	}
	if n := len(NewMembers(Options{Dir: m.disk.dir}).gone); n != maxGone {
		t.Errorf("%d remembered", n)
	}
}

// hex7 writes n in seven hex digits.
func hex7(n int) string {
	b := make([]byte, 7)
	for i := range b {
		b[6-i] = "0123456789abcdef"[n>>(4*i)&15]
	}
	return string(b)
}

func TestDamagedMemoryIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{", `{"removed":{"x":"2020-01-01T00:00:00Z"}}`, `{"removed":7}`} {
		if err := os.WriteFile(filepath.Join(dir, membersFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := NewMembers(Options{Dir: dir})
		if err := m.Live(nil, map[machine.ID]time.Time{idOf("a"): time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := NewMembers(Options{Dir: dir}).Check(idOf("a"), ""); err == nil {
			t.Errorf("%q: not made anew", text)
		}
	}
}

// TestDiskFull: what cannot be stored works all the same, and is stored later.
func TestDiskFull(t *testing.T) {
	steps := 0
	m := NewMembers(Options{Dir: t.TempDir(), fault: crashAt(2, &steps)})
	if err := m.Live(nil, map[machine.ID]time.Time{idOf("a"): time.Now()}); !fault.Is(err, fault.Internal) {
		t.Errorf("no error: %v", err)
	}
	if err := m.Check(idOf("a"), ""); err == nil {
		t.Error("a is let in")
	}
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	if err := NewMembers(Options{Dir: m.disk.dir}).Check(idOf("a"), ""); err == nil {
		t.Error("a was not stored")
	}
}

// closer counts how often it is closed.
type closer struct {
	mu sync.Mutex
	n  int
}

func (c *closer) Close() error { c.mu.Lock(); defer c.mu.Unlock(); c.n++; return nil }

// closes gives the count.
func (c *closer) closes() int { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

// TestMembersRace tracks, checks and removes at once; at the end nothing of a removed machine is open.
func TestMembersRace(t *testing.T) {
	m := NewMembers(Options{Dir: t.TempDir()})
	a, b := idOf("a"), idOf("b")
	if err := m.Live(map[machine.ID]string{a: "", b: ""}, nil); err != nil {
		t.Fatal(err)
	}
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 200 {
				c := &closer{}
				release, err := m.Track(a, "", c)
				if err != nil {
					continue
				}
				_ = m.Check(b, "")
				release()
			}
			c := &closer{}
			if _, err := m.Track(a, "", c); err == nil && m.Check(a, "") != nil && c.closes() == 0 {
				m.mu.Lock() // the removal may be about to close it
				_, open := m.conns[a]
				m.mu.Unlock()
				if !open {
					t.Error("tracked and lost")
				}
			}
		})
	}
	g.Go(func() {
		for range 20 {
			_ = m.Live(map[machine.ID]string{b: ""}, nil)
			_ = m.Live(map[machine.ID]string{a: "", b: ""}, nil)
		}
	})
	g.Wait()
	last := &closer{}
	if _, err := m.Track(b, "", last); err != nil {
		t.Fatal(err)
	}
	if err := m.Live(map[machine.ID]string{}, nil); err != nil || last.closes() != 1 {
		t.Errorf("closed %d times, %v", last.closes(), err)
	}
}

// TestRunFollowsTheStore: machines come and go, and the store is away for a time.
func TestRunFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := mem.NewFaulty(mem.New())
		st := store.New(f)
		m := NewMembers(Options{Dir: t.TempDir()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx, st) }()
		put := func(id machine.ID, key string) {
			if err := st.Machines.Put(ctx, string(id), machine.Machine{ID: id, Key: key}, 0); err != nil {
				t.Fatal(err)
			}
		}
		a, b := idOf("a"), idOf("b")
		put(a, "ka")
		put(b, "kb")
		settle := func() { time.Sleep(3 * time.Second); synctest.Wait() }
		settle()
		conn := &closer{}
		if _, err := m.Track(b, "kb", conn); err != nil {
			t.Fatal(err)
		}
		if m.Check(a, "ka") != nil || m.Check(a, "kb") == nil || m.Check(idOf("c"), "") == nil {
			t.Error("the table is not known")
		}
		if _, _, err := st.KV.Commit(ctx, store.Txn{Then: []store.Op{st.Machines.DeleteOp(string(b)), st.Removed.PutOp(string(b), machine.Gone{ID: b, Time: time.Now()}, 0)}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.Check(b, "kb") == nil || conn.closes() != 1 {
			t.Errorf("b is still there; closed %d times", conn.closes())
		}
		f.Down(true)
		settle()
		if m.Check(idOf("c"), "") != nil || m.Check(b, "kb") == nil {
			t.Error("with the store away, only removed machines are refused")
		}
		f.Down(false)
		settle()
		if m.Check(idOf("c"), "") == nil {
			t.Error("followed again, strangers are refused")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
