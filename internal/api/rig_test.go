package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"flota/internal/driver/fake"
	"flota/internal/machine"
	"flota/internal/scheduler"
	"flota/internal/store"
	"flota/internal/store/mem"
	"flota/internal/unit"
	"flota/internal/view"
)

// rig is a cluster in one process: a store in memory, fake drivers, real API servers, and hands that are just good enough.
type rig struct {
	t     *testing.T
	kind  Kind // of the machines' listeners; Machines, as between machines, without TLS
	st    *store.Store
	boxes []*box
}

// box is one machine of a rig.
type box struct {
	id     machine.ID
	name   string
	kv     *mem.Faulty
	st     *store.Store
	driver *fake.Driver
	view   *view.View
	srv    *Server
	addr   string
	log    *lockedBuffer
	kill   context.CancelFunc // ends the API
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// idOf gives machine n an ID; its first digit tells which it is.
func idOf(n int) machine.ID { return machine.ID(fmt.Sprintf("%x%s", n, strings.Repeat("0", 31))) }

// newRig makes a cluster of n machines, the first three of them voters, m1 leading.
func newRig(t *testing.T, n int) *rig {
	t.Helper()
	m := mem.New()
	t.Cleanup(func() { _ = m.Close() })
	r := &rig{t: t, kind: Machines, st: store.New(m)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := 1; i <= n; i++ {
		r.boxes = append(r.boxes, r.newBox(ctx, &wg, m, i))
	}
	if _, _, err := m.Commit(ctx, store.Txn{Then: []store.Op{{Key: store.Prefix + "leader", Value: []byte(idOf(1))}}}); err != nil {
		t.Fatal(err)
	}
	for _, b := range r.boxes {
		if b.view != nil {
			if err := b.view.Await(ctx, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// newBox starts machine n.
func (r *rig) newBox(ctx context.Context, wg *sync.WaitGroup, m *mem.Mem, n int) *box {
	r.t.Helper()
	b := &box{id: idOf(n), name: fmt.Sprintf("m%d", n), kv: m.Client(), driver: fake.New(fake.Options{}), log: &lockedBuffer{}}
	b.st = store.New(b.kv)
	log := slog.New(slog.NewTextHandler(b.log, nil))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	b.addr = l.Addr().String()
	o := Options{ID: b.id, Name: b.name, Version: "test", Store: b.st, Driver: b.driver, Log: log}
	voter := n <= 3
	if voter {
		b.view = view.New(view.Options{Store: b.st, Log: log})
		o.View = func() *view.View { return b.view }
		wg.Go(func() { _ = b.view.Run(ctx) })
	}
	b.srv = New(o)
	r.record(ctx, b.id, b.name, voter)
	p := machine.Presence{ID: b.id, Name: b.name, Addr: "127.0.0.1", API: b.addr, Started: time.Now(), Version: "test",
		Labels: map[string]string{"n": fmt.Sprint(n)}}
	if err := r.st.Alive.Put(ctx, string(b.id), p, 0); err != nil {
		r.t.Fatal(err)
	}
	serve, kill := context.WithCancel(ctx)
	b.kill = kill
	wg.Go(func() { _ = b.srv.Serve(serve, l, r.kind) })
	return b
}

// record makes a member's records, as room admit and the steward do.
func (r *rig) record(ctx context.Context, id machine.ID, name string, voter bool) {
	r.t.Helper()
	txn := store.Txn{Then: []store.Op{
		r.st.Machines.PutOp(string(id), machine.Machine{ID: id, Name: name, Joined: time.Now().UTC(), Key: "k-" + name}, 0),
		r.st.Names.PutOp(name, id, 0),
	}}
	if voter {
		txn.Then = append(txn.Then, r.st.Voters.PutOp(string(id), machine.Vote{Machine: id, Role: machine.Voter}, 0))
	}
	if _, _, err := r.st.KV.Commit(ctx, txn); err != nil {
		r.t.Fatal(err)
	}
}

// hands makes the cluster work: a leader that carries plans out, agents that do what their places say.
func (r *rig) hands() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	r.t.Cleanup(func() { cancel(); wg.Wait() })
	for _, b := range r.boxes {
		wg.Go(func() { r.agent(ctx, b) })
	}
	wg.Go(func() {
		for changes := range r.st.KV.Watch(ctx, store.Prefix, 0) {
			_ = changes
			r.lead(ctx)
		}
	})
}

// lead makes one plan and carries it out.
func (r *rig) lead(ctx context.Context) {
	c, err := r.boxes[0].srv.whole(ctx)
	if err != nil {
		return
	}
	now := time.Now()
	for _, mv := range scheduler.Make(r.boxes[0].srv.mind(c, now), now).Moves {
		var ops []store.Op
		switch mv.Kind {
		case scheduler.KindMove, scheduler.KindRemove, scheduler.KindFinish:
			ops = append(ops, r.st.Places.DeleteOp(store.PlaceKey(mv.From, mv.Unit)))
		}
		if mv.Put != nil {
			ops = append(ops, r.st.Places.PutOp(store.PlaceKey(mv.To, mv.Unit), *mv.Put, 0))
		}
		_, _, _ = r.st.KV.Commit(ctx, store.Txn{Then: ops})
	}
}

// agent does what the places of b say and reports.
func (r *rig) agent(ctx context.Context, b *box) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wake := make(chan struct{}, 1)
	ring := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	wg.Go(func() { _ = b.driver.Watch(ctx, func([]unit.State, bool) { ring() }) })
	wg.Go(func() {
		for range r.st.KV.Watch(ctx, r.st.Places.Prefix()+string(b.id)+"/", 0) {
			ring()
		}
	})
	reported := map[unit.Name]unit.State{}
	for {
		select {
		case <-wake:
			r.reconcile(ctx, b, reported)
		case <-ctx.Done():
			return
		}
	}
}

// reconcile makes b as its places say, and reports what changed.
func (r *rig) reconcile(ctx context.Context, b *box, reported map[unit.Name]unit.State) {
	places, _, err := r.st.Places.List(ctx, string(b.id)+"/", store.Read{})
	if err != nil {
		return
	}
	wanted := map[unit.Name]bool{}
	for _, e := range places {
		u := e.Value.Unit
		wanted[u.Name] = true
		_ = b.driver.Load(ctx, u)
		if u.Target == unit.Launched {
			_ = b.driver.Start(ctx, u.Name, u.Run)
		} else {
			_ = b.driver.Stop(ctx, u.Name)
		}
	}
	states, _ := b.driver.States(ctx)
	for _, st := range states {
		st.Machine = b.id
		if !wanted[st.Unit] {
			_ = b.driver.Unload(ctx, st.Unit)
			_, _ = r.st.States.Delete(ctx, store.PlaceKey(b.id, st.Unit))
			delete(reported, st.Unit)
		} else if !reflect.DeepEqual(reported[st.Unit], st) {
			_ = r.st.States.Put(ctx, store.PlaceKey(b.id, st.Unit), st, 0)
			reported[st.Unit] = st
		}
	}
}

// client gives a client of machine n.
func (r *rig) client(n int) *Client {
	r.t.Helper()
	c, err := NewClient([]string{"http://" + r.boxes[n-1].addr}, ClientOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// do makes a request of machine 1 as its local socket would, and gives the answer.
func (r *rig) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	return ask(r.boxes[0].srv.Handler(Local), method, path, body, header...)
}

// ask makes a request of h. header is a list of names and values.
func ask(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host = "127.0.0.1:7700"
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// decode reads the JSON of an answer.
func decode[T any](t *testing.T, body io.Reader) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// until waits for what f says, or fails after 10 s.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// hello is a unit file that every machine can run.
const hello = "[Service]\nExecStart=/bin/sleep 1000\n"
