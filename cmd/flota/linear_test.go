package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

// How TestLinearizable works: long enough that each of three voters is killed and is back while clients go on.
const (
	registers = 6                       // that are written and read; fewer make histories whose check takes long
	pace      = 15 * time.Millisecond   // between two operations of a client
	opWait    = 3 * time.Second         // for one; an election takes up to 1.5 s
	lockWait  = 12 * time.Second        // for a lock: longer than a session of somebody who died
	lockTTL   = 8                       // seconds; longer than any machine is away for a client
	quiet     = 2500 * time.Millisecond // between a kill and the next, and before the first
)

// workers do things at one machine, as an application there does.
type workers struct {
	t      *testing.T
	ctx    context.Context // ends when the work is to end
	hard   context.Context // ends some time after
	c      *clientv3.Client
	h      *history
	client int
	name   string
}

// TestLinearizable has etcd's own client and its concurrency package work at every machine, the one without a voter too, while the agents of
// all voters are killed one after the other and come back; then one order of all that was done has to explain what every client saw: nothing that
// was acknowledged is lost, nothing is seen that was not written, and nobody holds a lock or leads with another.
func TestLinearizable(t *testing.T) {
	dir, env, base := docCluster(t, "-n", "4")
	hard, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	ctx, cancel := context.WithCancel(hard)
	defer cancel()
	h := &history{began: time.Now()}
	var all sync.WaitGroup
	n := 0
	for m := 1; m <= 4; m++ {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{fmt.Sprintf("%s.%d:2379", base, m)}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, do := range []func(*workers){(*workers).registers, (*workers).registers, (*workers).counter, (*workers).mutex, (*workers).mutex, (*workers).election} {
			n++
			w := &workers{t: t, ctx: ctx, hard: hard, c: c, h: h, client: n, name: fmt.Sprintf("m%d-%d", m, n)}
			all.Go(func() { do(w) })
		}
	}
	for _, m := range []string{"m1", "m2", "m3"} {
		rest(ctx, quiet)
		killAgent(t, dir, m)
		rest(ctx, time.Second)
		c := exec.Command("flota", "dev", "start", m)
		c.Env = env
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("start %s: %v\n%s", m, err, out)
		}
	}
	for rest(ctx, quiet); !h.enough() && hard.Err() == nil; rest(ctx, quiet/10) { // on a busy host it takes longer
	}
	cancel()
	all.Wait()
	report(t, h)
}

// killAgent ends a machine's agent as a crash would.
func killAgent(t testing.TB, dir, machine string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "c", machine, "agent.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// rest lets time pass.
func rest(ctx context.Context, d time.Duration) {
	tm := time.NewTimer(d)
	defer tm.Stop()
	select {
	case <-tm.C:
	case <-ctx.Done():
	}
}

// report checks the history, and that there is one.
func report(t *testing.T, h *history) {
	t.Helper()
	did, failed := map[string]int{}, 0
	for _, o := range h.all {
		did[o.Input.(asked).do]++
		if !o.Output.(answered).known {
			failed++
		}
	}
	began := time.Now()
	got := linearizable(h.all)
	t.Logf("%d operations (%v), %d of unknown end, over %s; checked in %s", len(h.all), did, failed, h.now().Round(time.Second), time.Since(began).Round(time.Millisecond))
	if got != porcupine.Ok {
		for _, part := range rules.Partition(h.all) {
			if r := linearizable(part); r != porcupine.Ok {
				t.Errorf("%s: %s, of %d operations", part[0].Input.(asked).thing, r, len(part))
			}
		}
	}
	if !h.enough() {
		t.Errorf("only %v", did)
	}
}

// op asks for one thing and notes it. do gives what came of it; with an error that is not known, unless the request cannot have been sent.
func (w *workers) op(in asked, do func(ctx context.Context) (answered, error)) error {
	ctx, cancel := context.WithTimeout(w.hard, opWait)
	defer cancel()
	call := w.h.now()
	out, err := do(ctx)
	end := w.h.now()
	if err == nil {
		out.known = true
	} else if in.do == "get" {
		return err
	} else {
		out = answered{}
	}
	w.h.add(w.client, in, out, call, end)
	return err
}

// recover waits until the machine answers again, so that operations of unknown end stay few: each makes the check harder.
func (w *workers) recover() {
	for w.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(w.ctx, opWait)
		_, err := w.c.Get(ctx, "/lin/none")
		cancel()
		if err == nil {
			return
		}
		rest(w.ctx, 50*time.Millisecond)
	}
}

// registers reads, writes and swaps values.
func (w *workers) registers() {
	for n := 0; w.ctx.Err() == nil; n++ {
		key, value := fmt.Sprint("/lin/r", rand.IntN(registers)), fmt.Sprint(w.name, "-", n)
		var seen string
		err := w.op(asked{do: "get", thing: key}, func(ctx context.Context) (answered, error) {
			resp, err := w.c.Get(ctx, key)
			if err == nil && len(resp.Kvs) > 0 {
				seen = string(resp.Kvs[0].Value)
			}
			return answered{value: seen}, err
		})
		switch {
		case err != nil:
		case seen == "" || rand.IntN(3) == 0:
			err = w.op(asked{do: "put", thing: key, value: value}, func(ctx context.Context) (answered, error) {
				_, err := w.c.Put(ctx, key, value)
				return answered{}, err
			})
		case rand.IntN(3) == 0:
			err = w.op(asked{do: "swap", thing: key, want: seen, value: value}, func(ctx context.Context) (answered, error) {
				resp, err := w.c.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", seen)).Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
				if err != nil || resp.Succeeded {
					return answered{yes: true}, err
				}
				return answered{value: string(resp.Responses[0].GetResponseRange().Kvs[0].Value)}, nil
			})
		}
		if err != nil {
			w.recover()
		}
		rest(w.ctx, pace)
	}
}

// counter adds 1 in a software transaction.
func (w *workers) counter() {
	for w.ctx.Err() == nil {
		err := w.op(asked{do: "add", thing: "/lin/stm"}, func(ctx context.Context) (answered, error) {
			var next string
			_, err := concurrency.NewSTM(w.c, func(s concurrency.STM) error {
				n, _ := strconv.Atoi(s.Get("/lin/stm")) // "" is 0
				next = strconv.Itoa(n + 1)
				s.Put("/lin/stm", next)
				return nil
			}, concurrency.WithAbortContext(ctx))
			return answered{value: next}, err
		})
		if err != nil {
			w.recover()
		}
		rest(w.ctx, pace)
	}
}

// mutex holds a lock, and while it does adds 1 to a counter by reading and writing, as programs do it that want more than advice: the
// write holds only while the lock does.
func (w *workers) mutex() {
	w.sessions(func(s *concurrency.Session, n int) error {
		m := concurrency.NewMutex(s, "/lin/lock")
		take := func(ctx context.Context) error { return m.Lock(ctx) }
		return w.holding(s, "/lin/lock", fmt.Sprint(w.name, "-", n), take, m.Unlock, func() error {
			var have, next string
			err := w.op(asked{do: "get", thing: "/lin/locked"}, func(ctx context.Context) (answered, error) {
				resp, err := w.c.Get(ctx, "/lin/locked")
				if err == nil && len(resp.Kvs) > 0 {
					have = string(resp.Kvs[0].Value)
				}
				return answered{value: have}, err
			})
			if err != nil {
				return err
			}
			k, _ := strconv.Atoi(have) // "" is 0
			next = strconv.Itoa(k + 1)
			return w.op(asked{do: "add", thing: "/lin/locked"}, func(ctx context.Context) (answered, error) {
				resp, err := w.c.Txn(ctx).If(m.IsOwner()).Then(clientv3.OpPut("/lin/locked", next)).Commit()
				if err == nil && !resp.Succeeded {
					err = errors.New("the lock was lost")
				}
				return answered{value: next}, err
			})
		})
	})
}

// election leads for a moment.
func (w *workers) election() {
	w.sessions(func(s *concurrency.Session, n int) error {
		who := fmt.Sprint(w.name, "-", n)
		e := concurrency.NewElection(s, "/lin/leader")
		take := func(ctx context.Context) error { return e.Campaign(ctx, who) }
		return w.holding(s, "/lin/leader", who, take, e.Resign, func() error {
			ctx, cancel := context.WithTimeout(w.hard, opWait)
			defer cancel()
			resp, err := e.Leader(ctx)
			if err != nil {
				return err
			}
			if string(resp.Kvs[0].Key) == e.Key() && string(resp.Kvs[0].Value) != who {
				w.t.Errorf("%s leads and is seen as %s", who, resp.Kvs[0].Value)
			}
			return nil
		})
	})
}

// sessions runs do again and again in a session, a new one after an error.
func (w *workers) sessions(do func(s *concurrency.Session, n int) error) {
	for n := 0; w.ctx.Err() == nil; {
		ctx, cancel := context.WithCancel(w.hard)
		s, err := concurrency.NewSession(w.c, concurrency.WithTTL(lockTTL), concurrency.WithContext(ctx))
		for ; err == nil && w.ctx.Err() == nil; n++ {
			err = do(s, n)
			rest(w.ctx, pace)
		}
		if s != nil {
			_ = s.Close() // or its lease ends by itself
		}
		cancel()
		w.recover()
	}
}

// holding takes a lock, does what is to be done and gives it back, and notes from when to when it was held. If the session ended before, it is
// not known since when it was not held any more.
func (w *workers) holding(s *concurrency.Session, lock, who string, take, give func(context.Context) error, during func() error) error {
	ctx, cancel := context.WithTimeout(w.ctx, lockWait)
	defer cancel()
	call := w.h.now()
	if err := take(ctx); err != nil {
		return err // nobody believes to hold it
	}
	held := w.h.now()
	w.h.add(w.client, asked{do: "hold", thing: lock, value: who}, answered{known: true}, call, held)
	err := during()
	free := w.h.now()
	select {
	case <-s.Done():
		free = held
	default:
	}
	ctx, cancel = context.WithTimeout(w.hard, opWait)
	defer cancel()
	gone := give(ctx)
	w.h.add(w.client, asked{do: "free", thing: lock, value: who}, answered{known: gone == nil && free != held}, free, w.h.now())
	return errors.Join(err, gone)
}
