package backup

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"

	"filippo.io/age"

	"flota/internal/fault"
)

// Sealed is what can be said of a backup without a key.
type Sealed struct {
	Plain      bool      `json:"plain"`
	Manifest   *Manifest `json:"manifest,omitempty"`   // of a plain one; not checked against the checksum, which stands at the end
	Passphrase bool      `json:"passphrase,omitempty"` // encrypted with a passphrase
	// Recipients is how many age recipients can open it. Which ones the file does not tell, by age's design; Kinds are theirs, such as X25519.
	Recipients int      `json:"recipients,omitempty"`
	Kinds      []string `json:"kinds,omitempty"`
}

// Inspect reads the beginning of a backup. fault.Invalid when it is none.
func Inspect(ctx context.Context, r io.Reader) (Sealed, error) {
	o := &opened{raw: &source{ctx: ctx, r: r}}
	b := bufio.NewReader(o.raw)
	sealed, err := o.sniff(b)
	if err != nil {
		return Sealed{}, err
	}
	if sealed {
		how, err := describe(b)
		if err != nil {
			return Sealed{}, o.broken(err)
		}
		return how, nil
	}
	s := &sections{r: b, buf: make([]byte, chunkBytes)}
	var m Manifest
	if err := s.manifest(&m); err != nil {
		return Sealed{}, o.broken(err)
	}
	return Sealed{Plain: true, Manifest: &m}, nil
}

// headerBytes bounds what is read of an age file to say whom it is for: 1 MiB, some thousand recipients.
const headerBytes = 1 << 20

// describe reads the header of an age file: one line "-> KIND …" for each recipient.
func describe(r io.Reader) (Sealed, error) {
	header, err := age.ExtractHeader(io.LimitReader(r, headerBytes))
	if err != nil {
		return Sealed{}, err
	}
	var how Sealed
	for line := range bytes.Lines(header) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "->" {
			continue
		}
		if f[1] == "scrypt" {
			how.Passphrase = true
			continue
		}
		how.Recipients++
		how.Kinds = append(how.Kinds, f[1])
	}
	if !how.Passphrase && how.Recipients == 0 {
		return how, fault.New(fault.Invalid, "the backup is encrypted to nobody")
	}
	return how, nil
}
