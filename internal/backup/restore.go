package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/trust"
)

// RestoreOptions say what a restored cluster begins with. DataDir, Name, PeerAddr and Log are needed.
type RestoreOptions struct {
	DataDir  string     // of the first machine of the new cluster; absent or empty
	Machine  machine.ID // that machine's; "": a new one, as it is no machine of the old cluster
	Name     string     // that machine's
	PeerAddr string     // IP:port where its member of the store will be reached by others; the IP goes into its certificate
	// KeepMachines keeps the other machines' records and places: they still have their data directories, and come back by themselves.
	// Without it the cluster begins with the first machine alone: all others join anew, and units are placed again as machines come.
	KeepMachines bool
	// Files are further files of the data directory, by name, that appear together with it: what room daemon remembers of its machine.
	Files map[string][]byte
	// PlainPeers is for a store whose members talk without TLS, on loopback, as in tests.
	PlainPeers bool
	Log        *slog.Logger
}

func (o RestoreOptions) member(token string) (member, error) {
	if o.DataDir == "" || o.Log == nil {
		return member{}, fault.New(fault.Invalid, "restore: a data directory and a log are needed")
	}
	if err := machine.CheckName(o.Name); err != nil {
		return member{}, err
	}
	if o.Machine != "" {
		if _, err := machine.ParseID(string(o.Machine)); err != nil {
			return member{}, err
		}
	}
	if _, err := netip.ParseAddrPort(o.PeerAddr); err != nil {
		return member{}, fault.Wrap(fault.Invalid, err, "restore: address of the store's member")
	}
	m := member{name: o.Name, peer: url.URL{Scheme: "https", Host: o.PeerAddr}, token: token}
	if o.PlainPeers {
		m.peer.Scheme = "http"
	}
	return m, nil
}

// Restored says what a restore has made.
type Restored struct {
	Report
	Machine machine.ID     `json:"machine"` // the first machine of the new cluster
	Epoch   int            `json:"epoch"`   // of the new cluster, one above that of the backup
	Dropped map[string]int `json:"dropped"` // keys that were not kept, by their table
}

// What lies in a data directory. Source: rooms daemon and trust.
const (
	idFile   = "machine-id"
	trustDir = "trust"
)

// Restore makes the data directory of the first machine of a new cluster from a backup: store/ with one member, trust/ with the old authority
// and a certificate of it for this machine, and machine-id; `flota up` goes on from there as after any restart. It is built beside the
// directory and appears there in one step, so that a crash leaves nothing or all of it; what such a crash leaves beside it is removed by the
// next restore. The backup's own checksums are checked before anything is made of it.
//
// fault.Exists when the directory holds something, fault.Conflict when another restore is at work on it; Verify's errors for the backup.
func Restore(ctx context.Context, r io.Reader, k Keys, o RestoreOptions) (res Restored, err error) {
	if _, err := o.member(""); err != nil {
		return res, err
	}
	if o.Machine == "" {
		raw := make([]byte, 16)
		rand.Read(raw)
		o.Machine = machine.ID(hex.EncodeToString(raw))
	}
	site, err := openSite(o.DataDir)
	if err != nil {
		return res, err
	}
	defer func() {
		if end := site.close(); err == nil {
			err = end
		}
	}()
	file := filepath.Join(site.dir, "snapshot")
	c, err := k.receive(ctx, r, file)
	res.Report = Report{Manifest: c.Manifest, Census: c.Census, Snapshot: c.size}
	if err != nil {
		return res, err
	}
	if err := o.build(ctx, site.dir, file, c, &res); err != nil {
		return res, err
	}
	if err := ctx.Err(); err != nil {
		return res, fault.Wrap(fault.Unavailable, err, "restore")
	}
	return res, site.finish()
}

// build makes everything in dir from what was received.
func (o RestoreOptions) build(ctx context.Context, dir, file string, c content, res *Restored) error {
	m, err := o.member(fmt.Sprintf("flota-%s-%d", c.Manifest.Cluster, c.Manifest.Epoch+1))
	if err != nil {
		return err
	}
	data := filepath.Join(dir, storeDir)
	if err := unpack(file, data, m); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return fault.Wrap(fault.Internal, err, "restore")
	}
	id, err := o.identity(filepath.Join(dir, trustDir), c)
	if err != nil {
		return err
	}
	e := &editor{manifest: c.Manifest, trust: c.Trust, options: o, key: id.KeyHash()}
	if err := alone(ctx, data, m.name, o.Log, e.edit); err != nil {
		return fault.Wrap(fault.KindOf(err), err, "restore: prepare the store")
	}
	res.Machine, res.Epoch, res.Dropped = o.Machine, e.epoch, e.dropped
	if err := id.SetEpoch(e.epoch); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, idFile), []byte(o.Machine+"\n"), 0o644); err != nil {
		return fault.Wrap(fault.Internal, err, "restore")
	}
	for name, b := range o.Files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o644); err != nil {
			return fault.Wrap(fault.Internal, err, "restore")
		}
	}
	return nil
}

// identity makes who this machine is: to room trust the old authority looks like a founding that was broken off, which it ends.
func (o RestoreOptions) identity(dir string, c content) (*trust.Identity, error) {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ca.key"), c.Trust.Key, 0o600)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "restore: lay out %s", trustDir)
	}
	addr, err := netip.ParseAddrPort(o.PeerAddr)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "restore: address of the store's member")
	}
	id, err := trust.Found(trust.Options{Dir: dir, Log: o.Log},
		trust.Subject{ID: o.Machine, Name: o.Name, IPs: []netip.Addr{addr.Addr()}, Cluster: c.Manifest.Cluster})
	if err != nil {
		return nil, fault.Wrap(fault.KindOf(err), err, "restore: make this machine's identity")
	}
	if err := id.SetBundle(c.Trust.Bundle); err != nil { // while the authority is being changed there are two
		return nil, fault.Wrap(fault.KindOf(err), err, "restore: trust the cluster's authorities")
	}
	return id, nil
}
