package etcd

import (
	"context"
	"crypto/sha256"
	"io"

	"flota/internal/fault"
	"flota/internal/store"
)

// snapshotTries is how often a snapshot is taken until nothing was written meanwhile, so that its revision is known exactly.
const snapshotTries = 20

// Snapshot writes the whole database of this member as it is at one moment, and then its SHA-256, which is the form that etcdutl restores and
// verifies. rev is the revision it holds at least, and exactly unless writes come without a pause. With a quorum every acknowledged write is in it; without
// one, what this member has. Writes go on meanwhile, but the space they free is not used again until w has everything. fault.Unavailable when
// ctx ends first.
func (n *Node) Snapshot(ctx context.Context, w io.Writer) (rev int64, err error) {
	run, done, err := n.kv.begin(ctx, 0)
	if err != nil {
		return 0, err
	}
	defer done()
	_, _, _ = n.kv.Get(run, "x", store.Read{}) // catches up, if it can
	got := make(chan int64, 1)
	err = n.guard(func() error {
		s := n.etcd.Server
		rev := s.KV().Rev()
		snap := s.Backend().Snapshot()
		for range snapshotTries {
			now := s.KV().Rev()
			if now == rev {
				break
			}
			_ = snap.Close()
			rev = now
			snap = s.Backend().Snapshot()
		}
		defer snap.Close()
		sum := sha256.New()
		if _, err := snap.WriteTo(io.MultiWriter(&until{run, w}, sum)); err != nil {
			return err
		}
		if _, err := w.Write(sum.Sum(nil)); err != nil {
			return err
		}
		got <- rev
		return nil
	})
	if err := run.Err(); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "copy the store")
	}
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "copy the store")
	}
	return <-got, nil
}

// until is a writer that ends with a context.
type until struct {
	ctx context.Context
	w   io.Writer
}

// Write implements io.Writer.
func (u *until) Write(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}
