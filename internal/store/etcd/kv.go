package etcd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
	"flota/internal/store"
)

// Deadlines of calls whose ctx has none. Reads 1.5 s, writes 3 s: a leader is elected within 1.0 to 1.5 s, and a write
// may have to wait for that and then for a slow disk.
const (
	readWait  = 1500 * time.Millisecond
	writeWait = 3 * time.Second
)

// noLeaderPause is the pause before a voter without a leader, or another voter, is asked again.
const noLeaderPause = 50 * time.Millisecond

// kv is store.KV over an etcd client.
type kv struct {
	c      *clientv3.Client
	status statusFunc
	grant  grantFunc
	gate   func(context.Context) error // waits for a leader before a call; nil: the voters are told to refuse without one
	guard  func(func() error) error    // does a call; nil: nothing can go wrong but what the call says
	lost   func() error                // says why no voter can be asked at all; nil: always one can
	base   context.Context             // ends with Close
	end    context.CancelFunc

	forgets bool // the engine may be one of those that kept is about

	mu     sync.Mutex // guards closed, and calls.Add against calls.Wait
	closed bool
	calls  sync.WaitGroup // calls and watches that run
}

// statusFunc asks one voter that can be reached how it is. clientv3's own Status waits for the voter it is given, dead or not.
type statusFunc func(context.Context) (*pb.StatusResponse, error)

// grantFunc grants a lease with the given ID. clientv3's own Grant leaves the choice of the ID to the server.
type grantFunc func(ctx context.Context, id, seconds int64) error

func newKV(c *clientv3.Client, status statusFunc, grant grantFunc, gate func(context.Context) error) *kv {
	base, end := context.WithCancel(context.Background())
	return &kv{c: c, status: status, grant: grant, gate: gate, base: base, end: end}
}

// Close ends all calls and watches and waits for them.
func (k *kv) Close() error {
	k.mu.Lock()
	was := k.closed
	k.closed = true
	k.mu.Unlock()
	k.end()
	k.calls.Wait()
	if was {
		return nil
	}
	if err := k.c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fault.Wrap(fault.Internal, err, "close the client of the store")
	}
	return nil
}

// begin starts a call: its context ends with Close too, and after wait if it has no deadline (wait 0: never). done must be called.
func (k *kv) begin(ctx context.Context, wait time.Duration) (run context.Context, done func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, nil, fault.New(fault.Unavailable, "the store's client is closed")
	}
	if err := ctx.Err(); err != nil && wait > 0 {
		// etcd would still propose a write whose caller has gone.
		return nil, nil, fault.Wrap(fault.Unavailable, err, "the call had ended before it began")
	}
	if k.lost != nil {
		if err := k.lost(); err != nil {
			return nil, nil, err
		}
	}
	k.calls.Add(1)
	var cancel context.CancelFunc
	if _, ok := ctx.Deadline(); ok || wait == 0 {
		run, cancel = context.WithCancel(ctx)
	} else {
		run, cancel = context.WithTimeout(ctx, wait)
	}
	stop := context.AfterFunc(k.base, cancel)
	return run, func() {
		stop()
		cancel()
		k.calls.Done()
	}, nil
}

// do makes a call under the guard, if there is one.
func (k *kv) do(call func() error) error {
	if k.guard == nil {
		return call()
	}
	return k.guard(call)
}

// ask makes one call that needs a leader. A voter that says it has none, or that it is just handing over, has done nothing, so it, or another, is
// asked again for a while.
func (k *kv) ask(ctx context.Context, call func(context.Context) error) error {
	if k.gate == nil {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	for until := time.Now().Add(leaderWait); ; {
		if k.gate != nil {
			if err := k.gate(ctx); err != nil {
				return err
			}
		}
		err := k.do(func() error { return call(ctx) })
		if !notNow(err) || time.Now().After(until) {
			return err
		}
		pause := time.NewTimer(noLeaderPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// dropped is what raft says of a write that it has not taken, because the leadership is being handed over; etcd has no error for it.
const dropped = "raft proposal dropped"

// notNow says whether the call has not been made, for want of a leader.
func notNow(err error) bool {
	return errors.Is(err, rpctypes.ErrNoLeader) || err != nil && strings.HasSuffix(err.Error(), dropped)
}

// Get implements store.KV.
func (k *kv) Get(ctx context.Context, key string, r store.Read) (store.Item, bool, error) {
	if key == "" {
		return store.Item{}, false, fault.New(fault.Invalid, "get of an empty key")
	}
	ctx, done, err := k.begin(ctx, readWait)
	if err != nil {
		return store.Item{}, false, err
	}
	defer done()
	resp, err := k.read(ctx, key, r)
	if err != nil {
		return store.Item{}, false, problem("get "+key, err)
	}
	if len(resp.Kvs) == 0 {
		return store.Item{}, false, nil
	}
	return item(resp.Kvs[0]), true, nil
}

// read is one range request as fresh as r says.
func (k *kv) read(ctx context.Context, key string, r store.Read, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var err error
	got := make(chan *clientv3.GetResponse, 1) // and not a variable: a guard may give up before the call does
	get := func(ctx context.Context) error {
		resp, err := k.c.Get(ctx, key, opts...)
		if err == nil {
			got <- resp
		}
		return err
	}
	if r.Stale {
		opts = append(opts, clientv3.WithSerializable())
		err = k.do(func() error { return get(ctx) })
	} else {
		err = k.ask(ctx, get)
	}
	if err != nil {
		return nil, err
	}
	return <-got, nil
}

// item turns etcd's form into ours.
func item(p *mvccpb.KeyValue) store.Item {
	it := store.Item{Key: string(p.Key), Value: p.Value, Rev: p.ModRevision, Created: p.CreateRevision, Lease: store.LeaseID(p.Lease)}
	if it.Value == nil {
		it.Value = []byte{}
	}
	return it
}

// Commit implements store.KV.
func (k *kv) Commit(ctx context.Context, t store.Txn) (rev int64, ok bool, err error) {
	if err := t.Check(); err != nil {
		return 0, false, err
	}
	ctx, done, err := k.begin(ctx, writeWait)
	if err != nil {
		return 0, false, err
	}
	defer done()
	got := make(chan *clientv3.TxnResponse, 1)
	err = k.ask(ctx, func(ctx context.Context) error {
		resp, err := k.c.Txn(ctx).If(conditions(t.If)...).Then(operations(t.Then)...).Commit()
		if err == nil {
			got <- resp
		}
		return err
	})
	if err != nil {
		return 0, false, problem("commit", err)
	}
	resp := <-got
	return resp.Header.Revision, resp.Succeeded, nil
}

func conditions(all []store.Cond) []clientv3.Cmp {
	out := make([]clientv3.Cmp, 0, len(all))
	for _, c := range all {
		if c.Created != 0 {
			out = append(out, clientv3.Compare(clientv3.CreateRevision(c.Key), "=", c.Created))
		} else {
			out = append(out, clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Rev))
		}
	}
	return out
}

// operations gives a read when there is nothing to do: etcd answers a transaction without any op from
// the local copy, but one with a linearizable read after asking the quorum.
func operations(all []store.Op) []clientv3.Op {
	if len(all) == 0 {
		return []clientv3.Op{clientv3.OpGet("\x00", clientv3.WithCountOnly())}
	}
	out := make([]clientv3.Op, 0, len(all))
	for _, op := range all {
		switch {
		case op.Value == nil:
			out = append(out, clientv3.OpDelete(op.Key))
		case op.Lease != 0:
			out = append(out, clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease))))
		default:
			out = append(out, clientv3.OpPut(op.Key, string(op.Value)))
		}
	}
	return slices.Clip(out)
}
