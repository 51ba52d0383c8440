// Package backup writes what the cluster remembers, and what lets machines trust each other, into one file; it checks such files, and
// makes a new cluster of one. It also keeps copies on a voter's own disk by a schedule (Keeper).
//
// The invariant: a file is good as a whole or refused as a whole. Its last bytes are a SHA-256 over everything before them; within it, the
// store's snapshot carries its own, and a census of keys and values says what must be found again. A directory that is restored into is complete or not there.
//
// The form: an age file (or, only on demand, nothing around it) holding a stream of sections: manifest, snapshot of the store, authority
// (certificates and key), census, checksum. Nothing is held in memory as a whole: a snapshot goes through a file without a name.
//
// It never decides where copies go beyond this machine, never talks to another machine and never changes a running store.
//
// Start reading at Source, Write, and then read in reader.go.
package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Format is the version of the form that this program writes, and the newest one that it reads.
const Format = 1

// Manifest says what a backup is of; it is the first section.
type Manifest struct {
	Format  int        `json:"format"`
	Version string     `json:"version"` // of the flota that wrote it
	Cluster string     `json:"cluster"` // the cluster's ID
	Epoch   int        `json:"epoch"`   // the cluster's, when it was written
	Created time.Time  `json:"created"` // by the clock of the machine that wrote it
	Machine machine.ID `json:"machine"` // that wrote it
	Name    string     `json:"name"`    // of that machine
}

// Trust is what lets machines trust each other.
type Trust struct {
	Bundle []byte `json:"bundle"` // certificates of the authorities, PEM, the issuing one first
	Key    []byte `json:"key"`    // as in room trust's ca.key: PEM, for each authority its certificates and then its key
}

// Source is what a backup is made from: a machine that holds a copy of the store and the authority's key. All fields but Now are needed.
type Source struct {
	// About gives the manifest; Format and Created are set by Write.
	About func() Manifest
	// Snapshot writes a consistent copy of the store's database with its SHA-256 at the end, as etcd does. rev is not looked at: the
	// revision of what was copied is read from the copy.
	Snapshot func(ctx context.Context, w io.Writer) (rev int64, err error)
	Trust    func() (Trust, error)
	// Scratch is a directory with room for one copy of the database; what is put there has no name and ends with the process.
	Scratch string
	Now     func() time.Time // nil: time.Now
}

func (s Source) check() error {
	if s.About == nil || s.Snapshot == nil || s.Trust == nil || s.Scratch == "" {
		return fault.New(fault.Invalid, "back up: a manifest, a snapshot, the authority and a scratch directory are needed")
	}
	return nil
}

// Write writes one backup to w, sealed as s says. The snapshot is taken and checked before the first byte is written, so that a failing
// store fails without output, and a slow w does not hold up the store. An error later leaves w with a file that every reader refuses as
// incomplete. fault.Invalid for a seal that cannot be; errors of the source as they are.
func Write(ctx context.Context, w io.Writer, src Source, s Seal) (Manifest, error) {
	if err := src.check(); err != nil {
		return Manifest{}, err
	}
	if err := s.check(); err != nil { // before the work
		return Manifest{}, err
	}
	m := src.About()
	m.Format = Format
	now := time.Now
	if src.Now != nil {
		now = src.Now
	}
	m.Created = now().UTC().Truncate(time.Second)
	trust, err := src.Trust()
	if err != nil {
		return m, err
	}
	if err := trust.check(); err != nil {
		return m, err
	}
	snapshot, err := spool(ctx, src)
	if err != nil {
		return m, err
	}
	defer snapshot.Close()
	census, err := countFile(snapshot)
	if err != nil {
		return m, err
	}
	sealed, err := s.writer(w)
	if err != nil {
		return m, err
	}
	out := newStream(sealed)
	out.json(tagManifest, m)
	out.copy(ctx, tagSnapshot, snapshot)
	out.json(tagTrust, trust)
	out.json(tagCensus, census)
	out.sum()
	return m, writing(errors.Join(out.err, sealed.Close()))
}

// Copy reads a backup from r, checks it while doing so, and writes it to w under another seal. What it has written is good only if it
// returns no error. For the command line, which gets a plain stream from a machine and seals it itself, so that no machine learns the passphrase.
func Copy(ctx context.Context, w io.Writer, r io.Reader, k Keys, s Seal) (Manifest, error) {
	in, err := k.open(ctx, r)
	if err != nil {
		return Manifest{}, err
	}
	sealed, err := s.writer(w)
	if err != nil {
		return Manifest{}, err
	}
	out := &sink{w: sealed}
	c, err := in.read(io.TeeReader(in.plain, out), io.Discard)
	if out.err != nil {
		return c.Manifest, writing(out.err)
	}
	if err != nil {
		return c.Manifest, err
	}
	return c.Manifest, writing(sealed.Close())
}

// sink remembers that writing failed, to tell it from reading.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func writing(err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return fault.Wrap(fault.Internal, err, "write the backup")
}

// spool takes the snapshot into a file without a name, and checks its SHA-256. The caller closes it.
func spool(ctx context.Context, src Source) (f *os.File, err error) {
	if f, err = nameless(src.Scratch); err != nil {
		return nil, err
	}
	tail := newTail()
	if _, err = src.Snapshot(ctx, io.MultiWriter(f, tail)); err == nil {
		err = ctx.Err()
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.KindOf(err), err, "back up: take a snapshot of the store")
	}
	if !tail.good() {
		f.Close()
		return nil, fault.New(fault.Internal, "back up: the store's snapshot of %d bytes is not complete: its own SHA-256 does not match", tail.size)
	}
	return f, nil
}

// spoolMark begins the name that a snapshot has for a moment.
const spoolMark = ".snapshot-"

// nameless makes a file in dir that is gone when it is closed, or when the process ends.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, spoolMark+"*")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "back up: make room for a snapshot")
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Internal, err, "back up: make room for a snapshot")
	}
	return f, nil
}
