package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"flota/internal/backup"
	"flota/internal/fault"
)

// passphraseVar names the file of the passphrase when no flag says how a backup is or shall be sealed.
const passphraseVar = "FLOTA_BACKUP_PASSPHRASE_FILE"

// sealFlags say how a backup is to be encrypted.
type sealFlags struct {
	passphrase string // a file
	recipients []string
	plain      bool
}

// add defines them.
func (s *sealFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.passphrase, "passphrase-file", "", "encrypt with the passphrase in the first line of this file (default: asked for on a terminal) ["+passphraseVar+"]")
	f.StringArrayVar(&s.recipients, "recipient", nil, "encrypt to this age recipient, age1… (repeatable)")
	f.BoolVar(&s.plain, "plain", false, "do not encrypt: whoever can read the file can let machines into the cluster")
}

// seal reads the flags; a person at a terminal who gave none is asked for a passphrase, twice. fault.Invalid when nothing is said.
func (t *tool) seal(ctx context.Context, s sealFlags) (backup.Seal, error) {
	given := 0
	for _, is := range []bool{s.passphrase != "", len(s.recipients) > 0, s.plain} {
		if is {
			given++
		}
	}
	if given > 1 {
		return backup.Seal{}, fault.New(fault.Invalid, "want one of --passphrase-file, --recipient and --plain")
	}
	if err := backup.CheckRecipients(s.recipients); err != nil {
		return backup.Seal{}, err
	}
	if env := t.Getenv(passphraseVar); given == 0 && env != "" {
		s.passphrase = env
	}
	switch {
	case s.plain || len(s.recipients) > 0:
		return backup.Seal{Plain: s.plain, Recipients: s.recipients}, nil
	case s.passphrase != "":
		text, err := t.passphraseOf(s.passphrase)
		return backup.Seal{Passphrase: text}, err
	case !isTerminal(t.In):
		return backup.Seal{}, fault.WithHint(fault.New(fault.Invalid, "say how the backup is to be encrypted"),
			"--passphrase-file FILE, or --recipient age1…; --plain writes the keys of the cluster readable for everybody who has the file")
	}
	first, err := t.secret(ctx, "Passphrase for the backup: ")
	if err != nil {
		return backup.Seal{}, err
	}
	second, err := t.secret(ctx, "The same again: ")
	if err == nil && first != second {
		err = fault.New(fault.Invalid, "these are two different passphrases")
	}
	return backup.Seal{Passphrase: first}, err
}

// keyFlags say what opens a backup.
type keyFlags struct {
	passphrase, identity string // files
}

// add defines them.
func (k *keyFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.passphrase, "passphrase-file", "", "the passphrase is the first line of this file (default: asked for on a terminal) ["+passphraseVar+"]")
	f.StringVar(&k.identity, "identity", "", "file of the age key to one of whose recipients it is encrypted")
}

// maxKeyFile bounds a file with a passphrase or keys: 1 MiB.
const maxKeyFile = 1 << 20

// keys reads the flags for a backup that is sealed as how says; asking is whether a person at the terminal may be asked for the passphrase.
func (t *tool) keys(ctx context.Context, k keyFlags, how backup.Sealed, asking bool) (backup.Keys, error) {
	if k.passphrase != "" && k.identity != "" {
		return backup.Keys{}, fault.New(fault.Invalid, "want one of --passphrase-file and --identity")
	}
	if env := t.Getenv(passphraseVar); env != "" && k.identity == "" && k.passphrase == "" {
		k.passphrase = env
	}
	switch {
	case k.identity != "":
		f, err := os.Open(k.identity)
		if err != nil {
			return backup.Keys{}, noFile(err, "read the age key")
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
		return backup.Keys{Identities: string(b)}, noFile(err, "read the age key")
	case k.passphrase != "":
		text, err := t.passphraseOf(k.passphrase)
		return backup.Keys{Passphrase: text}, err
	case how.Passphrase && asking && isTerminal(t.In):
		text, err := t.secret(ctx, "Passphrase of the backup: ")
		return backup.Keys{Passphrase: text}, err
	}
	return backup.Keys{}, nil // which is right for a plain one; for others it is said what is missing
}

// passphraseOf reads the first line of a file.
func (t *tool) passphraseOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", noFile(err, "read the passphrase")
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		t.note("warning: not only you can read %s (mode %04o); chmod 600 changes that", path, st.Mode().Perm())
	}
	line, err := bufio.NewReader(io.LimitReader(f, maxKeyFile)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", noFile(err, "read the passphrase")
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", fault.New(fault.Invalid, "read the passphrase: the first line of %s is empty", path)
	}
	return line, nil
}

// noFile gives the error of a file that a person named its kind. nil stays nil.
func noFile(err error, doing string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(fault.NotFound, err, "%s", doing)
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Denied, err, "%s", doing)
	}
	return fault.Wrap(fault.Invalid, err, "%s", doing)
}

// sealWords says how a backup is sealed.
func sealWords(how backup.Sealed) string {
	switch {
	case how.Plain:
		return "not encrypted"
	case how.Passphrase:
		return "encrypted with a passphrase"
	case how.Recipients == 1:
		return "encrypted to 1 age recipient"
	}
	return fmt.Sprintf("encrypted to %d age recipients", how.Recipients)
}
