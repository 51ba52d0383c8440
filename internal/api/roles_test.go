package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	"flota/internal/machine"
	"flota/internal/store"
)

// has says whether one of the texts has all the parts in it.
func has(all []string, parts ...string) bool {
	return slices.ContainsFunc(all, func(s string) bool {
		for _, p := range parts {
			if !strings.Contains(s, p) {
				return false
			}
		}
		return true
	})
}

func TestStatusOfLostVoters(t *testing.T) {
	r := newRig(t, 4)
	ctx := t.Context()
	if _, err := r.st.Alive.Delete(ctx, string(idOf(3))); err != nil {
		t.Fatal(err)
	}
	until(t, "the view sees it", func() bool {
		st, err := r.client(1).Status(ctx)
		return err == nil && has(st.Attention, "machine m3 is gone since", "one of 3 voters of the store, and is replaced at", "unless it comes back")
	})
	st, err := r.client(1).Status(ctx)
	if err != nil || !has(st.Attention, "the store works with 2 of 3 voters", "if one more is lost") {
		t.Errorf("%q, %v", st.Attention, err)
	}
	if _, err := r.st.Alive.Delete(ctx, string(idOf(4))); err != nil {
		t.Fatal(err)
	}
	st, err = r.client(1).Status(ctx)
	if err != nil || !has(st.Attention, "m3", "no machine is there to take its vote") {
		t.Errorf("%q, %v", st.Attention, err)
	}
}

func TestStatusAdviceVersionsAndCertificate(t *testing.T) {
	r := newRig(t, 2)
	ctx := t.Context()
	if _, err := r.st.Voters.Delete(ctx, string(idOf(2))); err != nil {
		t.Fatal(err)
	}
	st, err := r.client(1).Status(ctx)
	if err != nil || len(st.Attention) != 0 || !has(st.Advice, "of two machines only m1 votes", "--witness") {
		t.Errorf("%q, %q, %v", st.Attention, st.Advice, err)
	}
	if _, err := r.st.Alive.Update(ctx, string(idOf(2)), func(p *machine.Presence) error { p.Version = "newer"; return nil }); err != nil {
		t.Fatal(err)
	}
	r.boxes[0].srv.Certificate = func() (time.Time, time.Time) { return time.Now().Add(-6 * time.Hour), time.Now().Add(time.Hour) }
	st, err = r.client(1).Status(ctx)
	if err != nil || !has(st.Attention, "different versions: newer on m2 and test on m1") || !has(st.Attention, "the certificate of m1 ends at") {
		t.Errorf("%q, %v", st.Attention, err)
	}
	if _, err := r.st.Machines.Update(ctx, string(idOf(2)), func(m *machine.Machine) error { m.Witness = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if st, err = r.client(1).Status(ctx); err != nil || len(st.Advice) != 0 || !st.Machines[1].Witness {
		t.Errorf("with a witness: %q, %v", st.Advice, err)
	}
}

func TestStatusOfWrongClock(t *testing.T) {
	r := newRig(t, 2)
	s := r.boxes[0].srv
	if _, err := r.client(1).Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.clocks.mu.Lock()
	if off, told := s.clocks.off[idOf(2)]; !told || off.Abs() > 5*time.Second {
		t.Errorf("%v", s.clocks.off)
	}
	s.clocks.off[idOf(2)] = -time.Hour
	s.clocks.mu.Unlock()
	if st, err := r.client(1).Status(t.Context()); err != nil || !has(st.Attention, "the clock of m2 is 60 min behind that of m1") {
		t.Errorf("%q, %v", st.Attention, err)
	}
}

// Resume takes a removal back, and a cluster without votes yet counts the members of the store's engine.
func TestResumeTakesARemovalBack(t *testing.T) {
	r := newRig(t, 2)
	ctx := t.Context()
	mark := func(m *machine.Machine) error { m.Drained, m.Leaving = true, true; return nil }
	if _, err := r.st.Machines.Update(ctx, string(idOf(2)), mark); err != nil {
		t.Fatal(err)
	}
	if m, err := r.client(1).Machine(ctx, "m2"); err != nil || m.Status != statusLeaving {
		t.Errorf("%+v, %v", m, err)
	}
	if st, err := r.client(1).Status(ctx); err != nil || !has(st.Attention, "m2 is being removed and still has 0 units and its vote") {
		t.Errorf("%q, %v", st.Attention, err)
	}
	m, err := r.client(1).Resume(ctx, "m2")
	e, _, _ := r.st.Machines.Get(ctx, string(idOf(2)), store.Read{})
	if err != nil || m.Status != statusReady || e.Value.Leaving || e.Value.Drained {
		t.Errorf("%+v, %+v, %v", m, e.Value, err)
	}
}
