package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"slices"

	"filippo.io/age"

	"flota/internal/fault"
)

// content is what was read of a backup, beside the snapshot.
type content struct {
	Manifest Manifest
	Trust    Trust
	Census   Census
	size     int64 // of the snapshot with its checksum
}

// source is the raw file: it ends with ctx, and remembers its own error, to tell a broken disk from a broken backup.
type source struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// opened is a backup whose seal is open.
type opened struct {
	raw   *source
	plain io.Reader // the stream
}

// open looks what r is, and decrypts it. fault.Denied for missing or wrong keys, fault.Conflict for keys where none are needed,
// fault.Invalid for what is no backup.
func (k Keys) open(ctx context.Context, r io.Reader) (*opened, error) {
	o := &opened{raw: &source{ctx: ctx, r: r}}
	b := bufio.NewReader(o.raw)
	sealed, err := o.sniff(b)
	if err != nil {
		return nil, err
	}
	if !sealed {
		if !k.empty() {
			return nil, fault.WithHint(fault.New(fault.Conflict, "the backup is not encrypted, but a key for it was given"),
				"if it is meant to be readable, leave the passphrase or key out; if not, somebody replaced it")
		}
		o.plain = b
		return o, nil
	}
	ids, err := k.identities()
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		how, err := describe(b)
		if err != nil {
			return nil, o.broken(err)
		}
		return nil, needKey(how)
	}
	plain, err := age.Decrypt(b, ids...)
	if err != nil {
		return nil, o.locked(k, err)
	}
	pb := bufio.NewReader(plain)
	head, err := pb.Peek(len(magic))
	switch {
	case string(head) == magic:
	case err != nil && err != io.EOF:
		return nil, o.broken(err)
	default:
		return nil, foreign()
	}
	o.plain = pb
	return o, nil
}

// sniff says whether b begins like an age file or, if not, like a plain backup.
func (o *opened) sniff(b *bufio.Reader) (sealed bool, err error) {
	head, err := b.Peek(len(ageMagic))
	switch {
	case o.raw.err != nil:
		return false, o.broken(err)
	case len(head) == 0:
		return false, fault.New(fault.Invalid, "the backup is empty")
	case string(head) == ageMagic:
		return true, nil
	case len(head) >= len(magic) && string(head[:len(magic)]) == magic:
		return false, nil
	case len(head) < len(ageMagic) && (string(head) == ageMagic[:len(head)] || string(head) == magic[:min(len(head), len(magic))]):
		return false, o.broken(io.ErrUnexpectedEOF)
	}
	return false, foreign()
}

func foreign() error {
	return fault.WithHint(fault.New(fault.Invalid, "this is no backup of flota"), "flota backup FILE writes one; an age file in ASCII armor must be dearmored first")
}

func needKey(how Sealed) error {
	if how.Passphrase {
		return fault.WithHint(fault.New(fault.Denied, "the backup is encrypted with a passphrase"), "give it with --passphrase-file FILE")
	}
	return fault.WithHint(fault.New(fault.Denied, "the backup is encrypted to %d age recipients", how.Recipients), "give the key of one of them with --identity FILE")
}

// locked says why age did not open it.
func (o *opened) locked(k Keys, err error) error {
	var no *age.NoIdentityMatchError
	if !errors.As(err, &no) {
		return o.broken(err)
	}
	scrypt := slices.Contains(no.StanzaTypes, "scrypt")
	switch {
	case scrypt && k.Passphrase == "":
		return needKey(Sealed{Passphrase: true})
	case !scrypt && k.Identities == "":
		return needKey(Sealed{Recipients: len(no.StanzaTypes)})
	case scrypt:
		return fault.New(fault.Denied, "the passphrase does not open the backup: it is another one, or the first lines of the file are damaged")
	}
	return fault.New(fault.Denied, "none of the keys opens the backup: it is encrypted to others, or the first lines of the file are damaged")
}

// broken says that the file cannot be read on: because of the disk or network, or because of what is in it (fault.Invalid).
func (o *opened) broken(err error) error {
	var known *fault.Error
	switch {
	case o.raw.err != nil && o.raw.ctx.Err() != nil:
		return fault.Wrap(fault.Unavailable, o.raw.err, "read the backup")
	case o.raw.err != nil:
		return fault.Wrap(fault.KindOf(o.raw.err), o.raw.err, "read the backup")
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Invalid, "the backup is cut short: its end is missing")
	}
	return fault.Wrap(fault.Invalid, err, "the backup is damaged or cut short")
}

func damaged(format string, args ...any) error {
	return fault.New(fault.Invalid, "the backup is damaged: "+format, args...)
}

// sections reads the stream of an opened backup.
type sections struct {
	r    io.Reader // hashes what it reads
	hash hash.Hash
	buf  []byte
}

// read reads the whole stream from r (o.plain, or something that reads from it), writes the snapshot to snapshot, and checks every
// checksum. What was written to snapshot is good only if there is no error.
func (o *opened) read(r io.Reader, snapshot io.Writer) (content, error) {
	var c content
	h := sha256.New()
	s := &sections{r: io.TeeReader(r, h), hash: h, buf: make([]byte, chunkBytes)}
	err := s.all(&c, snapshot)
	if err != nil {
		return c, o.broken(err)
	}
	return c, nil
}

func (s *sections) all(c *content, snapshot io.Writer) error {
	if err := s.manifest(&c.Manifest); err != nil {
		return err
	}
	t := newTail()
	if err := s.section(tagSnapshot, &both{t, snapshot}); err != nil {
		return err
	}
	c.size = t.size
	if err := s.json(tagTrust, &c.Trust); err != nil {
		return err
	}
	if err := s.json(tagCensus, &c.Census); err != nil {
		return err
	}
	if err := s.tag(tagSum); err != nil {
		return err
	}
	want := s.hash.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.r, got); err != nil {
		return err
	}
	if string(got) != string(want) {
		return damaged("its SHA-256 does not match")
	}
	// Reading up to the end also lets age check the last of its own.
	if n, err := io.ReadFull(s.r, s.buf[:1]); n > 0 {
		return damaged("something follows its end")
	} else if err != io.EOF {
		return err
	}
	if !t.good() {
		return damaged("the SHA-256 of the store's snapshot does not match")
	}
	return c.Trust.check()
}

// manifest reads the beginning. A newer format is refused before anything else of it is looked at.
func (s *sections) manifest(m *Manifest) error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(s.r, head); err != nil {
		return err
	}
	if string(head) != magic {
		return foreign()
	}
	if err := s.json(tagManifest, m); err != nil {
		return err
	}
	if m.Format > Format {
		return fault.WithHint(fault.New(fault.Invalid, "the backup has format %d, written by flota %q; this flota reads up to %d", m.Format, m.Version, Format),
			"use the flota that wrote it, or a newer one")
	}
	if m.Format < 1 {
		return damaged("there is no format %d", m.Format)
	}
	return nil
}

func (s *sections) tag(want byte) error {
	if _, err := io.ReadFull(s.r, s.buf[:1]); err != nil {
		return err
	}
	if s.buf[0] != want {
		return damaged("section %q stands where %q is wanted", s.buf[0], want)
	}
	return nil
}

// section copies one section to w.
func (s *sections) section(tag byte, w io.Writer) error {
	if err := s.tag(tag); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(s.r, s.buf[:4]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(s.buf)
		if n == 0 {
			return nil
		}
		if n > chunkBytes {
			return damaged("a chunk of %d bytes", n)
		}
		if _, err := io.ReadFull(s.r, s.buf[:n]); err != nil {
			return err
		}
		if _, err := w.Write(s.buf[:n]); err != nil {
			return err
		}
	}
}

func (s *sections) json(tag byte, v any) error {
	var b bounded
	if err := s.section(tag, &b); err != nil {
		return err
	}
	if err := json.Unmarshal(b.b, v); err != nil {
		return damaged("section %q: %w", tag, err)
	}
	return nil
}

// bounded collects at most jsonBytes.
type bounded struct{ b []byte }

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.b)+len(p) > jsonBytes {
		return 0, damaged("a section of more than %d bytes", jsonBytes)
	}
	b.b = append(b.b, p...)
	return len(p), nil
}

// both writes to the first, then to the second, whose error is one of this machine and not of the backup.
type both struct{ first, second io.Writer }

func (b *both) Write(p []byte) (int, error) {
	b.first.Write(p) // a hash: never fails
	n, err := b.second.Write(p)
	return n, fault.Wrap(fault.Internal, err, "unpack the backup")
}
