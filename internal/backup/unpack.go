package backup

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"flota/internal/fault"
)

// bump is how much the revision is raised by a restore: 10^9, more than a cluster writes in a year at 30 changes a second. Whoever
// watched the old cluster, from whatever revision, is told that it is compacted, lists again, and never sees time go backwards. Revisions
// have 63 bits: nine thousand million restores fit.
const bump = 1_000_000_000

// storeDir is the store's directory in a data directory. Source: room daemon.
const storeDir = "store"

// member is the one member of the store that a restore makes.
type member struct {
	name string
	peer url.URL
	// token goes into the IDs of the engine's cluster and member, so that members of the old cluster and of the new never take each
	// other for their own.
	token string
}

// receive reads the whole backup and leaves its snapshot, checked, in the file path.
func (k Keys) receive(ctx context.Context, r io.Reader, path string) (content, error) {
	in, err := k.open(ctx, r)
	if err != nil {
		return content{}, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return content{}, fault.Wrap(fault.Internal, err, "unpack the backup")
	}
	c, err := in.read(in.plain, f)
	if closed := f.Close(); err == nil && closed != nil {
		err = fault.Wrap(fault.Internal, closed, "unpack the backup")
	}
	return c, err
}

// unpack makes the directory of the store from a checked snapshot: a new cluster of one member, with its revision raised and
// everything before it compacted.
func unpack(from, dir string, m member) (err error) {
	defer func() {
		// etcd ends its process, or panics, on a database that it cannot open.
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "restore the store: %v", p)
		}
	}()
	quiet := zap.NewNop().WithOptions(zap.WithFatalHook(zapcore.WriteThenPanic))
	err = snapshot.NewV3(quiet).Restore(snapshot.RestoreConfig{
		SnapshotPath: from, OutputDataDir: dir, OutputWALDir: filepath.Join(dir, "member", "wal"),
		Name: m.name, PeerURLs: []string{m.peer.String()}, InitialCluster: fmt.Sprintf("%s=%s", m.name, m.peer.String()), InitialClusterToken: m.token,
		RevisionBump: bump, MarkCompacted: true,
	})
	return fault.Wrap(fault.Internal, err, "restore the store")
}
