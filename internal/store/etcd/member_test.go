package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"flota/internal/fault"
	"flota/internal/store"
)

// TestGrowAndShrink goes from one member to three and back to one over TLS while a client writes: the leader leaves too, a machine returns under its name, and nothing is lost.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m1, m2, m3 := newBox(t, ca, "m1"), newBox(t, ca, "m2"), newBox(t, ca, "m3")
	m1.found()
	if !m1.node.Votes() {
		t.Error("the founder does not vote")
	}
	c := client(t, m1)
	stop, acked := make(chan struct{}), 0
	var run sync.WaitGroup
	defer run.Wait()
	run.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				write(t, c, fmt.Sprintf("w/%06d", acked), "x")
				acked++
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop); run.Wait() })
	defer end()
	m2.join(m1)
	m3.join(m1) // beside a learner that is not promoted yet
	if m2.node.Votes() || m3.node.Votes() {
		t.Error("a learner votes")
	}
	m2.promote(m1)
	m3.promote(m2) // any member may ask
	if err := m3.node.Promote(patient(t), m3.node.MemberID()); err != nil {
		t.Errorf("promoted twice: %v", err)
	}
	c.SetEndpoints([]string{m1.o.Socket, m2.o.Socket, m3.o.Socket})
	all, err := m3.node.Members(patient(t))
	if err != nil || len(all) != 3 || len(m3.node.LocalMembers()) != 3 {
		t.Errorf("members are %+v, %v", all, err)
	}
	for _, m := range all {
		if m.Learner || !m.Started || m.Peer == "" {
			t.Errorf("member is %+v", m)
		}
	}

	// The leader goes.
	boxes := []*box{m1, m2, m3}
	lead := slices.IndexFunc(boxes, func(b *box) bool { return b.node.Leads() })
	gone, stay := boxes[lead], boxes[(lead+1)%3]
	c.SetEndpoints([]string{stay.o.Socket, boxes[(lead+2)%3].o.Socket})
	if err := gone.node.HandOver(patient(t)); err != nil || gone.node.Leads() {
		t.Errorf("hand over: %v, leads: %v", err, gone.node.Leads())
	}
	for range 2 { // repeated after a crash of who asked
		if err := stay.node.Remove(patient(t), gone.node.MemberID()); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	within(t, gone.node.Stopped(), "a removed member stops")
	if !gone.node.Removed() || gone.node.Votes() {
		t.Errorf("removed: %v, votes: %v", gone.node.Removed(), gone.node.Votes())
	}
	if h := gone.node.KV().Health(patient(t)); h.Quorum {
		t.Errorf("a removed member's health is %+v", h)
	}
	if _, _, err := gone.node.KV().Get(patient(t), "w/000000", store.Read{Stale: true}); err != nil && !fault.Is(err, fault.Unavailable) {
		t.Errorf("a removed member reads: %v", err)
	}
	_ = gone.node.Close()

	// It returns as another member, on the same address in the same process, with new data.
	gone.o.Dir += "-again"
	gone.join(stay)
	gone.promote(stay)

	// All but one leave.
	for _, b := range boxes {
		if b == stay {
			continue
		}
		again(t, b.node.HandOver)
		again(t, func(ctx context.Context) error { return b.node.Remove(ctx, b.node.MemberID()) }) // by itself
		within(t, b.node.Stopped(), "a member that left stops")
		if !b.node.Removed() {
			t.Error("a member that left is not removed")
		}
		_ = b.node.Close()
		c.SetEndpoints([]string{stay.o.Socket})
	}
	if err := stay.node.Remove(patient(t), stay.node.MemberID()); !fault.Is(err, fault.Conflict) {
		t.Errorf("remove the only voter: %v", err)
	}
	if err := stay.node.HandOver(patient(t)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("hand over to nobody: %v", err)
	}
	end()
	items, _, err := stay.node.KV().List(patient(t), "w/", store.Read{})
	if err != nil || len(items) != acked {
		t.Errorf("%d keys are there, %d were acknowledged, %v", len(items), acked, err)
	}
	t.Log("writes:", acked)
}

// within waits for a channel to close.
func within(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-patient(t).Done():
		t.Fatalf("%s: it did not happen", what)
	}
}

// TestRemovedWhileAway has a member be removed while it does not run: it finds out from the others when it returns.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m1, m2 := newBox(t, ca, "m1"), newBox(t, ca, "m2")
	m1.found()
	m2.join(m1)
	id := m2.node.MemberID()
	m2.halt()
	again(t, func(ctx context.Context) error { return m1.node.Remove(ctx, id) })
	m2.start()
	within(t, m2.node.Stopped(), "it finds out")
	if !m2.node.Removed() {
		t.Error("it does not know why it stopped")
	}
	if err := m2.node.Ready(patient(t)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("ready: %v", err)
	}
	_ = m2.node.Close()
	select {
	case <-m1.node.Stopped():
		t.Error("the other one stopped too")
	default:
	}
}

// TestCloseIsNoRemoval: who is closed was not removed.
func TestCloseIsNoRemoval(t *testing.T) {
	t.Parallel()
	m1 := newBox(t, newAuthority(t), "m1")
	m1.found()
	for range 3 { // the same address again and again
		_ = m1.node.Close()
		within(t, m1.node.Stopped(), "it stops")
		if m1.node.Removed() {
			t.Error("closed counts as removed")
		}
		m1.start()
		m1.ready()
	}
}

// TestJoinSteps repeats and breaks off the steps of joining.
func TestJoinSteps(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m1, m2 := newBox(t, ca, "m1"), newBox(t, ca, "m1") // one name: the dead member of a machine and its new one
	m1.found()
	first, all, err := m1.node.AddLearner(patient(t), m2.o.PeerAddr)
	if err != nil || len(all) != 2 {
		t.Fatalf("add: %+v, %v", all, err)
	}
	second, all, err := m1.node.AddLearner(patient(t), m2.o.PeerAddr)
	if err != nil || second != first || len(all) != 2 {
		t.Errorf("added twice: %x, %x, %+v, %v", first, second, all, err)
	}
	if err := m1.node.Promote(patient(t), first); !fault.Is(err, fault.Unavailable) {
		t.Errorf("promoted before it ran: %v", err)
	}
	if err := m1.node.Promote(patient(t), 12345); !fault.Is(err, fault.NotFound) {
		t.Errorf("promoted who is not there: %v", err)
	}
	if _, _, err := m1.node.AddLearner(patient(t), m1.o.PeerAddr); !fault.Is(err, fault.Exists) {
		t.Errorf("added where a member is: %v", err)
	}
	m2.o.Existing, m2.o.Peers = true, map[string]string{"m1": m2.o.PeerAddr}
	if err := m2.try(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("started without the others: %v", err)
	}
	third := freeAddrs(t, 1)[0]
	m2.o.Peers = map[string]string{"m1": m2.o.PeerAddr, "x": m1.o.PeerAddr, "y": third}
	if err := m2.try(); !fault.Is(err, fault.Conflict) {
		t.Errorf("started with a stranger among the others: %v", err)
	}
	m2.o.Peers = PeersOf(all, first, "m1")
	m2.start()
	m2.ready()
	m2.promote(m1)
	m2.halt()
	if err := os.RemoveAll(m2.o.Dir); err != nil {
		t.Fatal(err)
	}
	if err := m2.try(); !fault.Is(err, fault.Conflict) {
		t.Errorf("started with its data gone: %v", err)
	}
}

func TestPeersOf(t *testing.T) {
	all := []Member{{ID: 1, Name: "m1", Peer: "a:1"}, {ID: 2, Name: "m2", Peer: "b:1"}, {ID: 3, Peer: "c:1"}, {ID: 4, Peer: "d:1"}, {ID: 5, Name: "m2", Peer: "e:1"}}
	got := PeersOf(all, 3, "m1")
	want := map[string]string{"m1": "c:1", "m1-1": "a:1", "m2": "b:1", "m1-4": "d:1", "m1-5": "e:1"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestStrangers has others than members come to a member's port, and a member come to others.
func TestStrangers(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	m1 := newBox(t, ca, "m1")
	m1.found()
	knock := func(conf *tls.Config) error {
		conn, err := net.Dial("tcp", m1.o.PeerAddr)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if conf != nil {
			conn = tls.Client(conn, conf)
		}
		if _, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		b := make([]byte, 200)
		n, err := conn.Read(b)
		if err == nil && !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 200")) {
			err = fmt.Errorf("answer %q", b[:n])
		}
		return err
	}
	member := ca.client(t, ca)
	member.ServerName = "127.0.0.1"
	if err := knock(member); err != nil {
		t.Errorf("a member gets %v", err)
	}
	none, stranger, old := member.Clone(), other.client(t, ca), member.Clone()
	none.Certificates = nil
	stranger.ServerName = "127.0.0.1"
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, conf := range map[string]*tls.Config{"plain": nil, "no certificate": none, "another cluster": stranger, "TLS 1.2": old} {
		if err := knock(conf); err == nil {
			t.Errorf("%s gets an answer", name)
		}
	}
	// A member does not talk to a server of another authority that stands where a member should.
	m2 := newBox(t, other, "m2")
	id, all, err := m1.node.AddLearner(patient(t), m2.o.PeerAddr)
	if err != nil {
		t.Fatal(err)
	}
	m2.o.Existing, m2.o.Peers = true, PeersOf(all, id, "m2")
	if err := m2.try(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a stranger joins with %v", err)
	}
}

// TestLearnerKV has a learner answer stale reads with nobody else there, and everything else through the voters.
func TestLearnerKV(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m1, m2 := newBox(t, ca, "m1"), newBox(t, ca, "m2")
	m1.found()
	m2.join(m1)
	kv := m2.node.LearnerKV(client(t, m1))
	rev := write(t, kv, "a", "1")
	stale := func() bool {
		it, ok, err := kv.Get(patient(t), "a", store.Read{Stale: true})
		return err == nil && ok && it.Rev == rev
	}
	wait(t, "the write reaches the learner", stale)
	if h := kv.Health(patient(t)); !h.Quorum || len(h.Members) != 2 {
		t.Errorf("health is %+v", h)
	}
	m1.halt()
	if !stale() {
		t.Error("without the voter there is no stale read")
	}
	if items, at, err := kv.List(patient(t), "", store.Read{Stale: true}); err != nil || len(items) != 1 || at < rev {
		t.Errorf("list gives %+v, %d, %v", items, at, err)
	}
	if _, _, err := kv.Get(context.Background(), "a", store.Read{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a read that must be fresh gives %v", err)
	}
	if h := kv.Health(patient(t)); h.Quorum || len(h.Members) != 2 {
		t.Errorf("without the voter health is %+v", h)
	}
	_ = m2.node.Close() // started again with the voter away: it has not joined, but its copy is good
	m2.start()
	kv = m2.node.LearnerKV(client(t, m1))
	if !stale() {
		t.Error("after a restart without the voter there is no stale read")
	}
}

// TestSetEndpoints: nobody, somebody, somebody else.
func TestSetEndpoints(t *testing.T) {
	t.Parallel()
	c, ctx := startCluster(t, 2), patient(t)
	kv := client(t)
	if _, _, err := kv.Get(context.Background(), "a", store.Read{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody answers %v", err)
	}
	if u := <-kv.Watch(ctx, "", 0); !fault.Is(u.Err, fault.Unavailable) {
		t.Errorf("nobody's watch gives %+v", u)
	}
	kv.SetEndpoints([]string{c.opts[0].Socket})
	rev := write(t, kv, "a", "1")
	w := kv.Watch(ctx, "", rev)
	<-w
	for i := range 20 {
		kv.SetEndpoints([]string{c.opts[i%2].Socket})
		if _, _, err := kv.Commit(ctx, put("a", fmt.Sprint(i))); err != nil {
			t.Errorf("write %d after a change: %v", i, err)
		}
	}
	last := rev
	for range 20 {
		u := <-w
		if u.Err != nil || u.Rev <= last {
			t.Fatalf("the watch gives %+v after %d", u, last)
		}
		last = u.Rev
	}
	kv.SetEndpoints(nil)
	if _, _, err := kv.Commit(context.Background(), put("a", "1")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody answers %v", err)
	}
	kv.SetEndpoints([]string{c.opts[1].Socket})
	write(t, kv, "a", "2")
	_ = kv.Close()
	kv.SetEndpoints([]string{c.opts[0].Socket})
}

// TestSnapshot restores what a member wrote, with etcd's own tool.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	c, ctx := startCluster(t, 1), patient(t)
	var last int64
	for i := range 50 {
		last = write(t, c.nodes[0].KV(), fmt.Sprint("k", i), "v")
	}
	var buf bytes.Buffer
	rev, err := c.nodes[0].Snapshot(ctx, &buf)
	if err != nil || rev != last {
		t.Fatalf("revision %d, %v; want %d", rev, err, last)
	}
	b := buf.Bytes()
	if sum := sha256.Sum256(b[:len(b)-sha256.Size]); !bytes.Equal(sum[:], b[len(b)-sha256.Size:]) {
		t.Error("the checksum is wrong")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "db")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddrs(t, 1)[0]
	o := Options{Dir: filepath.Join(dir, "m1"), Name: "m1", PeerAddr: addr, Log: loud(t)}
	err = snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: "m1", OutputDataDir: o.Dir, PeerURLs: []string{"http://" + addr}, InitialCluster: "m1=http://" + addr, InitialClusterToken: "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if items, _, err := n.KV().List(ctx, "k", store.Read{}); err != nil || len(items) != 50 {
		t.Errorf("%d items, %v", len(items), err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.Snapshot(ended, io.Discard); !fault.Is(err, fault.Unavailable) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := n.Snapshot(ctx, broken{}); !fault.Is(err, fault.Internal) {
		t.Errorf("to a broken writer: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
