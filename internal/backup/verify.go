package backup

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
	"flota/internal/store/etcd"
)

// Report is what a backup was found to hold.
type Report struct {
	Manifest Manifest `json:"manifest"`
	Census   Census   `json:"census"`
	Snapshot int64    `json:"snapshot"` // bytes of the store's database
}

// Verify reads a backup, restores it into a directory of its own below scratch ("" is the system's for temporary files), starts
// a store there that nobody can reach, and compares everything that it lists with the census. The directory is removed again.
// fault.Invalid with what is wrong for a backup that is not good; fault.Denied for missing or wrong keys.
func Verify(ctx context.Context, r io.Reader, k Keys, scratch string) (rep Report, err error) {
	dir, err := os.MkdirTemp(scratch, "flota-verify-*")
	if err != nil {
		return rep, fault.Wrap(fault.Internal, err, "verify the backup: make a scratch directory")
	}
	defer func() {
		if rm := os.RemoveAll(dir); rm != nil && err == nil {
			err = fault.Wrap(fault.Internal, rm, "verify the backup: remove the scratch directory")
		}
	}()
	file := filepath.Join(dir, "snapshot")
	c, err := k.receive(ctx, r, file)
	rep = Report{Manifest: c.Manifest, Census: c.Census, Snapshot: c.size}
	if err != nil {
		return rep, err
	}
	data := filepath.Join(dir, storeDir)
	m := member{name: "verify", peer: url.URL{Scheme: "http", Host: nowhere}, token: "verify"}
	if err := unpack(file, data, m); err != nil {
		return rep, fault.Wrap(fault.Invalid, err, "the backup does not make a store")
	}
	if err := os.Remove(file); err != nil { // room for what follows
		return rep, fault.Wrap(fault.Internal, err, "verify the backup")
	}
	err = alone(ctx, data, m.name, slog.New(slog.DiscardHandler), func(ctx context.Context, _ *etcd.Node, cl *clientv3.Client) error {
		found, err := countStore(ctx, cl, c.Census.Revision+bump)
		if err != nil {
			return fault.Wrap(fault.KindOf(err), err, "verify the backup: list the restored store")
		}
		if d := c.Census.diff(found); d != "" {
			return fault.New(fault.Invalid, "the backup is not what it says: restored it has %s", d)
		}
		return nil
	})
	return rep, err
}

// pageKeys is how many keys are read at once: 200, so that even with the largest values of 1.5 MiB a page stays in memory.
const pageKeys = 200

// countStore makes the census of a running store as it was at revision rev: leases that end meanwhile change nothing of that.
func countStore(ctx context.Context, c *clientv3.Client, rev int64) (Census, error) {
	count := newCounter()
	for from := "\x00"; ; {
		resp, err := c.Get(ctx, from, clientv3.WithFromKey(), clientv3.WithLimit(pageKeys), clientv3.WithRev(rev))
		if err != nil {
			return Census{}, err
		}
		for _, p := range resp.Kvs {
			count.add(p)
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return count.census(), nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
