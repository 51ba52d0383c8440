package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// during kills voter i and brings it back while work runs.
func (b *bed) during(i int, work func()) {
	b.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	wait := func(d time.Duration) {
		select {
		case <-done:
		case <-time.After(d):
		}
	}
	wait(500 * time.Millisecond)
	b.kill(i)
	wait(time.Second)
	b.start(i)
	<-done
}

// TestConcurrencyUnderKill has etcd's own mutex, STM and election work at every machine while one voter dies and comes back: nothing that
// was acknowledged is lost, and nobody holds a lock with another.
func TestConcurrencyUnderKill(t *testing.T) {
	b := newBed(t, 3, true, nil)
	ctx := patientCtx(t)
	var locked, transferred atomic.Int64
	until := time.Now().Add(4 * time.Second)
	b.during(0, func() {
		var all sync.WaitGroup
		for i := range b.boxes {
			c := b.dial(i)
			all.Go(func() { increments(t, ctx, c, until, &locked) })
			all.Go(func() { transfers(t, ctx, c, until, &transferred) })
			all.Go(func() { elections(t, ctx, c, fmt.Sprint("m", i+1)) })
		}
		all.Wait()
	})
	c := b.dial(1)
	got := number(t, ctx, c, "counter")
	if n := locked.Load(); got < n || n == 0 {
		t.Errorf("the counter is %d after %d acknowledged increments under a lock", got, n)
	}
	sum := number(t, ctx, c, "accounts/0") + number(t, ctx, c, "accounts/1")
	if n := transferred.Load(); sum != 0 || n == 0 {
		t.Errorf("two accounts that began with nothing hold %d together after %d transfers", sum, n)
	}
	t.Logf("%d increments, %d transfers", locked.Load(), transferred.Load())
}

// number reads a number; 0 if it is not there.
func number(t *testing.T, ctx context.Context, c *clientv3.Client, key string) int64 {
	t.Helper()
	resp, err := c.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(resp.Kvs[0].Value), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// increments adds 1 to a counter under a mutex, by reading and writing: two at once would lose one. The write holds only while the lock
// does, as programs must do it that want more than advice.
func increments(t *testing.T, ctx context.Context, c *clientv3.Client, until time.Time, n *atomic.Int64) {
	for (time.Now().Before(until) || n.Load() == 0) && ctx.Err() == nil {
		func() {
			s, err := concurrency.NewSession(c, concurrency.WithTTL(5), concurrency.WithContext(ctx))
			if err != nil {
				return
			}
			defer s.Close()
			m := concurrency.NewMutex(s, "lock")
			try, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			if m.Lock(try) != nil {
				return
			}
			defer func() { _ = m.Unlock(try) }()
			resp, err := c.Get(try, "counter")
			if err != nil {
				return
			}
			have := int64(0)
			if len(resp.Kvs) > 0 {
				have, _ = strconv.ParseInt(string(resp.Kvs[0].Value), 10, 64)
			}
			done, err := c.Txn(try).If(m.IsOwner()).Then(clientv3.OpPut("counter", fmt.Sprint(have+1))).Commit()
			if err == nil && done.Succeeded {
				n.Add(1)
			}
		}()
	}
}

// transfers moves 1 from one account to the other in a software transaction.
func transfers(t *testing.T, ctx context.Context, c *clientv3.Client, until time.Time, n *atomic.Int64) {
	for i := 0; (time.Now().Before(until) || n.Load() == 0) && ctx.Err() == nil; i++ {
		from, to := fmt.Sprint("accounts/", i%2), fmt.Sprint("accounts/", (i+1)%2)
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
			a, _ := strconv.Atoi(s.Get(from)) // "" is 0
			z, _ := strconv.Atoi(s.Get(to))
			s.Put(from, fmt.Sprint(a-1))
			s.Put(to, fmt.Sprint(z+1))
			return nil
		}, concurrency.WithAbortContext(try))
		cancel()
		if err == nil {
			n.Add(1)
		}
	}
}

// elections wins once, is seen to lead, and resigns.
func elections(t *testing.T, ctx context.Context, c *clientv3.Client, name string) {
	for ctx.Err() == nil {
		err := func() error {
			s, err := concurrency.NewSession(c, concurrency.WithTTL(5), concurrency.WithContext(ctx))
			if err != nil {
				return err
			}
			defer s.Close()
			e := concurrency.NewElection(s, "election")
			try, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if err := e.Campaign(try, name); err != nil {
				return err
			}
			resp, err := e.Leader(try)
			if err != nil {
				return err
			}
			if v := string(resp.Kvs[0].Value); v != name && string(resp.Kvs[0].Key) == e.Key() {
				t.Errorf("%s leads and %s is seen", name, v)
			}
			return e.Resign(try)
		}()
		if err == nil {
			return
		}
	}
	t.Errorf("%s never led", name)
}

// op is something that was done to the register, with when it began and ended.
type op struct {
	began, ended time.Duration
	write        bool
	value        string
	rev          int64 // of the write, or of the value that was read; 0: nothing was there
	head         int64 // revision of the store that answered
	unknown      bool  // whether it was done is not known
}

// TestRegisterUnderKill writes and reads a register at every machine while a voter dies. The revisions say in which order the writes
// happened; the history is linearizable if that order agrees with the clock: an operation that began after another had ended saw at least
// what that one saw, and a write came after it; and every read saw the value that the write of its revision wrote.
func TestRegisterUnderKill(t *testing.T) {
	b := newBed(t, 3, true, nil)
	ctx := patientCtx(t)
	var mu sync.Mutex
	var history []op
	var wrote, read atomic.Int64 // well
	begin := time.Now()
	enough := func() bool { return time.Since(begin) > 5*time.Second && wrote.Load() >= 50 && read.Load() >= 50 }
	b.during(1, func() {
		var all sync.WaitGroup
		for i := range b.boxes {
			c := b.dial(i)
			for w := range 3 {
				all.Go(func() {
					for n := 0; !enough() && ctx.Err() == nil; n++ {
						o := op{write: w == 0, value: fmt.Sprint(i, "-", n), began: time.Since(begin)}
						try, cancel := context.WithTimeout(ctx, 2*time.Second)
						once(try, c, &o)
						cancel()
						o.ended = time.Since(begin)
						if w == 0 && !o.unknown {
							wrote.Add(1)
						} else if o.rev != 0 {
							read.Add(1)
						}
						mu.Lock()
						history = append(history, o)
						mu.Unlock()
					}
				})
			}
		}
		all.Wait()
	})
	checkHistory(t, history)
}

func once(ctx context.Context, c *clientv3.Client, o *op) {
	if o.write {
		resp, err := c.Put(ctx, "register", o.value)
		if o.unknown = err != nil; !o.unknown {
			o.rev, o.head = resp.Header.Revision, resp.Header.Revision
		}
		return
	}
	resp, err := c.Get(ctx, "register")
	if o.unknown = err != nil; o.unknown {
		return
	}
	o.head, o.value = resp.Header.Revision, ""
	if len(resp.Kvs) > 0 {
		o.rev, o.value = resp.Kvs[0].ModRevision, string(resp.Kvs[0].Value)
	}
}

func checkHistory(t *testing.T, history []op) {
	t.Helper()
	wrote := map[int64]string{}
	maybe := map[string]bool{} // values of writes that may have happened
	reads, failed := 0, 0
	for _, o := range history {
		switch {
		case o.write && o.unknown:
			maybe[o.value] = true
			failed++
		case o.write:
			if v, two := wrote[o.rev]; two {
				t.Errorf("%q and %q both have revision %d", v, o.value, o.rev)
			}
			wrote[o.rev] = o.value
		}
	}
	var known []op
	for _, o := range history {
		if o.unknown {
			continue
		}
		known = append(known, o)
		if !o.write && o.rev != 0 {
			reads++
			if v, ok := wrote[o.rev]; ok && v != o.value || !ok && !maybe[o.value] {
				t.Errorf("a read saw %q at revision %d, where %q was written", o.value, o.rev, v)
			}
		}
	}
	// By when they ended, the highest revision that anybody had seen by then.
	slices.SortFunc(known, func(a, b op) int { return int(a.ended - b.ended) })
	seen := make([]int64, len(known))
	for i, o := range known {
		seen[i] = o.rev
		if i > 0 {
			seen[i] = max(seen[i], seen[i-1])
		}
	}
	for _, o := range known {
		i, _ := slices.BinarySearchFunc(known, o.began, func(k op, at time.Duration) int { return int(k.ended - at) })
		if i > 0 && (o.rev < seen[i-1] || o.write && o.rev == seen[i-1]) {
			t.Errorf("an operation at revision %d began after revision %d had been seen", o.rev, seen[i-1])
		}
	}
	if len(wrote) < 50 || reads < 50 {
		t.Errorf("only %d writes and %d reads", len(wrote), reads)
	}
	t.Logf("%d writes, %d reads, %d writes of unknown end", len(wrote), reads, failed)
}

// TestWatchUnderKill watches at the machine without a member while the voters die one after the other: each change comes once, in order.
func TestWatchUnderKill(t *testing.T) {
	b := newBed(t, 3, true, nil)
	ctx := patientCtx(t)
	watcher, writer := b.dial(3), b.dial(2)
	events := watcher.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-events; !r.Created {
		t.Fatalf("%+v", r)
	}
	var want []int64
	work := make(chan struct{})
	go func() {
		defer close(work)
		for i := range 600 {
			for ctx.Err() == nil {
				resp, err := writer.Put(ctx, fmt.Sprint("w/", i), "x")
				if err == nil {
					want = append(want, resp.Header.Revision)
					break
				}
			}
			pause(ctx, 5*time.Millisecond) // a pace, so that the voters die in the middle
		}
	}()
	b.during(0, func() {})
	b.during(1, func() { <-work })
	var got []int64
	for len(want) > 0 && (len(got) == 0 || got[len(got)-1] < want[len(want)-1]) {
		r, ok := <-events
		if !ok || r.Err() != nil {
			t.Fatalf("the watch ended: %v", r.Err())
		}
		for _, e := range r.Events {
			got = append(got, e.Kv.ModRevision)
		}
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Errorf("revision %d after %d", got[i], got[i-1])
		}
	}
	for _, rev := range want {
		if _, ok := slices.BinarySearch(got, rev); !ok {
			t.Errorf("revision %d was not seen", rev)
		}
	}
}

// TestNoQuorum: what needs one says so, the local copy answers marked as stale.
func TestNoQuorum(t *testing.T) {
	b := newBed(t, 3, true, nil)
	ctx := patientCtx(t)
	c := b.dial(0)
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.dial(3).Get(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	b.kill(1)
	b.kill(2)
	for b.boxes[0].node.Server().Leader() != 0 {
		select {
		case <-b.boxes[0].node.Server().LeaderChangedNotify():
		case <-time.After(10 * time.Millisecond): // losing the leader is told to nobody
		}
	}
	for _, i := range []int{0, 3} {
		for _, body := range []string{`{"key":"YQ=="}`, `{"key":"YQ==","serializable":true}`} {
			code, text, head := post(t, b.boxes[i].addr, "/v3/kv/range", body)
			stale := head.Get(StaleHeader)
			switch {
			case body == `{"key":"YQ=="}` && (code != 503 || !contains(text, "no leader") || stale != ""):
				t.Errorf("%d: a linearizable read gives %d %s, stale %q", i, code, text, stale)
			case body != `{"key":"YQ=="}` && (code != 200 || !contains(text, "MQ==") || stale != "true"):
				t.Errorf("%d: a serializable read gives %d %s, stale %q", i, code, text, stale)
			}
		}
		if code, text, _ := post(t, b.boxes[i].addr, "/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`); code != 503 || !contains(text, "no leader") {
			t.Errorf("%d: a put gives %d %s", i, code, text)
		}
	}
	try, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := c.Get(try, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read with a deadline gives %v", err)
	}
}
