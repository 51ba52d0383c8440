package keys

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flota/internal/store/etcd"
)

// usage knows how much the applications keep, by following their keys in this voter's copy. Made by newUsage, ended by the context of run.
type usage struct {
	limits Limits
	node   *etcd.Node
	leases pb.LeaseServer
	log    *slog.Logger

	bytes  atomic.Int64 // of all keys, as sizeOf counts
	grants atomic.Int64 // leases of applications
	seed   maphash.Seed

	mu    sync.Mutex        // guards the field below
	sizes map[uint64]uint32 // size of each key's entry by the key's hash; 64 bits, so that ten million keys collide once in 370,000 times
}

func newUsage(node *etcd.Node, l Limits, log *slog.Logger) *usage {
	return &usage{limits: l, node: node, leases: v3rpc.NewQuotaLeaseServer(node.Server()), log: log, seed: maphash.MakeSeed(), sizes: map[uint64]uint32{}}
}

// Parts of the store's own quota that applications may fill, with their keys and with their history until it is compacted. Beyond, they
// are refused so that the cluster's own writes go on: these stop at the whole. The file never shrinks while the member runs, so a large
// one counts only when it is not mostly free inside.
const (
	diskUsed  = 0.70 // bytes in use
	diskFile  = 0.85 // bytes of the file, if more than half of the quota is in use
	diskLimit = 0.95 // bytes of the file in any case
)

// admit refuses what would take the applications' keys over their quota, or grant too many leases: codes.ResourceExhausted. What reads or
// deletes is never refused.
func (u *usage) admit(req any) error {
	if _, ok := req.(*pb.LeaseGrantRequest); ok {
		if u.grants.Load() >= int64(u.limits.AllLeases) {
			return errLeases
		}
		return nil
	}
	n := added(req)
	if n == 0 {
		return nil
	}
	if have := u.bytes.Load(); have+n > u.limits.QuotaBytes {
		return status.Errorf(codes.ResourceExhausted,
			"etcdserver: mvcc: database space exceeded: the applications' keys take %s of their quota of %s; delete some, or raise it with flota up --keys-quota",
			mebibytes(have), mebibytes(u.limits.QuotaBytes))
	}
	if full := u.diskFull(); full != "" {
		return status.Errorf(codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded: %s; old values are given up after some minutes", full)
	}
	return nil
}

// diskFull says why nothing more may be written for applications, or "".
func (u *usage) diskFull() string {
	quota := float64(u.node.QuotaBytes())
	b := u.node.Server().Backend()
	file, used := b.Size(), b.SizeInUse()
	part, whole := float64(file)/quota, float64(used)/quota
	if whole > diskUsed || part > diskFile && whole > 0.5 || part > diskLimit {
		return fmt.Sprintf("the store with its history takes %s (%s in use) of %s", mebibytes(file), mebibytes(used), mebibytes(int64(quota)))
	}
	return ""
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Warning is what a person should know: that the quota is nearly used up, or "".
func (u *usage) warning() string {
	have, quota := u.bytes.Load(), u.limits.QuotaBytes
	if have >= quota/10*9 {
		return fmt.Sprintf("the applications' keys take %s, %d %% of their quota of %s", mebibytes(have), have*100/quota, mebibytes(quota))
	}
	if full := u.diskFull(); full != "" {
		return "applications cannot write keys: " + full
	}
	return ""
}

// again is the pause after the keys could not be followed; countEvery is how often leases are counted.
const again, countEvery = time.Second, 5 * time.Second

// run follows the keys until ctx ends.
func (u *usage) run(ctx context.Context) {
	c := v3client.New(u.node.Server())
	defer c.Close()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { u.count(ctx, c) })
	for ctx.Err() == nil {
		err := u.follow(ctx, c)
		if ctx.Err() != nil {
			return
		}
		u.log.Debug("the applications' keys cannot be followed; trying again", "err", err)
		pause(ctx, again)
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// follow reads all keys' sizes and then their changes until that fails. What may be wrong for a moment is made good by the next reading.
func (u *usage) follow(ctx context.Context, c *clientv3.Client) error {
	fresh := map[uint64]uint32{}
	var sum int64
	rev, err := u.readAll(ctx, c, func(kv *mvccpb.KeyValue) {
		n := sizeOf(outside(kv.Key), kv.Value)
		fresh[maphash.Bytes(u.seed, kv.Key)] = uint32(n)
		sum += n
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.sizes = fresh
	u.mu.Unlock()
	u.bytes.Store(sum)
	return changes(ctx, u.node.Server(), []byte(space), []byte(spaceEnd), rev+1, func(r mvcc.WatchResponse) error {
		if r.CompactRevision != 0 {
			return rpctypes.ErrCompacted
		}
		u.apply(r.Events)
		return nil
	})
}

// page is how many keys are read at once at first, pageBytes what the next pages may hold about.
const page, pageBytes = 100, 4 << 20

// readAll gives every key of the space to each, page by page, as of the revision that it returns.
func (u *usage) readAll(ctx context.Context, c *clientv3.Client, each func(*mvccpb.KeyValue)) (rev int64, err error) {
	from, limit, bytes, n := space, int64(page), 0, 0
	for {
		resp, err := c.Get(ctx, from, clientv3.WithRange(spaceEnd), clientv3.WithLimit(limit), clientv3.WithRev(rev), clientv3.WithSerializable())
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			each(kv)
			bytes, n = bytes+len(kv.Key)+len(kv.Value), n+1
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return rev, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		limit = int64(min(max(pageBytes/(bytes/n+1), 1), 5000))
	}
}

func (u *usage) apply(events []*mvccpb.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var change int64
	for _, e := range events {
		h := maphash.Bytes(u.seed, e.Kv.Key)
		change -= int64(u.sizes[h])
		if e.Type == mvccpb.Event_DELETE {
			delete(u.sizes, h)
			continue
		}
		n := sizeOf(outside(e.Kv.Key), e.Kv.Value)
		u.sizes[h] = uint32(n)
		change += n
	}
	u.bytes.Add(change)
}

// count counts the applications' leases, and looks after the history, until ctx ends.
func (u *usage) count(ctx context.Context, c *clientv3.Client) {
	var h history
	for ctx.Err() == nil {
		resp, err := u.leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		if err == nil {
			reveal(resp)
			u.grants.Store(int64(len(resp.Leases)))
		}
		if u.node.Leads() {
			u.relieve(ctx, c, &h, time.Now())
		}
		pause(ctx, countEvery)
	}
}
