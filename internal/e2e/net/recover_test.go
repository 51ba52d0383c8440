package netbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestRecover destroys two of three machines. On the third nothing stops; flota recover makes it a cluster of its own that knows all that it knew,
// with nothing stopped; new machines join it, and a machine of the lost cluster that turns up again does no harm.
func TestRecover(t *testing.T) {
	b := newCluster(t, 4, 3)
	sole, plain := b.launchUnits(t, 1, 1, 6)
	w := b.write(t, 2, "load", 50*time.Millisecond)
	within(t, patience, "keys", func() error {
		if w.count() < 20 {
			return errors.New("few so far")
		}
		return nil
	})
	w.end()
	survivor := 2
	b.Kill(t, 1)
	b.wipe(t, 1)
	b.Kill(t, 3) // this one turns up again
	began := sinceBoot()
	within(t, patience, "word of the lost majority", func() error {
		if r := b.run(survivor, "start", "plain@20"); r.code != 6 {
			return errors.New(r.String())
		}
		return nil
	})
	b.must(t, survivor, "recover", "--yes")
	b.voting(t, survivor, 1)
	if err := judgeUndisturbed(b.livesOn(t, plain, survivor), span{began, sinceBoot()}, plainTick); err != nil {
		t.Error("recovering stops what runs:", err)
	}
	b.works(t, survivor, "plain@21")
	within(t, patience, "all units on the survivor", func() error {
		on := b.running()
		if len(on) < len(sole)+len(plain)+1 {
			return fmt.Errorf("%d run", len(on))
		}
		return b.agree(survivor)
	})
	w.judge(t, survivor)
	b.join(t, survivor, []int{4})
	b.ready(t, survivor, survivor, 4)
	b.start(t, 3) // its copy is of the lost cluster and must count for nothing
	spend(t, 10*time.Second, func() error { return b.exclusiveNow(sole) })
	b.ready(t, survivor, survivor, 3, 4)
	b.voting(t, survivor, 3)
	within(t, promised(healed), "every unit where the store says", func() error { return errors.Join(b.agree(survivor), b.agree(3)) })
	w.judge(t, 3)
	b.exclusiveEver(t, sole)
}

// livesOn gives the lives of units on one machine.
func (b *bed) livesOn(t *testing.T, units []string, i int) (some []life) {
	t.Helper()
	for _, l := range only(b.lives(t), units...) {
		if l.machine == b.at(i).name {
			some = append(some, l)
		}
	}
	return some
}

// TestBackupRestore saves a cluster, finds a flipped bit in the file, destroys all machines, and has the units run again out of the file.
func TestBackupRestore(t *testing.T) {
	b := newCluster(t, 3, 3)
	sole, plain := b.launchUnits(t, 1, 1, 5)
	w := b.write(t, 1, "load", 20*time.Millisecond)
	within(t, patience, "keys", func() error {
		if w.count() < 50 {
			return errors.New("few so far")
		}
		return nil
	})
	w.end()
	file, words := filepath.Join(b.root, "all.backup"), filepath.Join(b.root, "passphrase")
	if err := os.WriteFile(words, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.must(t, 2, "backup", file, "--passphrase-file", words)
	b.must(t, 2, "backup", "verify", file, "--passphrase-file", words)
	b.damaged(t, file, words)
	b.PowerCut(t)
	for _, i := range b.numbers() {
		b.wipe(t, i)
	}
	if err := b.attach(b.at(1)); err != nil {
		t.Fatal(err)
	}
	b.must(t, 1, "restore", file, "--passphrase-file", words, "--data-dir", b.at(1).dir, "--name", "m1", "--addr", b.at(1).addr)
	b.up(t, 1, nil)
	b.ready(t, 1, 1)
	within(t, 2*patience, "all units run again", func() error { // the brake may think that the network is broken, for a minute
		on := b.running()
		if len(on) != len(sole)+len(plain) {
			return fmt.Errorf("%d run", len(on))
		}
		return b.agree(1)
	})
	w.judge(t, 1)
	b.join(t, 1, []int{2, 3})
	b.ready(t, 1, 1, 2, 3)
	b.voting(t, 1, 3)
}

// damaged flips bits all over a backup: none of them may pass for good.
func (b *bed) damaged(t *testing.T, file, words string) {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(b.root, "bad.backup")
	for _, at := range []int{0, len(whole) / 3, len(whole) / 2, len(whole) - 1} {
		text := slices.Clone(whole)
		text[at] ^= 0x10
		if err := os.WriteFile(bad, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := b.run(2, "backup", "verify", bad, "--passphrase-file", words); r.code <= 0 {
			t.Errorf("a flipped bit at byte %d of %d passes: %v", at, len(whole), r)
		}
	}
	if err := os.WriteFile(bad, whole[:len(whole)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	if r := b.run(2, "backup", "verify", bad, "--passphrase-file", words); r.code <= 0 {
		t.Errorf("a file that lacks its end passes: %v", r)
	}
}
