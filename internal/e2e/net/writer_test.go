package netbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// keysClient is an application's client of the keys on one machine, at 127.0.0.1:2379 there.
func (b *bed) keysClient(t *testing.T, i int) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"127.0.0.1:2379"}, DialTimeout: time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return b.dial(ctx, i, "tcp", addr)
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// writer is an application that writes one key after the other, each until it is acknowledged.
type writer struct {
	b      *bed
	prefix string
	stop   context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex // guards what follows
	at     int        // the machine that it runs on
	client *clientv3.Client
	acked  []string
	last   time.Time     // of the last acknowledgement
	worst  time.Duration // the longest time without one
}

// write writes keys PREFIX/000001 and on at a rate until stop, on machine at.
func (b *bed) write(t *testing.T, at int, prefix string, every time.Duration) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{b: b, prefix: prefix, stop: cancel, ended: make(chan struct{}), at: at, client: b.keysClient(t, at), last: time.Now()}
	go func() { // ends with ctx
		defer close(w.ended)
		for tick := time.NewTicker(every); ; {
			w.one(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.end()
		w.client.Close()
	})
	return w
}

// one writes the next key.
func (w *writer) one(ctx context.Context) {
	w.mu.Lock()
	client, key := w.client, fmt.Sprintf("%s/%06d", w.prefix, len(w.acked)+1)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := client.Put(ctx, key, "of "+key)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		return // again, later: writing it twice does no harm
	}
	w.acked = append(w.acked, key)
	w.worst = max(w.worst, time.Since(w.last))
	w.last = time.Now()
}

// moveTo goes on from another machine.
func (w *writer) moveTo(t *testing.T, i int) {
	t.Helper()
	fresh := w.b.keysClient(t, i)
	w.mu.Lock()
	old := w.client
	w.client, w.at = fresh, i
	w.mu.Unlock()
	old.Close()
}

// end stops writing and gives how many keys were acknowledged, and the longest time in which none was.
func (w *writer) end() (n int, worst time.Duration) {
	w.stop()
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked), w.worst
}

// count is how many keys were acknowledged so far.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// judge reads all keys from a machine and says which acknowledged ones are not there as they were written.
func (w *writer) judge(t *testing.T, i int) {
	t.Helper()
	c := w.b.keysClient(t, i)
	defer c.Close()
	var got *clientv3.GetResponse
	within(t, patience, "all keys", func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got, err = c.Get(ctx, w.prefix+"/", clientv3.WithPrefix())
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := judgeKeys(w.acked, got); err != nil {
		t.Error(err)
	}
}

// judgeKeys says which acknowledged keys are lost.
func judgeKeys(acked []string, got *clientv3.GetResponse) error {
	have := map[string]string{}
	for _, kv := range got.Kvs {
		have[string(kv.Key)] = string(kv.Value)
	}
	var errs []error
	for _, key := range acked {
		if have[key] != "of "+key && len(errs) < 10 {
			errs = append(errs, fmt.Errorf("acknowledged and lost: %s is %q", key, have[key]))
		}
	}
	if len(acked) == 0 {
		errs = append(errs, errors.New("nothing was ever acknowledged"))
	}
	return errors.Join(errs...)
}
