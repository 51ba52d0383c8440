package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// changes is how many are made for one figure.
const changes = 10_000

// BenchmarkWatchDelay tells how long a change that is made at machine 1 takes until it is seen by a watch at machine 3, and by one at
// machine 4, which has no voter: p50, p99 and worst, in milliseconds, from before the request to the event. Changes are made one after the other;
// once with nothing else to do, once while machine 2 is killed and comes back again and again, with and without being the leader.
func BenchmarkWatchDelay(b *testing.B) {
	for _, kill := range []bool{false, true} {
		b.Run(map[bool]string{false: "idle", true: "machine-killed"}[kill], func(b *testing.B) {
			dir, env, base := docCluster(b, "-n", "4")
			for b.Loop() { // once: it takes longer than a second
				ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
				sent, kills := &times{}, 0
				var all, killer sync.WaitGroup
				seen := map[int]*times{3: {}, 4: {}}
				done := make(chan struct{})
				for m, s := range seen {
					watch(b, ctx, base, m, s, &all)
				}
				if kill {
					killer.Go(func() { kills = killAgain(b, ctx, dir, env, done) })
				}
				failed := write(b, ctx, base, sent)
				close(done)
				all.Wait()
				killer.Wait()
				cancel()
				for m, s := range seen {
					s.report(b, sent, fmt.Sprintf("m%d", m))
				}
				b.ReportMetric(float64(failed), "failed-puts")
				b.ReportMetric(float64(kills), "kills")
				b.ReportMetric(load(), "load")
			}
		})
	}
}

// times are moments by number. Safe for concurrent use.
type times struct {
	mu sync.Mutex // guards the field below
	at [changes]time.Time
}

func (x *times) set(i int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at[i] = time.Now()
}

// report gives how much later these are.
func (x *times) report(b *testing.B, than *times, name string) {
	var took []time.Duration
	for i := range x.at {
		took = append(took, x.at[i].Sub(than.at[i]))
	}
	slices.Sort(took)
	for unit, i := range map[string]int{"p50": changes / 2, "p99": changes * 99 / 100, "worst": changes - 1} {
		b.ReportMetric(float64(took[i].Microseconds())/1000, name+"-"+unit+"-ms")
	}
}

// load is how many programs wanted to run at once on this host in the last minute: figures of a busy one say more of the others than of us.
func load() float64 {
	b, _ := os.ReadFile("/proc/loadavg") // 0: not known
	first, _, _ := strings.Cut(string(b), " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
}

// putWait is how long a put is waited for: one whose leader dies at that moment may be lost, and nobody says so.
const putWait = 2 * time.Second

// at gives a client of one machine.
func at(b *testing.B, base string, machine int) *clientv3.Client {
	b.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{fmt.Sprintf("%s.%d:2379", base, machine)}, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// watch notes when each change is seen at a machine, until the last one is.
func watch(b *testing.B, ctx context.Context, base string, machine int, s *times, all *sync.WaitGroup) {
	events := at(b, base, machine).Watch(ctx, "/delay", clientv3.WithCreatedNotify())
	if r := <-events; !r.Created {
		b.Fatalf("m%d: %+v", machine, r)
	}
	all.Go(func() {
		for r := range events {
			for _, e := range r.Events {
				i, err := strconv.Atoi(string(e.Kv.Value))
				if err != nil {
					b.Error(err)
					return
				}
				if s.set(i); i == changes-1 {
					return
				}
			}
		}
		b.Errorf("m%d: the watch ended", machine)
	})
}

// write makes the changes at machine 1. One that fails is made again, and counts from its first try.
func write(b *testing.B, ctx context.Context, base string, sent *times) (failed int) {
	c := at(b, base, 1)
	for i := range changes {
		sent.set(i)
		for {
			try, cancel := context.WithTimeout(ctx, putWait)
			_, err := c.Put(try, "/delay", strconv.Itoa(i))
			cancel()
			if err == nil {
				break
			}
			if failed++; ctx.Err() != nil {
				b.Fatal(err)
			}
		}
	}
	return failed
}

// killAgain kills machine 2 and brings it back, with some seconds in between, until done; it gives how often.
func killAgain(b *testing.B, ctx context.Context, dir string, env []string, done <-chan struct{}) (n int) {
	for ; ; n++ {
		select {
		case <-done:
			return n
		case <-time.After(3 * time.Second):
		}
		killAgent(b, dir, "m2")
		rest(ctx, 2*time.Second)
		c := exec.Command("flota", "dev", "start", "m2")
		c.Env = env
		if out, err := c.CombinedOutput(); err != nil {
			b.Errorf("start m2: %v\n%s", err, out)
			return n
		}
	}
}
