package backup

import (
	"io"
	"strings"

	"filippo.io/age"

	"flota/internal/fault"
)

// Seal says how a backup is encrypted. Exactly one of the three; the zero value is refused, so that nothing is readable by oversight.
type Seal struct {
	Passphrase string
	Recipients []string // age1…: X25519 or age's post-quantum ones, not mixed
	Plain      bool     // not encrypted: the authority's key is readable in it

	work int // log2 of scrypt's work for a passphrase; 0: age's default of 18, about 1 s and 256 MiB. For tests
}

// maxWork is the highest work factor that is accepted of a file: 20, so that a hostile one takes 1 GiB at most. Source: scrypt takes
// 128 * 8 * 2^work bytes.
const maxWork = 20

// CheckRecipients says what is wrong with age recipients: fault.Invalid.
func CheckRecipients(all []string) error {
	if len(all) == 0 {
		return nil
	}
	return Seal{Recipients: all}.check()
}

func (s Seal) check() error {
	_, err := s.recipients()
	return err
}

// recipients gives age's form; none for Plain.
func (s Seal) recipients() (out []age.Recipient, err error) {
	ways := 0
	for _, set := range []bool{s.Passphrase != "", len(s.Recipients) > 0, s.Plain} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return nil, fault.WithHint(fault.New(fault.Invalid, "back up: want a passphrase, or recipients, or neither said in so many words, not %d of them", ways),
			"give --passphrase-file FILE or --recipient age1…; --plain writes the keys of the cluster readable for everybody who has the file")
	}
	if s.Passphrase != "" {
		r, err := age.NewScryptRecipient(s.Passphrase)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "back up: passphrase")
		}
		if s.work > 0 {
			r.SetWorkFactor(s.work)
		}
		return []age.Recipient{r}, nil
	}
	for _, text := range s.Recipients {
		if strings.HasPrefix(text, "AGE-SECRET-KEY-") {
			return nil, fault.WithHint(fault.New(fault.Invalid, "back up: that is a secret key, not a recipient"), "age-keygen -y FILE prints the recipient of a key")
		}
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(parsed) != 1 {
			return nil, fault.WithHint(fault.New(fault.Invalid, "back up: %q is no age recipient", text), "age-keygen makes a key and prints its recipient, age1…")
		}
		out = append(out, parsed...)
	}
	if len(out) > 0 { // a mix shows only when it is used
		if _, err := age.Encrypt(io.Discard, out...); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "back up: recipients")
		}
	}
	return out, nil
}

// writer encrypts to w; Close ends the file but not w.
func (s Seal) writer(w io.Writer) (io.WriteCloser, error) {
	to, err := s.recipients()
	if err != nil {
		return nil, err
	}
	if len(to) == 0 {
		return plain{w}, nil
	}
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encrypt the backup")
	}
	return sealed, nil
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// Keys open a sealed backup. The zero value opens plain ones only; keys for a plain one are refused, as somebody may have put it in
// the place of a sealed one.
type Keys struct {
	Passphrase string
	Identities string // of an age key file: a line AGE-SECRET-KEY-… for each key, others beginning with #
}

func (k Keys) empty() bool { return k.Passphrase == "" && k.Identities == "" }

// identities gives age's form. Errors never repeat what was given.
func (k Keys) identities() (out []age.Identity, err error) {
	if k.Identities != "" {
		if out, err = age.ParseIdentities(strings.NewReader(strings.ReplaceAll(k.Identities, "\r\n", "\n"))); err != nil {
			return nil, fault.WithHint(fault.New(fault.Invalid, "the age key file cannot be read"), "want what age-keygen writes: lines AGE-SECRET-KEY-…")
		}
	}
	if k.Passphrase != "" {
		id, err := age.NewScryptIdentity(k.Passphrase)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "passphrase")
		}
		id.SetMaxWorkFactor(maxWork)
		out = append(out, id)
	}
	return out, nil
}
