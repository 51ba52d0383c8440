package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// RemoveOptions say how a machine is removed.
type RemoveOptions struct {
	// Force waits neither for the machine's units, nor long for its vote, and removes it even if that breaks the quorum.
	Force  bool
	Reason string       // for the record; "": an operator removed it
	Tell   func(string) // told each step in a sentence; may be nil
}

// How long Remove waits for what may never come.
const (
	forcedVote = 20 * time.Second // with Force, until the vote has moved: a healthy cluster needs 1 to 5 s
	// leaseWait is for the presence of a removed machine to end by itself: 5 s, or the 60 s of a planned restart, in which what runs there must not be
	// started elsewhere; a new leader of the store's engine extends either once.
	leaseWait = 75 * time.Second
)

// tell tells of a step.
func (o RemoveOptions) tell(format string, args ...any) {
	if o.Tell != nil {
		o.Tell(fmt.Sprintf(format, args...))
	}
}

// Remove takes a machine, named by name or ID, out of the cluster: its units move first, then its vote, then its certificate stops working, and then
// it is forgotten. It returns when all is done; if ctx ends before, the machine stays drained and leaving, and Remove may be called again anywhere (or
// the machine resumed). fault.Conflict if it would break the quorum, or for this machine itself, which leaves by Leave; fault.NotFound.
func (d *Desk) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	m, err := d.find(ctx, ref)
	if err != nil {
		return err
	}
	if m.ID == d.o.ID {
		return fault.WithHint(fault.New(fault.Conflict, "%s is this machine itself", m.Name), "flota leave")
	}
	if o.Reason == "" {
		o.Reason = "an operator removed it"
	}
	if err := d.clear(ctx, m, o); err != nil {
		return fmt.Errorf("remove %s: %w", m.Name, err)
	}
	if err := d.revoke(ctx, m.ID, o.Reason); err != nil {
		return fmt.Errorf("remove %s: %w", m.Name, err)
	}
	if !sleep(ctx, hearsFor) { // so that the machine hears of it before nobody talks to it any more
		return fault.Wrap(fault.TimedOut, ctx.Err(), "remove %s: it goes on without this request", m.Name)
	}
	if err := d.cut(ctx, m.ID); err != nil {
		return fmt.Errorf("remove %s: %w", m.Name, err)
	}
	o.tell("%s: its certificate opens nothing any more", m.Name)
	if err := d.forget(ctx, m.ID); err != nil {
		return fmt.Errorf("forget %s: %w", m.Name, err)
	}
	o.tell("%s: removed", m.Name)
	return nil
}

// Leave takes this machine out of the cluster, as Remove does, up to the point where nothing needs it any more. The last write says so, and
// a voter does the rest (Run): this machine may stop what it runs as soon as Leave returns, and must not write to the store after that.
func (d *Desk) Leave(ctx context.Context, o RemoveOptions) error {
	m, err := d.find(ctx, string(d.o.ID))
	if err != nil {
		return err
	}
	if err := d.clear(ctx, m, o); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	_, err = d.o.Store.Machines.Update(ctx, string(m.ID), func(m *machine.Machine) error {
		m.Drained, m.Leaving, m.Left = true, true, true
		return nil
	})
	if fault.Is(err, fault.NotFound) {
		err = nil // a voter was quick: an earlier try was seen
	}
	if err == nil {
		o.tell("%s: left the cluster", m.Name)
	}
	return err
}

// find gives the member with the name or the ID.
func (d *Desk) find(ctx context.Context, ref string) (machine.Machine, error) {
	all, _, err := d.o.Store.Machines.List(ctx, "", store.Read{})
	if err != nil {
		return machine.Machine{}, err
	}
	for _, e := range all {
		if e.Value.Name == ref || string(e.Value.ID) == ref {
			return e.Value, nil
		}
	}
	return machine.Machine{}, fault.WithHint(fault.New(fault.NotFound, "there is no machine %.80q", ref), "flota machine list shows them")
}

// clear marks the machine as leaving and waits until it has no units and no vote.
func (d *Desk) clear(ctx context.Context, m machine.Machine, o RemoveOptions) error {
	broken, err := d.breaks(ctx, m)
	if err != nil {
		return err
	}
	if broken.fatal || broken.what != "" && !o.Force {
		return broken.refusal(m)
	}
	if broken.what != "" {
		o.tell("%s: the quorum is lost by this: %s", m.Name, broken.what)
	}
	if _, err := d.o.Store.Machines.Update(ctx, string(m.ID), func(m *machine.Machine) error {
		if m.Drained && m.Leaving {
			return store.ErrNoChange
		}
		m.Drained, m.Leaving = true, true
		return nil
	}); err != nil {
		return err
	}
	w := d.follow(ctx, m.ID)
	defer w.end()
	if !o.Force {
		if err := w.await(ctx, func(l load) string { return l.unitsLeft(m.Name) }, o.tell); err != nil {
			return err
		}
	}
	if broken.what != "" {
		return nil // its vote cannot move
	}
	try, cancel := ctx, context.CancelFunc(func() {})
	if o.Force {
		try, cancel = context.WithTimeout(ctx, forcedVote)
	}
	defer cancel()
	err = w.await(try, func(l load) string { return l.voteLeft(m.Name) }, o.tell)
	if o.Force && ctx.Err() == nil {
		return nil
	}
	return err
}

// unitsLeft says what still runs on a leaving machine; "" for nothing. One that is gone runs nothing that is waited for: its units move when
// it is forgotten, at the latest. Units that have moved are waited for until the machine has ended them: once its certificate opens nothing it
// could not hear of it.
func (l load) unitsLeft(name string) string {
	switch {
	case !l.there:
		return ""
	case len(l.units) > 0:
		return fmt.Sprintf("%s: waits for %d %s to move: %s", name, len(l.units), plural(len(l.units), "unit", "units"), few(l.units))
	case len(l.runs) > 0:
		return fmt.Sprintf("%s: waits for %d %s to end there: %s", name, len(l.runs), plural(len(l.runs), "unit", "units"), few(l.runs))
	}
	return ""
}

// few names the first five.
func few(all []string) string {
	all = slices.Clone(all)
	slices.Sort(all)
	text := strings.Join(all[:min(len(all), 5)], ", ")
	if len(all) > 5 {
		text += ", ..."
	}
	return text
}

// voteLeft says that the machine still holds the store; "" if it does not.
func (l load) voteLeft(name string) string {
	switch {
	case !l.vote:
		return ""
	case l.role != machine.Voter: // also one that has let its vote go, and is still a member to the engine
		return name + ": waits until its copy of the store is let go"
	}
	return name + ": waits for its vote to move to another machine"
}

// noKey stands in the record of a removed machine until it is forgotten: it is the hash of no key, so every machine that follows the table
// refuses that machine's certificate at once, and cuts its connections.
const noKey = "removed"

// isMember says whether the record is that of a machine that belongs to the cluster: not of labels that were set before it came, and not of one
// that was removed or has left.
func isMember(m machine.Machine) bool { return m.Key != "" && m.Key != noKey && !m.Left }

// hearsFor is between the word of a removal and the end of the machine's certificate. 1 s, in which its watch brings it the word also when its way to the
// store is just changing.
const hearsFor = time.Second

// revoke writes removed/<id>: from here on the machine is out, and is told so; cut follows. Its record stays, drained, until its presence has ended, so
// that no unit is placed on it, and none that must not run twice is placed elsewhere before its lease is over.
func (d *Desk) revoke(ctx context.Context, id machine.ID, reason string) error {
	st := d.o.Store
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		m, ok, err := st.Machines.Get(ctx, string(id), store.Read{})
		if err != nil {
			return err
		}
		gone, was, err := st.Removed.Get(ctx, string(id), store.Read{})
		if err != nil || was || !ok {
			return err
		}
		v := m.Value
		v.Drained, v.Leaving = true, true
		g := machine.Gone{ID: id, Name: v.Name, Time: d.now(), Reason: reason}
		done, err := d.commit(ctx, store.Txn{
			If:   []store.Cond{st.Machines.IfRev(string(id), m.Rev), st.Removed.IfRev(string(id), gone.Rev)},
			Then: []store.Op{st.Removed.PutOp(string(id), g, 0), st.Machines.PutOp(string(id), v, 0)},
		})
		if done {
			d.o.Log.Info("a machine was removed", "machine", v.Name, "id", id, "reason", reason)
		}
		if err != nil || done {
			return err
		}
		if !sleep(ctx, pause) {
			return fault.Wrap(fault.Unavailable, ctx.Err(), "revoke the certificate of %s", v.Name)
		}
	}
}

// cut makes the machine's certificate open nothing, and ends its connections.
func (d *Desk) cut(ctx context.Context, id machine.ID) error {
	_, err := d.o.Store.Machines.Update(ctx, string(id), func(m *machine.Machine) error {
		if m.Key == noKey {
			return store.ErrNoChange
		}
		m.Key = noKey
		return nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil // forgotten already
	}
	return err
}

// forget waits for the removed machine's presence to end, and deletes what is known of it, its record last.
func (d *Desk) forget(ctx context.Context, id machine.ID) error {
	w := d.follow(ctx, id)
	defer w.end()
	try, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	err := w.await(try, func(l load) string {
		if l.there {
			return "there"
		}
		return ""
	}, func(string, ...any) {})
	if err != nil && ctx.Err() != nil {
		return err
	}
	st := d.o.Store
	for _, prefix := range []string{st.Places.Prefix(), st.States.Prefix()} {
		if err := d.deleteAll(ctx, prefix+string(id)+"/"); err != nil {
			return err
		}
	}
	for {
		done, err := d.erase(ctx, id)
		if err != nil || done {
			return err
		}
	}
}

// erase deletes the record of a machine with its presence and its name; done is false if somebody changed it meanwhile.
func (d *Desk) erase(ctx context.Context, id machine.ID) (done bool, err error) {
	st := d.o.Store
	m, ok, err := st.Machines.Get(ctx, string(id), store.Read{})
	if err != nil || !ok {
		return true, err
	}
	t := store.Txn{
		If:   []store.Cond{st.Machines.IfRev(string(id), m.Rev)},
		Then: []store.Op{st.Machines.DeleteOp(string(id)), st.Alive.DeleteOp(string(id))},
	}
	n, ok, err := st.Names.Get(ctx, m.Value.Name, store.Read{})
	if err != nil {
		return false, err
	}
	if ok && n.Value == id {
		t.If = append(t.If, st.Names.IfRev(m.Value.Name, n.Rev))
		t.Then = append(t.Then, st.Names.DeleteOp(m.Value.Name))
	}
	return d.commit(ctx, t)
}

// deleteAll deletes every key under prefix.
func (d *Desk) deleteAll(ctx context.Context, prefix string) error {
	items, _, err := d.o.Store.KV.List(ctx, prefix, store.Read{})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(items, store.MaxOps) {
		var t store.Txn
		for _, it := range part {
			t.Then = append(t.Then, store.Op{Key: it.Key})
		}
		if _, err := d.commit(ctx, t); err != nil {
			return err
		}
	}
	return nil
}
