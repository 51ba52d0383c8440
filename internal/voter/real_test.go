package voter

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/store/relay"
)

// town is a few machines with real members, on loopback.
type town struct {
	t     *testing.T
	dir   string
	log   *slog.Logger
	boxes []*box
}

// box is one of them: what room daemon makes of this room's parts, in short.
type box struct {
	*town
	id      machine.ID
	name    string
	peer    string
	relay   *relay.Relay
	store   *store.Store
	local   *Local
	steward *Steward
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu    sync.Mutex
	epoch int
	away  *etcd.Client
}

func newTown(t *testing.T) *town {
	if testing.Short() {
		t.Skip("real members of etcd")
	}
	dir, err := os.MkdirTemp("", "flota")
	if err != nil {
		t.Fatal(err)
	}
	var out io.Writer = io.Discard
	if os.Getenv("FLOTA_TEST_LOG") != "" {
		out = t.Output()
	}
	w := &town{t: t, dir: dir, log: slog.New(slog.NewTextHandler(out, nil))}
	t.Cleanup(func() {
		for _, b := range w.boxes {
			b.kill()
		}
		_ = os.RemoveAll(dir)
	})
	return w
}

// join makes one more machine; the first founds the cluster.
func (w *town) join() *box {
	w.t.Helper()
	n := len(w.boxes) + 1
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	b := &box{town: w, id: machine.ID(fmt.Sprintf("%032x", n)), name: fmt.Sprint("m", n), peer: l.Addr().String(), epoch: 1}
	w.boxes = append(w.boxes, b)
	return b
}

// start runs the machine; the table gets it once the store answers.
func (b *box) start() {
	b.t.Helper()
	b.relay = relay.New(b.log)
	b.store = store.New(b.relay)
	ctx, cancel := context.WithCancel(context.Background())
	b.mu.Lock()
	b.cancel = cancel
	b.mu.Unlock()
	if err := b.changed(ctx, Role{}); err != nil {
		b.t.Fatal(err)
	}
	var err error
	b.local, err = Open(ctx, LocalOptions{
		ID: b.id, Name: b.name, Dir: filepath.Join(b.dir, b.name), Store: b.store, Found: b == b.boxes[0],
		Start: b.startMember, Changed: b.changed,
		Authority:     func(context.Context) error { return nil },
		DropAuthority: func() error { return nil },
		Epoch:         func() int { b.mu.Lock(); defer b.mu.Unlock(); return b.epoch },
		SetEpoch:      func(n int) error { b.mu.Lock(); defer b.mu.Unlock(); b.epoch = n; return nil },
		Highest: func(context.Context) (int, error) {
			highest := 0
			for _, x := range b.boxes {
				x.mu.Lock()
				if x != b && x.cancel != nil {
					highest = max(highest, x.epoch)
				}
				x.mu.Unlock()
			}
			if highest == 0 {
				return 0, fault.New(fault.Unavailable, "nobody answers")
			}
			return highest, nil
		},
		Log: b.log.With("machine", b.name),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.steward = NewSteward(StewardOptions{ID: b.id, Store: b.store, Engine: b.local.Engine, Log: b.log.With("machine", b.name),
		Settings: quorum.Settings{Replace: 4 * time.Second, Handoff: 200 * time.Millisecond}, Removing: func(m machine.Machine) bool { return m.Leaving }})
	b.done.Go(func() {
		if err := b.local.Run(ctx); err != nil {
			b.t.Errorf("%s: %v", b.name, err)
		}
	})
	b.done.Go(func() { _ = b.steward.Run(ctx) })
	b.done.Go(func() { b.present(ctx) })
	b.done.Go(func() { b.campaign(ctx) })
}

// socket is where a machine's member takes clients.
func (b *box) socket() string { return filepath.Join(b.dir, b.name+".sock") }

func (b *box) startMember(ctx context.Context, how Start) (Member, error) {
	n, err := etcd.Start(ctx, etcd.Options{
		Dir: how.Dir, Name: how.Name, PeerAddr: b.peer, Peers: how.Peers, Existing: how.Existing, Force: how.Force, Socket: b.socket(),
		Log: b.log.With("machine", b.name), Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// changed moves the machine's store over.
func (b *box) changed(ctx context.Context, r Role) error {
	old := b.away
	b.away = nil
	if r.Votes {
		b.relay.Use(r.Member.KV())
	} else {
		var ends []string
		for _, x := range b.boxes {
			ends = append(ends, x.socket())
		}
		c, err := etcd.Dial(ctx, etcd.DialOptions{Endpoints: ends, Log: b.log})
		if err != nil {
			return err
		}
		b.away = c
		if n := r.Node(); n != nil {
			b.relay.Use(n.LearnerKV(c))
		} else {
			b.relay.Use(c)
		}
	}
	if old != nil {
		return old.Close()
	}
	return nil
}

// present registers the machine and keeps its presence.
func (b *box) present(ctx context.Context) {
	joined, lease := false, store.LeaseID(0)
	for ctx.Err() == nil {
		if !joined {
			err := b.store.Machines.Create(ctx, string(b.id), machine.Machine{ID: b.id, Name: b.name, Joined: time.Now()})
			joined = err == nil || fault.Is(err, fault.Exists)
		}
		if joined && (lease == 0 || b.relay.Renew(ctx, lease) != nil) {
			var err error
			if lease, err = b.relay.Grant(ctx, 2*time.Second); err == nil {
				_ = b.store.Alive.Put(ctx, string(b.id), machine.Presence{ID: b.id, Name: b.name, Peer: b.peer}, lease)
			}
		}
		wait(ctx, 300*time.Millisecond)
	}
}

func (b *box) campaign(ctx context.Context) {
	for ctx.Err() == nil {
		if b.local.Engine() == nil {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		term, cancel := context.WithCancel(ctx)
		stop := time.AfterFunc(time.Hour, cancel)
		l, err := b.store.Campaign(term, b.id, 2*time.Second)
		for err == nil && ctx.Err() == nil && b.local.Engine() != nil {
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
		stop.Stop()
		cancel()
	}
}

func (b *box) up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cancel != nil
}

// kill ends the machine.
func (b *box) kill() {
	b.mu.Lock()
	cancel := b.cancel
	b.cancel = nil
	b.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	b.done.Wait()
	_ = b.local.Close()
	b.relay.Use(nil)
	if b.away != nil {
		_ = b.away.Close()
		b.away = nil
	}
	_ = b.relay.Close()
}

// until waits for so many voters and learners among the machines that run, each knowing what it is.
func (w *town) until(voters, learners int) {
	w.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	var said string
	for time.Now().Before(deadline) {
		v, l := 0, 0
		said = ""
		for _, b := range w.boxes {
			if !b.up() {
				continue
			}
			r := b.local.Role()
			switch {
			case r.Votes:
				v++
			case r.Member != nil:
				l++
			}
			said += fmt.Sprintf("%s: %+v %+v\n", b.name, b.local.Status(), b.steward.Status())
		}
		if v == voters && l == learners {
			return
		}
		wait(context.Background(), 50*time.Millisecond)
	}
	w.t.Fatalf("no %d voters and %d learners:\n%s", voters, learners, said)
}

// TestReal grows a cluster of real members, loses one, shrinks it, loses the majority and recovers; what was written stays.
func TestReal(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	for range 5 {
		w.join()
	}
	began := time.Now()
	step := func(what string) {
		t.Logf("%s after %v", what, time.Since(began).Round(100*time.Millisecond))
		began = time.Now()
	}
	w.boxes[0].start()
	w.until(1, 0)
	step("one")
	w.boxes[1].start()
	w.until(1, 1)
	step("two")
	for _, b := range w.boxes[2:] {
		b.start()
	}
	w.until(3, 0)
	step("five")
	last := w.boxes[4]
	if _, _, err := last.relay.Commit(t.Context(), store.Txn{Then: []store.Op{{Key: "a", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}

	w.boxes[0].kill()
	w.until(3, 0)
	step("one was replaced")
	w.boxes[0].start() // removed meanwhile
	w.until(3, 0)

	leaving := []*box{}
	for _, b := range w.boxes {
		if b.local.Role().Votes && len(leaving) < 1 {
			leaving = append(leaving, b)
		}
	}
	if _, err := last.store.Machines.Update(t.Context(), string(leaving[0].id), func(m *machine.Machine) error { m.Leaving = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for leaving[0].local.Role().Member != nil {
		wait(context.Background(), 50*time.Millisecond)
	}
	w.until(3, 0)
	step("one has left")

	// Two of three voters are destroyed.
	var survivor *box
	for _, b := range w.boxes {
		switch {
		case !b.local.Role().Votes:
		case survivor == nil:
			survivor = b
		default:
			b.kill()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		err := survivor.local.Recover(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil || !fault.Is(err, fault.Conflict) { // a quorum was there a moment ago
			t.Fatal(err)
		}
		wait(context.Background(), 100*time.Millisecond)
	}
	step("recovered")
	it, ok, err := survivor.relay.Get(ctx, "a", store.Read{})
	if err != nil || !ok || string(it.Value) != "1" {
		t.Fatalf("%+v %v %v", it, ok, err)
	}
	for _, b := range w.boxes {
		if !b.up() {
			b.start() // of the old store
		}
	}
	w.until(3, 0)
	step("all are back")
	for _, b := range w.boxes {
		if e := b.local.opts.Epoch(); b.local.Role().Member != nil && e != 2 { // the clients hear of it within epochEvery
			t.Errorf("%s is in epoch %d", b.name, e)
		}
	}
}
