package keys

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.uber.org/zap"
)

// bare serves the embedded server of voter i as etcd does, without a front; it gives the address.
func (b *bed) bare(i int) string {
	b.t.Helper()
	gs := v3rpc.Server(b.boxes[i].node.Server(), nil, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = gs.Serve(l)
	}()
	b.t.Cleanup(func() { gs.Stop(); <-done })
	return l.Addr().String()
}

// BenchmarkFront compares 100 clients writing and reading through fronts with the same at the bare servers: three voters in this
// process, clients spread over them (or all at the machine without a member), values of 256 bytes.
func BenchmarkFront(b *testing.B) {
	bed := newBed(b, 3, true, nil)
	value := strings.Repeat("v", 256)
	ways := []struct {
		name  string
		addrs []string
	}{
		{"bare", []string{bed.bare(0), bed.bare(1), bed.bare(2)}},
		{"front", []string{bed.boxes[0].addr, bed.boxes[1].addr, bed.boxes[2].addr}},
		{"without-member", []string{bed.boxes[3].addr}},
	}
	for _, what := range []string{"put", "get", "half"} {
		for _, way := range ways {
			b.Run(what+"/"+way.name, func(b *testing.B) {
				var clients []*clientv3.Client
				for i := range 100 {
					c, err := clientv3.New(clientv3.Config{Endpoints: []string{way.addrs[i%len(way.addrs)]}, Logger: zap.NewNop()})
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					if _, err := c.Put(context.Background(), fmt.Sprint("bench/", i), value); err != nil {
						b.Fatal(err)
					}
					clients = append(clients, c)
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var all sync.WaitGroup
				for i, c := range clients {
					all.Go(func() {
						for n := left.Add(-1); n >= 0; n = left.Add(-1) {
							var err error
							if what == "put" || what == "half" && n%2 == 0 {
								_, err = c.Put(context.Background(), fmt.Sprint("bench/", i), value)
							} else {
								_, err = c.Get(context.Background(), fmt.Sprint("bench/", i))
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			})
		}
	}
}

// BenchmarkWatch tells how long a change at one machine takes to be seen at another: p50, p99 and worst, in microseconds.
func BenchmarkWatch(b *testing.B) {
	bed := newBed(b, 3, true, nil)
	for _, at := range []int{2, 3} {
		b.Run([]string{2: "voter", 3: "without-member"}[at], func(b *testing.B) {
			ctx := context.Background()
			writer, watcher := bed.dial(0), bed.dial(at)
			events := watcher.Watch(ctx, "latency", clientv3.WithCreatedNotify())
			<-events
			var took []time.Duration
			b.ResetTimer()
			for range b.N {
				began := time.Now()
				go func() { _, _ = writer.Put(ctx, "latency", "x") }()
				if r := <-events; r.Err() != nil {
					b.Fatal(r.Err())
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			for name, i := range map[string]int{"p50-µs": len(took) / 2, "p99-µs": len(took) * 99 / 100, "worst-µs": len(took) - 1} {
				b.ReportMetric(float64(took[i].Microseconds()), name)
			}
		})
	}
}

// BenchmarkIdleWatches tells what an idle watch costs, in bytes of memory in this process, its client's part among them.
func BenchmarkIdleWatches(b *testing.B) {
	bed := newBed(b, 1, false, nil)
	c := bed.dial(0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := inUse()
	b.ResetTimer()
	for i := range b.N {
		if r := <-c.Watch(ctx, fmt.Sprint("idle/", i), clientv3.WithCreatedNotify()); r.Err() != nil {
			b.Fatal(r.Err())
		}
	}
	b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/watch")
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
