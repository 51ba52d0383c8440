package voter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/store/mem"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	)
}

// engine is what the real engine's members agree on, and what is wrong with them.
type engine struct {
	mu      sync.Mutex
	next    uint64
	members []etcd.Member
	running map[uint64]*fake
	after   func(op string) // told of each change that was made, before the answer is given
	copying time.Duration   // how long a new learner needs
}

// fake is one running member.
type fake struct {
	*engine
	id      uint64
	kv      store.KV
	stop    chan struct{}
	removed bool
	timer   *time.Timer
	born    time.Time
	closed  bool
}

var _ Member = (*fake)(nil)

func (e *engine) quorum() bool {
	voters, live := 0, 0
	for _, m := range e.members {
		if !m.Learner {
			voters++
			if e.running[m.ID] != nil {
				live++
			}
		}
	}
	return live > voters/2
}

func (e *engine) find(id uint64) *etcd.Member {
	for i := range e.members {
		if e.members[i].ID == id {
			return &e.members[i]
		}
	}
	return nil
}

// start is what etcd.Start does.
func (e *engine) start(how Start, peer string, kv store.KV) (*fake, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	wal := filepath.Join(how.Dir, "member", "wal")
	f := &fake{engine: e, kv: kv, stop: make(chan struct{}), born: time.Now()}
	if b, err := os.ReadFile(filepath.Join(wal, "0.wal")); err == nil {
		f.id, _ = strconv.ParseUint(string(b), 16, 64)
		f.born = f.born.Add(-time.Hour)
	} else {
		switch {
		case how.Force:
			return nil, fault.New(fault.NotFound, "no copy")
		case how.Existing:
			for _, m := range e.members {
				if m.Peer == peer {
					f.id = m.ID
				}
			}
			if m := e.find(f.id); m != nil && m.Started {
				return nil, fault.New(fault.Conflict, "it has run before, but its data is gone")
			}
			if m := e.find(f.id); m == nil || len(how.Peers) != len(e.members) || how.Peers[how.Name] != peer {
				return nil, fault.New(fault.Conflict, "the members are others: %v", how.Peers)
			}
		default:
			if len(e.members) > 0 {
				return nil, errors.New("founded twice")
			}
			e.next++
			f.id = e.next
			e.members = append(e.members, etcd.Member{ID: f.id, Name: how.Name, Peer: peer, Started: true})
		}
		if err := os.MkdirAll(wal, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(wal, "0.wal"), []byte(strconv.FormatUint(f.id, 16)), 0o600); err != nil {
			return nil, err
		}
	}
	if how.Force {
		e.members = []etcd.Member{{ID: f.id, Name: how.Name, Peer: peer, Started: true}}
	}
	if e.running[f.id] != nil {
		return nil, errors.New("it runs already")
	}
	e.running[f.id] = f
	if e.find(f.id) == nil {
		f.goes()
	} else {
		f.timer = time.AfterFunc(e.copying, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if m := e.find(f.id); m != nil && !f.closed {
				m.Started, m.Name = true, how.Name
			}
		})
	}
	return f, nil
}

// goes ends a removed member a second later. The lock is held.
func (f *fake) goes() {
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(time.Second, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.closed {
			f.removed = true
			f.end()
		}
	})
}

func (f *fake) end() {
	if f.running[f.id] == f {
		delete(f.running, f.id)
	}
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
}

func (f *fake) ask(ctx context.Context, op string, act func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.find(f.id) == nil || !f.quorum() {
		return fault.New(fault.Unavailable, "no quorum")
	}
	before := f.quorum()
	err := act()
	if err == nil && before && !f.quorum() {
		panic(op + " took the majority away")
	}
	if after := f.after; after != nil && err == nil && op != "" {
		f.mu.Unlock()
		after(op)
		f.mu.Lock()
	}
	if err == nil && ctx.Err() != nil {
		err = fault.Wrap(fault.Unavailable, ctx.Err(), "%s", op)
	}
	return err
}

func (f *fake) Members(ctx context.Context) (out []etcd.Member, err error) {
	return out, f.ask(ctx, "", func() error { out = slices.Clone(f.members); return nil })
}

func (f *fake) AddLearner(ctx context.Context, peer string) (id uint64, all []etcd.Member, err error) {
	err = f.ask(ctx, "add", func() error {
		for _, m := range f.members {
			if m.Peer == peer {
				return fault.New(fault.Exists, "%s is a member's", peer)
			}
		}
		f.next++
		id = f.next
		f.members = append(f.members, etcd.Member{ID: id, Peer: peer, Learner: true})
		all = slices.Clone(f.members)
		return nil
	})
	return id, all, err
}

func (f *fake) Promote(ctx context.Context, id uint64) error {
	return f.ask(ctx, "promote", func() error {
		m := f.find(id)
		if m == nil {
			return fault.New(fault.NotFound, "no member")
		}
		if !m.Started || f.running[id] == nil {
			return fault.New(fault.Unavailable, "not in sync")
		}
		m.Learner = false
		return nil
	})
}

func (f *fake) Remove(ctx context.Context, id uint64) error {
	return f.ask(ctx, "remove", func() error {
		if f.find(id) == nil {
			return fault.New(fault.NotFound, "no member")
		}
		f.members = slices.DeleteFunc(f.members, func(m etcd.Member) bool { return m.ID == id })
		if r := f.running[id]; r != nil {
			r.goes()
		}
		return nil
	})
}

func (f *fake) HandOver(context.Context) error { return nil }
func (f *fake) MemberID() uint64               { return f.id }
func (f *fake) Stopped() <-chan struct{}       { return f.stop }

func (f *fake) Removed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.removed
}

func (f *fake) Votes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.find(f.id)
	return !f.closed && m != nil && !m.Learner && m.Started
}

func (f *fake) Ready(ctx context.Context) error {
	for {
		f.mu.Lock()
		m := f.find(f.id)
		ready := m != nil && m.Started && f.quorum()
		f.mu.Unlock()
		if ready {
			return nil
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
		case <-f.stop:
			return fault.New(fault.Unavailable, "stopped")
		case <-ctx.Done():
			t.Stop()
			return fault.Wrap(fault.Unavailable, ctx.Err(), "not ready")
		}
	}
}

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
	f.end()
	return nil
}

// KV is the store, with the health of this member.
func (f *fake) KV() store.KV { return healthy{f.kv, f.engine} }

type healthy struct {
	store.KV
	e *engine
}

func (h healthy) Health(context.Context) (out store.Health) {
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	out.Quorum = h.e.quorum()
	for _, m := range h.e.members {
		out.Members = append(out.Members, store.Member{Name: m.Name, Learner: m.Learner})
	}
	return out
}

// bed is a cluster on virtual time.
type bed struct {
	t      *testing.T
	dir    string
	mem    *mem.Mem
	store  *store.Store
	engine *engine
	log    *slog.Logger

	hosts    sync.Mutex // guards machines while they run
	machines []*host
}

// all gives the machines so far.
func (b *bed) all() []*host {
	b.hosts.Lock()
	defer b.hosts.Unlock()
	return slices.Clone(b.machines)
}

// host is one machine of it.
type host struct {
	*bed
	id      machine.ID
	name    string
	peer    string
	zone    string
	witness bool
	founder bool
	broken  error // Start fails with it

	mu        sync.Mutex
	epoch     int
	authority bool
	role      Role
	changes   []string
	local     *Local
	steward   *Steward
	cancel    context.CancelFunc
	done      sync.WaitGroup
}

func newBed(t *testing.T) *bed {
	m := mem.New()
	b := &bed{t: t, dir: t.TempDir(), mem: m, engine: &engine{running: map[uint64]*fake{}, copying: time.Second}}
	b.store = store.New(healthy{m, b.engine})
	var out io.Writer = io.Discard
	if os.Getenv("FLOTA_TEST_LOG") != "" {
		out = t.Output()
	}
	b.log = slog.New(slog.NewTextHandler(out, nil))
	if err := b.store.Cluster.Create(t.Context(), store.ThisCluster, machine.Cluster{ID: "c", Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, h := range b.machines {
			h.kill()
		}
		m.Close()
	})
	return b
}

// join adds a machine to the table and starts it.
func (b *bed) join(zone string) *host {
	h := b.add(zone)
	h.start()
	return h
}

func (b *bed) add(zone string) *host {
	n := len(b.machines) + 1
	h := &host{bed: b, id: machine.ID(fmt.Sprintf("%032x", n)), name: fmt.Sprint("m", n), peer: fmt.Sprintf("10.0.0.%d:7701", n), zone: zone, founder: n == 1, epoch: 1}
	b.hosts.Lock()
	b.machines = append(b.machines, h)
	b.hosts.Unlock()
	if err := b.store.Machines.Create(b.t.Context(), string(h.id), machine.Machine{ID: h.id, Name: h.name, Joined: time.Now(), Witness: h.witness}); err != nil {
		b.t.Fatal(err)
	}
	return h
}

func (h *host) dataDir() string { return filepath.Join(h.dir, h.name, "store") }

func (h *host) options() LocalOptions {
	return LocalOptions{
		ID: h.id, Name: h.name, Dir: h.dataDir(), Store: h.store, Found: h.founder,
		Start: func(_ context.Context, how Start) (Member, error) {
			if h.broken != nil {
				return nil, h.broken
			}
			m, err := h.engine.start(how, h.peer, h.mem)
			if err != nil {
				return nil, err
			}
			return m, nil
		},
		Changed: func(_ context.Context, r Role) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.role = r
			word := "client"
			if r.Member != nil {
				word = fmt.Sprintf("%x:%v", r.Member.MemberID(), r.Votes)
			}
			h.changes = append(h.changes, word)
			return nil
		},
		Authority:     func(context.Context) error { h.mu.Lock(); defer h.mu.Unlock(); h.authority = true; return nil },
		DropAuthority: func() error { h.mu.Lock(); defer h.mu.Unlock(); h.authority = false; return nil },
		Epoch:         func() int { h.mu.Lock(); defer h.mu.Unlock(); return h.epoch },
		SetEpoch:      func(n int) error { h.mu.Lock(); defer h.mu.Unlock(); h.epoch = n; return nil },
		Highest: func(context.Context) (int, error) {
			highest := 0
			for _, x := range h.all() {
				if x != h && x.up() {
					highest = max(highest, x.options().Epoch())
				}
			}
			if highest == 0 {
				return 0, fault.New(fault.Unavailable, "nobody answers")
			}
			return highest, nil
		},
		Log: h.log.With("machine", h.name),
	}
}

func (h *host) up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cancel != nil
}

// open starts the machine's Local only.
func (h *host) open() (*Local, error) {
	if err := os.MkdirAll(filepath.Dir(h.dataDir()), 0o700); err != nil {
		h.t.Fatal(err)
	}
	return Open(context.Background(), h.options())
}

// start starts everything that a machine runs: presence, leadership, both of this room.
func (h *host) start() {
	h.t.Helper()
	local, err := h.open()
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.mu.Lock()
	h.cancel, h.local = cancel, local
	h.steward = NewSteward(StewardOptions{ID: h.id, Store: h.store, Engine: local.Engine, Log: h.log.With("machine", h.name),
		Removing: func(m machine.Machine) bool { return m.Leaving }})
	h.mu.Unlock()
	h.done.Go(func() {
		if err := local.Run(ctx); err != nil {
			h.t.Errorf("%s: %v", h.name, err)
		}
	})
	h.done.Go(func() { _ = h.steward.Run(ctx) })
	h.done.Go(func() { h.present(ctx) })
	h.done.Go(func() { h.campaign(ctx) })
}

// present keeps the presence for as long as ctx lasts; it vanishes 5 s later.
func (h *host) present(ctx context.Context) {
	p := machine.Presence{ID: h.id, Name: h.name, Peer: h.peer, Labels: map[string]string{"zone": h.zone}, Started: time.Now()}
	lease, err := h.mem.Grant(ctx, 5*time.Second)
	if err != nil || h.store.Alive.Put(ctx, string(h.id), p, lease) != nil {
		return
	}
	for ctx.Err() == nil {
		wait(ctx, time.Second)
		_ = h.mem.Renew(ctx, lease)
	}
}

// campaign leads whenever this machine votes, as the daemon does.
func (h *host) campaign(ctx context.Context) {
	for ctx.Err() == nil {
		if h.local.Engine() == nil {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		term, cancel := context.WithCancel(ctx)
		l, err := h.store.Campaign(term, h.id, 5*time.Second)
		for err == nil && ctx.Err() == nil && h.local.Engine() != nil {
			select {
			case <-l.Lost():
				err = errLost
			default:
				wait(ctx, 100*time.Millisecond)
			}
		}
		if l != nil && ctx.Err() == nil {
			l.Resign(ctx)
		}
		cancel()
	}
}

// kill ends the machine as a power cut does: nothing is said to anybody.
func (h *host) kill() {
	h.mu.Lock()
	cancel, local := h.cancel, h.local
	h.cancel = nil
	h.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	h.done.Wait()
	if m := local.running(); m != nil {
		_ = m.Close()
	}
	if local.unwait != nil {
		local.unwait()
	}
	local.waiting.Wait()
}

// update changes the machine's record.
func (h *host) update(change func(*machine.Machine)) {
	h.t.Helper()
	if _, err := h.store.Machines.Update(h.t.Context(), string(h.id), func(m *machine.Machine) error { change(m); return nil }); err != nil {
		h.t.Fatal(err)
	}
}

// names gives the engine's voters and learners.
func (b *bed) names() string {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	var voters, learners []string
	for _, m := range b.engine.members {
		if m.Learner {
			learners = append(learners, m.Name)
		} else {
			voters = append(voters, m.Name)
		}
	}
	slices.Sort(voters)
	slices.Sort(learners)
	return strings.TrimSpace(fmt.Sprint(voters) + " " + strings.Trim(fmt.Sprint(learners), "[]"))
}

// until waits, on virtual time, and gives how long it took.
func (b *bed) until(want string, within time.Duration) time.Duration {
	b.t.Helper()
	began := time.Now()
	for time.Since(began) < within {
		if b.names() == want && b.agree() == nil {
			return time.Since(began)
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.t.Fatalf("after %v: %s, want %s; %v; %+v", within, b.names(), want, b.agree(), b.stewards())
	return 0
}

func (b *bed) stewards() (out []Status) {
	for _, h := range b.machines {
		if h.up() {
			if st := h.steward.Status(); st.Leads {
				out = append(out, st)
			}
		}
	}
	return out
}

// agree checks that the records, the engine and what each machine that is up uses are one.
func (b *bed) agree() error {
	votes, _, err := b.store.Voters.List(context.Background(), "", store.Read{})
	if err != nil {
		return err
	}
	b.engine.mu.Lock()
	members := slices.Clone(b.engine.members)
	b.engine.mu.Unlock()
	if len(votes) != len(members) {
		return fmt.Errorf("%d votes of %d members", len(votes), len(members))
	}
	for _, h := range b.machines {
		i := slices.IndexFunc(members, func(m etcd.Member) bool { return m.Peer == h.peer })
		v, written, _ := b.store.Voters.Get(context.Background(), string(h.id), store.Read{})
		role := machine.Client
		if i >= 0 {
			if role = machine.Voter; members[i].Learner {
				role = machine.Learner
			}
		}
		if written != (i >= 0) || v.Value.Role != role || written && v.Value.Member != quorum.MemberID(members[i].ID) {
			return fmt.Errorf("the vote of %s is %+v, its member %d", h.name, v.Value, i)
		}
		if !h.up() {
			continue
		}
		h.mu.Lock()
		r, authority := h.role, h.authority
		h.mu.Unlock()
		if (r.Member != nil) != (i >= 0) || r.Votes != (role == machine.Voter) || r.Member != nil && r.Member.MemberID() != members[i].ID {
			return fmt.Errorf("%s uses %+v, but is %q", h.name, r, role)
		}
		if authority != (role != machine.Client) && !h.founder {
			return fmt.Errorf("%s is %q; holds the authority: %v", h.name, role, authority)
		}
	}
	return nil
}
