package keys

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"flota/internal/store"
)

// TestChurn writes large values over and over: applications are refused before the store is full, the cluster's own writes never are, and
// giving up history makes room again.
func TestChurn(t *testing.T) {
	b := newBed(t, 1, false, nil)
	b.kill(0)
	b.boxes[0].opts.QuotaBytes = 32 << 20
	b.start(0)
	ctx, u := patientCtx(t), b.boxes[0].front.guard.usage
	raw := v3client.New(b.boxes[0].node.Server())
	defer raw.Close()
	c, value, now := b.dial(0), strings.Repeat("x", 1<<20), time.Now()
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = c.Put(ctx, "same", value)
		b.boxes[0].node.Server().Backend().ForceCommit() // so that its size is known
	}
	if err == nil || !contains(err.Error(), "the store with its history takes") {
		t.Fatalf("writing on and on gives %v", err)
	}
	for i := range 5 {
		if _, _, err := b.boxes[0].node.KV().Commit(ctx, store.Txn{Then: []store.Op{{Key: fmt.Sprint("flota/", i), Value: []byte("x")}}}); err != nil {
			t.Fatalf("the cluster's own key: %v", err)
		}
	}
	var h history
	u.relieve(ctx, raw, &h, now.Add(-time.Minute))
	u.relieve(ctx, raw, &h, now)
	for {
		_, err := c.Put(ctx, "same", value)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("after the history was given up: %v", err)
		}
		b.boxes[0].node.Server().Backend().ForceCommit()
	}
	if _, err := c.Get(ctx, "same", clientv3.WithRev(5)); err == nil {
		t.Error("the history is still there")
	}
}

// TestHistory asks for the newest revision of a certain age.
func TestHistory(t *testing.T) {
	var h history
	at := time.Unix(1000, 0)
	if rev := h.before(at, time.Second); rev != 0 {
		t.Errorf("without any moment: %d", rev)
	}
	for i := range 10 {
		h.marks = append(h.marks, moment{at.Add(time.Duration(i) * time.Second), int64(i + 1)})
	}
	for _, c := range []struct {
		keep time.Duration
		want int64
	}{{time.Minute, 0}, {9 * time.Second, 1}, {3500 * time.Millisecond, 6}, {0, 10}} {
		if rev := h.before(at.Add(9*time.Second), c.keep); rev != c.want {
			t.Errorf("%s ago: %d, want %d", c.keep, rev, c.want)
		}
	}
}
