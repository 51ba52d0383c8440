package backup

import (
	"context"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"flota/internal/fault"
	"flota/internal/store/etcd"
)

// nowhere is the address of a member that has no peers: on loopback, at whatever port is free.
const nowhere = "127.0.0.1:0"

// readyMax is how long a restored store may take to start: 5 minutes, for databases of some gigabytes on a slow disk.
const readyMax = 5 * time.Minute

// quotaBytes is higher than that of any cluster (2 GiB by default), so that the backup of a store that had used its own up can be restored: 16 GiB.
const quotaBytes = 16 << 30

// alone runs the restored store of dir, with nobody to talk to, for as long as use takes.
func alone(ctx context.Context, dir, name string, log *slog.Logger, use func(context.Context, *etcd.Node, *clientv3.Client) error) error {
	n, err := etcd.Start(ctx, etcd.Options{Dir: dir, Name: name, PeerAddr: nowhere, QuotaBytes: quotaBytes, Log: log})
	if err != nil {
		return err
	}
	defer n.Close()
	start, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	if err := n.Ready(start); err != nil {
		return err
	}
	c := v3client.New(n.Server())
	defer c.Close()
	if err := use(ctx, n, c); err != nil {
		return err
	}
	return fault.Wrap(fault.Unavailable, ctx.Err(), "restore the store")
}
