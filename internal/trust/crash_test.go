package trust

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// crashes does change in a copy of dir, dying at each of its steps in turn; after reads what is there then, and finishes what was begun.
func crashes(t *testing.T, dir string, change func(Options) error, after func(t *testing.T, o Options)) {
	t.Helper()
	for n := 1; ; n++ {
		o := Options{Dir: filepath.Join(t.TempDir(), "trust")}
		if dir != "" {
			o.Dir = copyDir(t, dir)
		}
		steps := 0
		broken := o
		broken.fault = crashAt(n, &steps)
		err := change(broken)
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", n, err)
		}
		after(t, o)
		if err == nil {
			if n < 4 {
				t.Errorf("only %d steps", n-1)
			}
			return
		}
	}
}

func TestCrashWhileFounding(t *testing.T) {
	crashes(t, "", func(o Options) error {
		_, err := Found(o, subject("m1"))
		return err
	}, func(t *testing.T, o Options) {
		ring, _ := loadRing(disk{dir: o.Dir})
		i, err := Open(o)
		if fault.Is(err, fault.NotFound) {
			i, err = Found(o, subject("m1"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(ring) > 0 && ring[0].Hash() != i.CAHash() {
			t.Error("an authority that was made is lost")
		}
		if _, err := i.Authority(); err != nil {
			t.Error(err)
		}
	})
}

func TestCrashWhileJoining(t *testing.T) {
	m1 := found(t, Options{})
	crashes(t, "", func(o Options) error {
		csr, err := Request(o, subject("m2"))
		if err != nil {
			return err
		}
		_, err = Install(o, grant(t, m1, csr))
		return err
	}, func(t *testing.T, o Options) {
		i, err := Open(o)
		if fault.Is(err, fault.NotFound) {
			i = join(t, m1, "m2", o)
		} else if err != nil {
			t.Fatal(err)
		}
		if i.Cluster() != m1.Cluster() {
			t.Errorf("joined %s", i.Cluster())
		}
	})
}

func TestCrashWhileChanging(t *testing.T) {
	m1 := found(t, Options{})
	next, err := m1.Successor()
	if err != nil {
		t.Fatal(err)
	}
	both := append(bytes.Clone(m1.Bundle()), next.Certificate()...)
	if err := m1.SetBundle(both); err != nil {
		t.Fatal(err)
	}
	keys, err := m1.Keys()
	if err != nil {
		t.Fatal(err)
	}
	m2 := join(t, m1, "m2", Options{})
	oldLeaf, late := m1.now.Load().leaf, func() time.Time { return time.Now().Add(time.Hour) }
	for name, c := range map[string]struct {
		dir    string
		change func(i *Identity) error
		old    func(i *Identity) bool // nothing happened
		done   func(i *Identity) bool
	}{
		"epoch": {m1.o.Dir, func(i *Identity) error { return i.SetEpoch(1) },
			func(i *Identity) bool { return i.Epoch() == 0 }, func(i *Identity) bool { return i.Epoch() == 1 }},
		"keep": {m2.o.Dir, func(i *Identity) error { return i.KeepAuthority(keys) },
			func(i *Identity) bool { return len(i.now.Load().ring) == 0 }, func(i *Identity) bool { return len(i.now.Load().ring) == 2 }},
		"renew": {m1.o.Dir, func(i *Identity) error { i.o.Now = late; return i.Renew(t.Context(), i.Self) },
			func(i *Identity) bool { return same(i.now.Load().leaf, oldLeaf) }, func(i *Identity) bool { return i.now.Load().leaf.NotAfter.After(oldLeaf.NotAfter) }},
	} {
		t.Run(name, func(t *testing.T) {
			crashes(t, c.dir, func(o Options) error {
				i, err := Open(o)
				if err != nil {
					return err
				}
				return c.change(i)
			}, func(t *testing.T, o Options) {
				i, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				if !c.old(i) && !c.done(i) {
					t.Error("neither old nor new")
				}
				if err := c.change(i); err != nil || !c.done(i) {
					t.Errorf("not finished by doing it again: %v", err)
				}
			})
		})
	}
}

// TestCrashAtTheEndOfARotation drops the old authority, which takes its key off the disk too, dying at each step.
func TestCrashAtTheEndOfARotation(t *testing.T) {
	m1 := found(t, Options{})
	next, err := m1.Successor()
	if err != nil {
		t.Fatal(err)
	}
	if err := m1.SetBundle(append(next.Certificate(), m1.Bundle()...)); err != nil {
		t.Fatal(err)
	}
	if err := m1.Renew(t.Context(), m1.Self); err != nil {
		t.Fatal(err)
	}
	crashes(t, m1.o.Dir, func(o Options) error {
		i, err := Open(o)
		if err != nil {
			return err
		}
		return i.SetBundle(next.Certificate())
	}, func(t *testing.T, o Options) {
		i, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := i.Authority(); err != nil || a.Hash() != next.Hash() {
			t.Errorf("cannot issue: %v", err)
		}
		if err := i.SetBundle(next.Certificate()); err != nil || len(i.now.Load().ring) != 1 {
			t.Errorf("not finished by doing it again: %v", err)
		}
	})
}

func TestCrashWhileRemembering(t *testing.T) {
	id := idOf("m2")
	crashes(t, "", func(o Options) error {
		m := NewMembers(o)
		if err := m.disk.make(); err != nil {
			return err
		}
		return m.Live(map[machine.ID]string{}, map[machine.ID]time.Time{id: time.Now()})
	}, func(t *testing.T, o Options) {
		m := NewMembers(o)
		if err := m.Live(map[machine.ID]string{}, map[machine.ID]time.Time{id: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := NewMembers(o).Check(id, ""); !fault.Is(err, fault.Denied) {
			t.Errorf("not remembered: %v", err)
		}
	})
}
