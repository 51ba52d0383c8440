package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"io"
)

// magic is how the stream begins; ageMagic how an age file does. Source of the latter: the age specification, C2SP age.md.
const (
	magic    = "flota backup\n"
	ageMagic = "age-encryption.org/"
)

// The sections, in this order, each one tag, chunks of a length (32 bits, big-endian) and as many bytes, and a chunk of length 0.
const (
	tagManifest = 'm'
	tagSnapshot = 's'
	tagTrust    = 'a'
	tagCensus   = 'c'
	tagSum      = 'e' // followed by the SHA-256 of everything before its 32 bytes, and the end
)

// chunkBytes is the largest chunk: 64 KiB, age's own, so that a reader's buffer is bounded.
const chunkBytes = 64 << 10

// jsonBytes bounds each section but the snapshot: 1 MiB, some hundred certificates or some thousand tables.
const jsonBytes = 1 << 20

// stream writes sections. The first error stays; what comes after it does nothing.
type stream struct {
	w    io.Writer
	hash hash.Hash
	err  error
}

func newStream(w io.Writer) *stream {
	s := &stream{hash: sha256.New()}
	s.w = io.MultiWriter(w, s.hash)
	s.write([]byte(magic))
	return s
}

func (s *stream) write(p []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
}

// json writes a section of one value.
func (s *stream) json(tag byte, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("backup: a section must marshal: " + err.Error())
	}
	s.copy(context.Background(), tag, bytes.NewReader(b))
}

// copy writes a section of all that r has.
func (s *stream) copy(ctx context.Context, tag byte, r io.Reader) {
	s.write([]byte{tag})
	buf := make([]byte, 4+chunkBytes)
	for s.err == nil {
		n, err := io.ReadFull(r, buf[4:])
		binary.BigEndian.PutUint32(buf, uint32(n))
		if n > 0 {
			s.write(buf[:4+n])
		}
		switch {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			s.write(make([]byte, 4))
			return
		case s.err == nil && err != nil:
			s.err = err
		case s.err == nil:
			s.err = ctx.Err()
		}
	}
}

// sum ends the stream.
func (s *stream) sum() {
	s.write([]byte{tagSum})
	s.write(s.hash.Sum(nil))
}

// tail checks a snapshot of the store while it passes: its last 32 bytes are the SHA-256 of the rest, whose length is a multiple of 512.
// Source: etcdutl's snapshot restore.
type tail struct {
	hash hash.Hash
	held []byte // the last bytes, at most 32
	size int64
}

func newTail() *tail { return &tail{hash: sha256.New()} }

func (t *tail) Write(p []byte) (int, error) {
	t.size += int64(len(p))
	over := len(t.held) + len(p) - sha256.Size
	switch {
	case over <= 0:
		t.held = append(t.held, p...)
	case over <= len(t.held):
		t.hash.Write(t.held[:over])
		t.held = append(append([]byte(nil), t.held[over:]...), p...)
	default:
		t.hash.Write(t.held)
		t.hash.Write(p[:over-len(t.held)])
		t.held = append(t.held[:0], p[over-len(t.held):]...)
	}
	return len(p), nil
}

func (t *tail) good() bool {
	return t.size > sha256.Size && t.size%512 == sha256.Size && bytes.Equal(t.hash.Sum(nil), t.held)
}
