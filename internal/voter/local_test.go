package voter

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// told waits a little and gives what the daemon was told, and forgets it.
func (h *host) told() string {
	time.Sleep(20 * time.Second)
	h.mu.Lock()
	defer h.mu.Unlock()
	out := strings.Join(h.changes, " ")
	h.changes = nil
	return out
}

// run runs the machine's Local alone.
func (h *host) run() {
	h.t.Helper()
	local, err := h.open()
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.mu.Lock()
	h.cancel, h.local = cancel, local
	h.mu.Unlock()
	h.done.Go(func() {
		if err := local.Run(ctx); err != nil {
			h.t.Errorf("%s: %v", h.name, err)
		}
	})
}

// vote writes the machine's record.
func (h *host) vote(role machine.Role, member string, peers ...*host) {
	h.t.Helper()
	v := machine.Vote{Machine: h.id, Role: role, Member: member, Peers: map[string]string{}, Since: time.Now()}
	for _, p := range peers {
		v.Peers[p.name] = p.peer
	}
	if err := h.store.Voters.Put(h.t.Context(), string(h.id), v, 0); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) unvote() {
	h.t.Helper()
	if _, err := h.store.Voters.Delete(h.t.Context(), string(h.id)); err != nil {
		h.t.Fatal(err)
	}
}

// pair gives two machines: m1 has founded the cluster, m2 runs as a client; neither has a steward.
func pair(t *testing.T) (*bed, *host, *host) {
	b := newBed(t)
	one, two := b.add("a"), b.add("a")
	one.run()
	two.run()
	if got := one.told(); got != "1:true" && got != "1:false 1:true" {
		t.Fatal(got)
	}
	if got := two.told(); got != "" {
		t.Fatal(got)
	}
	return b, one, two
}

// learner makes m2 a learner.
func learner(t *testing.T, one, two *host) {
	t.Helper()
	if _, _, err := one.role.Member.AddLearner(t.Context(), two.peer); err != nil {
		t.Fatal(err)
	}
	two.vote(machine.Learner, "2", one, two)
	if got := two.told(); got != "2:false" || !two.authority {
		t.Fatal(got, two.authority)
	}
}

func TestLifeOfAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, one, two := pair(t)
		learner(t, one, two)
		if st := two.local.Status(); st.Role != machine.Learner || st.Member != "2" || st.Doing != "" {
			t.Errorf("%+v", st)
		}
		if err := one.role.Member.Promote(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if got := two.told(); got != "2:true" { // also before it is written down
			t.Error(got)
		}
		two.vote(machine.Voter, "2")
		if got := two.told(); got != "" {
			t.Error(got)
		}
		two.vote(machine.Client, "2") // released: rooms move off, the member goes on
		if got := two.told(); got != "client" || two.local.running() == nil || two.local.Engine() != nil {
			t.Error(got)
		}
		two.vote(machine.Voter, "2") // but not after all
		if got := two.told(); got != "2:true" {
			t.Error(got)
		}
		two.vote(machine.Client, "2")
		two.told()
		if err := one.role.Member.Remove(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		two.unvote()
		if got := two.told(); got != "" || two.local.running() != nil || two.authority || two.local.disk.holds() {
			t.Error(got, two.authority)
		}
		// Again, with another member.
		if _, _, err := one.role.Member.AddLearner(t.Context(), two.peer); err != nil {
			t.Fatal(err)
		}
		two.vote(machine.Learner, "3", one, two)
		if got := two.told(); got != "3:false" {
			t.Error(got)
		}
	})
}

func TestRemovedWhileOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, one, two := pair(t)
		learner(t, one, two)
		two.kill()
		if err := one.role.Member.Remove(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		two.unvote()
		two.changes = nil
		two.run()
		if got := two.told(); got != "2:false client" || two.local.disk.holds() || two.authority {
			t.Error(got)
		}
		if old, _ := two.local.disk.old(); len(old) != 1 {
			t.Error(old)
		}
	})
}

func TestAnotherMemberThanOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, one, two := pair(t)
		learner(t, one, two)
		two.kill()
		m := one.role.Member
		if err := m.Remove(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.AddLearner(t.Context(), two.peer); err != nil {
			t.Fatal(err)
		}
		two.vote(machine.Learner, "3", one, two)
		two.changes = nil
		two.run()
		if got := two.told(); got != "2:false client 3:false" {
			t.Error(got)
		}
		// A record that is wrong about a member that is one changes nothing.
		two.vote(machine.Learner, "7", one, two)
		if got := two.told(); got != "" || !strings.Contains(two.local.Status().Trouble, "speaks of the member 7") {
			t.Error(got, two.local.Status())
		}
	})
}

// TestOthersAreAway starts a voter whose peers cannot be reached: it keeps its data, and is used.
func TestOthersAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, one, two := pair(t)
		learner(t, one, two)
		if err := one.role.Member.Promote(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		two.vote(machine.Voter, "2")
		two.told()
		two.kill()
		one.kill()
		two.changes = nil
		two.run()
		if got := two.told(); got != "2:true" || !two.local.disk.holds() {
			t.Error(got)
		}
	})
}

func TestLostData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, role := range []machine.Role{machine.Learner, machine.Voter} {
			_, one, two := pair(t)
			learner(t, one, two)
			two.vote(role, "2", one, two)
			two.told()
			two.kill()
			if err := os.RemoveAll(two.dataDir()); err != nil {
				t.Fatal(err)
			}
			two.changes = nil
			two.run()
			if got := two.told(); got != "" || !strings.Contains(two.local.Status().Trouble, "is gone") {
				t.Errorf("%s: %q %+v", role, got, two.local.Status())
			}
		}
	})
}

// TestPeersChange: a start beside members that are others by now is tried until the record is right.
func TestPeersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, one, two := pair(t)
		if _, _, err := one.role.Member.AddLearner(t.Context(), two.peer); err != nil {
			t.Fatal(err)
		}
		if _, _, err := one.role.Member.AddLearner(t.Context(), "10.0.0.9:7701"); err != nil {
			t.Fatal(err)
		}
		two.vote(machine.Learner, "2", one, two)
		if got := two.told(); got != "" || two.local.Status().Doing != "copying the store" || two.local.Status().Trouble == "" {
			t.Errorf("%q %+v", got, two.local.Status())
		}
		two.vote(machine.Learner, "2", one, two, &host{bed: b, name: "m9", peer: "10.0.0.9:7701"})
		if got := two.told(); got != "2:false" || two.local.Status().Trouble != "" {
			t.Errorf("%q %+v", got, two.local.Status())
		}
	})
}

func TestFoundedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		one := b.add("a")
		one.broken = errors.New("the disk is full")
		if _, err := one.open(); err == nil {
			t.Fatal("opened")
		}
		one.broken = nil
		one.run() // the attempt that failed does not count
		one.told()
		one.kill()
		b.engine.members = nil // as if it had been removed
		one.changes = nil
		one.run()
		if got := one.told(); got != "1:false client" {
			t.Error(got)
		}
		one.kill()
		one.run()
		if got := one.told(); got != "" || len(b.engine.members) > 0 {
			t.Error(got)
		}
	})
}

func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, one, two := pair(t)
		learner(t, one, two)
		if err := two.local.Recover(t.Context()); !fault.Is(err, fault.Conflict) {
			t.Errorf("with a majority: %v", err)
		}
		one.vote(machine.Voter, "1")
		one.kill()
		if err := two.local.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := two.told(); got != "client 2:true" || two.epoch != 2 || b.names() != "[m2]" {
			t.Error(got, two.epoch, b.names())
		}
		c, _, _ := b.store.Cluster.Get(t.Context(), store.ThisCluster, store.Read{})
		votes, _, _ := b.store.Voters.List(t.Context(), "", store.Read{})
		if c.Value.Epoch != 2 || len(votes) != 1 || votes[0].Value.Role != machine.Voter || votes[0].Value.Machine != two.id {
			t.Errorf("%+v %+v", c.Value, votes)
		}
		// The other one comes back: its copy is of the past.
		one.changes = nil
		one.run()
		if got := one.told(); got != "" || one.epoch != 2 || one.local.disk.holds() {
			t.Error(got, one.epoch)
		}
		if err := one.local.Recover(t.Context()); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
}

// TestRecoveredElsewhere: a machine of the old store that has started without asking anybody hears of it later.
func TestRecoveredElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, one, two := pair(t)
		learner(t, one, two)
		one.mu.Lock()
		one.epoch = 2
		one.mu.Unlock()
		time.Sleep(epochEvery)
		if got := two.told(); got != "client" || two.epoch != 2 || two.local.disk.holds() {
			t.Error(got, two.epoch)
		}
		if err := two.local.Recover(t.Context()); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
}

// TestRecoverIsCutOff ends the process at each step of a recovery; the next one finishes it.
func TestRecoverIsCutOff(t *testing.T) {
	for _, at := range []string{"start", "epoch", "write"} {
		synctest.Test(t, func(t *testing.T) {
			b, one, two := pair(t)
			learner(t, one, two)
			one.kill()
			o := &two.local.opts
			switch at {
			case "start":
				o.Start = func(context.Context, Start) (Member, error) { return nil, errors.New("killed") }
			case "epoch":
				o.SetEpoch = func(int) error { return errors.New("killed") }
			case "write":
				start := o.Start
				o.Start = func(ctx context.Context, how Start) (Member, error) {
					m, err := start(ctx, how)
					if err == nil {
						m.(*fake).kv = broken{m.(*fake).kv}
					}
					return m, err
				}
			}
			if err := two.local.Recover(t.Context()); err == nil {
				t.Fatal("recovered")
			}
			two.kill()
			two.changes = nil
			two.run()
			if got := two.told(); got != "2:true" || two.epoch != 2 || b.names() != "[m2]" || two.local.note.Recovering {
				t.Errorf("%s: %s, epoch %d, %s", at, got, two.epoch, b.names())
			}
		})
	}
}

// broken is a store that takes no writes.
type broken struct{ store.KV }

func (broken) Commit(context.Context, store.Txn) (int64, bool, error) {
	return 0, false, fault.New(fault.Unavailable, "killed")
}

// TestStopsByItself: a member whose disk failed starts again.
func TestStopsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, one, _ := pair(t)
		m := one.role.Member.(*fake)
		m.mu.Lock()
		m.end()
		m.mu.Unlock()
		if got := one.told(); !strings.HasPrefix(got, "client 1:") || !strings.HasSuffix(got, "1:true") {
			t.Error(got)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		one := b.add("a")
		local, err := one.open()
		if err != nil {
			t.Fatal(err)
		}
		if err := local.Close(); err != nil {
			t.Fatal(err)
		}
		if one.role.Member != nil || !local.disk.holds() {
			t.Errorf("%+v", one.role)
		}
	})
}

func TestOldCopies(t *testing.T) {
	d := disk{filepath.Join(t.TempDir(), "store")}
	if to, err := d.aside(time.Now()); to != "" || err != nil {
		t.Fatal(to, err)
	}
	for i := range 4 {
		if err := d.write(note{Member: string(rune('a' + i)), Epoch: i}); err != nil {
			t.Fatal(err)
		}
		if d.holds() {
			t.Fatal("a note is no data")
		}
		if err := os.MkdirAll(filepath.Join(d.dir, "member", "wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.dir, "member", "wal", "0.wal"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.clear(); err == nil {
			t.Fatal("data was deleted")
		}
		if to, err := d.aside(time.Unix(int64(i), 0)); to == "" || err != nil {
			t.Fatal(to, err)
		}
	}
	old, err := d.old()
	if err != nil || len(old) != keepOld || !d.had("d") || !d.had("c") || d.had("b") {
		t.Errorf("%v %v", old, err)
	}
}

func TestDamagedNote(t *testing.T) {
	d := disk{filepath.Join(t.TempDir(), "store")}
	if err := d.write(note{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.notePath(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.read(); fault.Hint(err) == "" {
		t.Error(err)
	}
}
