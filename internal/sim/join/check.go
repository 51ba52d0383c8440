package join

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
	"flota/internal/trust/token"
)

// removedKey is what stands in the record of a removed machine from when it has heard of it until it is forgotten.
const removedKey = "removed"

// records is what the store holds about membership at one revision.
type records struct {
	w        *World
	machines map[machine.ID]machine.Machine
	names    map[string]machine.ID
	tokens   map[string]token.Token
	uses     map[string]int // of each token, when it was made
	removed  map[machine.ID]machine.Gone
}

// watch checks each change of the store as it happens, until End.
func (w *World) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	w.endWatch, w.watched = cancel, make(chan struct{})
	r := &records{w, map[machine.ID]machine.Machine{}, map[string]machine.ID{}, map[string]token.Token{}, map[string]int{}, map[machine.ID]machine.Gone{}}
	updates := w.mem.Watch(ctx, store.Prefix, 0)
	go func() {
		defer close(w.watched)
		for u := range updates {
			var touched []machine.ID
			for _, e := range u.Events {
				touched = append(touched, r.take(e)...)
			}
			for _, id := range touched {
				r.check(u.Rev, id)
			}
		}
	}()
}

// table decodes a change of one of the tables into known.
func table[K ~string, V any](known map[K]V, key string, e store.Event) (was, now V) {
	was = known[K(key)]
	delete(known, K(key))
	if !e.Deleted {
		if err := json.Unmarshal(e.Value, &now); err != nil {
			panic(err)
		}
		known[K(key)] = now
	}
	return was, now
}

// take takes one change over, and gives the machines that it is about.
func (r *records) take(e store.Event) []machine.ID {
	st := r.w.store
	if key, ok := st.Machines.Match(e.Key); ok {
		was, now := table(r.machines, key, e)
		r.change(machine.ID(key), was, now, e)
		return []machine.ID{machine.ID(key)}
	}
	if key, ok := st.Names.Match(e.Key); ok {
		was, now := table(r.names, key, e)
		return []machine.ID{was, now}
	}
	if key, ok := st.Removed.Match(e.Key); ok {
		table(r.removed, key, e)
		r.w.mu.Lock()
		r.w.removed[machine.ID(key)] = time.Now()
		r.w.mu.Unlock()
		return []machine.ID{machine.ID(key)}
	}
	if key, ok := st.Joins.Match(e.Key); ok {
		was, now := table(r.tokens, key, e)
		r.token(was, now, e)
	}
	return nil
}

// change checks how a machine's record may change: from a stranger's to a member's to a removed one's, and no other way.
func (r *records) change(id machine.ID, was, now machine.Machine, e store.Event) {
	switch {
	case was.Key == now.Key:
		return
	case was.Key == "" && now.Key != "":
		r.w.tell("%s is a member as %s (%d)", id.Short(), now.Name, e.Rev)
	case now.Key == removedKey || was.Key == removedKey && e.Deleted:
		r.w.tell("%s is removed (%d)", was.Name, e.Rev)
	default:
		r.w.fail("at revision %d the key of %s (%s) changed from %q to %q", e.Rev, was.Name, id.Short(), was.Key, now.Key)
	}
	if t, ok := r.tokens[now.Token]; was.Key == "" && ok && now.Joined.After(t.Expires) {
		r.w.fail("at revision %d %s comes in with a token that expired %s before", e.Rev, now.Name, now.Joined.Sub(t.Expires))
	}
	if now.Key != "" && now.Key != removedKey && !r.w.owns(id, now.Key) {
		r.w.fail("at revision %d %s (%s) is a member with a key that it does not have", e.Rev, now.Name, id.Short())
	}
}

// token checks that no token is used more often than it may be, and by each machine once.
func (r *records) token(was, now token.Token, e store.Event) {
	switch {
	case e.Deleted:
		return
	case was.ID == "":
		r.uses[now.ID] = now.Uses
	}
	used := slices.Clone(now.Used)
	slices.Sort(used)
	if now.Uses < 0 || now.Uses+len(now.Used) != r.uses[now.ID] || len(slices.Compact(used)) != len(now.Used) {
		r.w.fail("at revision %d token %s of %d uses has %d left and was used by %d: %v", e.Rev, now.ID, r.uses[now.ID], now.Uses, len(now.Used), now.Used)
	}
}

// check holds what must be true of a machine at each revision.
func (r *records) check(rev int64, id machine.ID) {
	m, known := r.machines[id]
	_, gone := r.removed[id]
	switch {
	case id == "":
	case known && m.Key != "" && r.names[m.Name] != id:
		r.w.fail("at revision %d the name %s of %s is that of %q", rev, m.Name, id.Short(), r.names[m.Name])
	case known && !gone && m.Key == removedKey:
		r.w.fail("at revision %d %s has lost its key, and was not removed", rev, m.Name)
	case known && gone && !(m.Drained && m.Leaving):
		r.w.fail("at revision %d %s was removed, and may get units", rev, m.Name)
	}
	if t, ok := r.tokens[m.Token]; known && ok && !slices.Contains(t.Used, string(id)) {
		r.w.fail("at revision %d %s came in with token %s, which does not know of it", rev, m.Name, t.ID)
	}
	for name, owner := range r.names {
		if owner == id && (!known || m.Name != name) {
			r.w.fail("at revision %d the name %s is that of %s, which is called %q", rev, name, id.Short(), m.Name)
		}
	}
}

// wasRemoved says whether the machine had been removed before a time.
func (w *World) wasRemoved(id machine.ID, before time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.removed[id]
	return ok && at.Before(before)
}

// checkAnswer holds an answer of a voter against the truth, whether or not anybody hears it.
func (w *World) checkAnswer(j *joiner, s *seat, asked time.Time, q admit.JoinRequest, a admit.JoinAnswer, err error) {
	skew := q.Clock.Sub(asked.Add(s.off))
	switch {
	case err != nil:
		w.checkRefusal(j, err)
	case w.wasRemoved(j.id, asked):
		w.fail("%s was removed and is let in again", j.name)
	case skew > 5*time.Minute+answerWithin || skew < -5*time.Minute-answerWithin:
		w.fail("%s is let in by %s with a clock that is off by %s", j.name, s.name, skew)
	case a.Name != j.name || len(a.Certificate) == 0:
		w.fail("%s is let in as %q", j.name, a.Name)
	}
	for _, v := range a.Voters {
		if !slices.ContainsFunc(w.seats, func(s *seat) bool { return s.api() == v }) {
			w.fail("%s is told that %s votes", j.name, v)
		}
	}
}

// checkRefusal wants each refusal to be one that a person understands: of a kind that says whose fault it is, with a hint, without secrets.
func (w *World) checkRefusal(j *joiner, err error) {
	k := fault.KindOf(err)
	if k == fault.Unavailable || k == fault.TimedOut {
		return
	}
	if k != fault.Denied && k != fault.Exists && k != fault.Invalid || fault.Hint(err) == "" || len(err.Error()) < 20 {
		w.fail("%s is refused unclearly: %v (%s, hint %q)", j.name, err, k, fault.Hint(err))
	}
	if s, bad := token.Parse(j.token); bad == nil && strings.Contains(err.Error()+fault.Hint(err), strings.TrimPrefix(j.token, "flj_"+s.ID+"_")) {
		w.fail("%s is told the secret of a token: %v", j.name, err)
	}
}

// checkIdentity holds what a machine stored against the record.
func (w *World) checkIdentity(j *joiner, i *trust.Identity) {
	e, ok, err := w.store.Machines.Get(context.Background(), string(j.id), store.Read{})
	w.must(err)
	switch m := e.Value; {
	case i.CAHash() != w.hash:
		w.fail("%s believes another authority: %s", j.name, i.CAHash())
	case i.ID() != j.id || i.Name() != j.name:
		w.fail("%s has the identity of %s (%s)", j.name, i.Name(), i.ID().Short())
	case !ok || m.Key == removedKey: // it was removed meanwhile
	case m.Key != i.KeyHash() || m.Name != j.name:
		w.fail("%s is a member with the key %q as %q, and has the key %q", j.name, m.Key, m.Name, i.KeyHash())
	}
}
