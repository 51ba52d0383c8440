package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"flota/internal/fault"
)

// newIdentity makes an age key: the recipient and the key's text.
func newIdentity(t testing.TB) (recipient, key string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String(), "# a comment\n" + id.String() + "\n"
}

// light is a passphrase that costs little to derive.
func light(p string) Seal { return Seal{Passphrase: p, work: 4} }

// TestRoundTrip backs up a store of 10,000 keys, sealed in each way, and verifies each.
func TestRoundTrip(t *testing.T) {
	n := startStore(t, filepath.Join(t.TempDir(), "s"), "m1")
	fill(t, n, 10_000)
	src := sourceOf(t, n)
	recipient, key := newIdentity(t)
	other, _ := newIdentity(t)
	c := v3client.New(n.Server())
	defer c.Close()
	live, err := countStore(patient(t), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		seal Seal
		keys Keys
	}{
		"plain":      {Seal{Plain: true}, Keys{}},
		"passphrase": {light("correct horse"), Keys{Passphrase: "correct horse"}},
		"recipients": {Seal{Recipients: []string{other, recipient}}, Keys{Identities: key}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			m, err := Write(patient(t), &b, src, x.seal)
			if err != nil {
				t.Fatal(err)
			}
			scratch := t.TempDir()
			rep, err := Verify(patient(t), &b, x.keys, scratch)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(m, rep.Manifest); d != "" {
				t.Error(d)
			}
			live.Revision = rep.Census.Revision
			if d := cmp.Diff(live, rep.Census); d != "" {
				t.Error("the live store differs:", d)
			}
			if rep.Census.Keys < 9_975 || rep.Census.Tables["flota/units/"] != 2 || rep.Census.Tables["flota/leader"] != 1 {
				t.Errorf("%+v", rep.Census)
			}
			if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
				t.Errorf("left in scratch: %v, %v", left, err)
			}
		})
	}
	if left, err := os.ReadDir(src.Scratch); err != nil || len(left) > 0 {
		t.Errorf("left by the writer: %v, %v", left, err)
	}
}

// flips bounds how many positions of one file are tried.
const flips = 250

// TestFlippedBit finds one changed bit wherever it is: at every 1,000th position, closer in a short file's ends.
func TestFlippedBit(t *testing.T) {
	recipient, key := newIdentity(t)
	for name, x := range map[string]struct {
		file []byte
		keys Keys
	}{
		"plain":  {written(t, Seal{Plain: true}), Keys{}},
		"sealed": {written(t, Seal{Recipients: []string{recipient}}), Keys{Identities: key}},
	} {
		t.Run(name, func(t *testing.T) {
			var at []int
			for i := 0; i < len(x.file) && len(at) < flips; i += 1000 {
				at = append(at, i)
			}
			for i := range 50 { // magic and manifest, and the census and sum
				at = append(at, i*4, len(x.file)-1-i*8)
			}
			scratch := t.TempDir()
			for _, i := range at {
				bad := bytes.Clone(x.file)
				bad[i] ^= 1 << (i % 8)
				if _, err := Verify(patient(t), bytes.NewReader(bad), x.keys, scratch); err == nil {
					t.Errorf("a flipped bit at %d of %d is not found", i, len(bad))
				} else if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Conflict) {
					t.Errorf("at %d: %v of kind %q", i, err, fault.KindOf(err))
				}
			}
		})
	}
}

// TestCutShort refuses every beginning of a backup.
func TestCutShort(t *testing.T) {
	recipient, key := newIdentity(t)
	for name, x := range map[string]struct {
		file []byte
		keys Keys
	}{
		"plain":  {written(t, Seal{Plain: true}), Keys{}},
		"sealed": {written(t, Seal{Recipients: []string{recipient}}), Keys{Identities: key}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{0, 1, 12, 13, 14, 19, 100, 300, 1000, len(x.file) / 2, 64 << 10, len(x.file) - 40, len(x.file) - 33, len(x.file) - 32, len(x.file) - 1} {
				_, err := Verify(patient(t), bytes.NewReader(x.file[:n]), x.keys, t.TempDir())
				wantKind(t, err, fault.Invalid)
			}
			_, err := Verify(patient(t), bytes.NewReader(append(bytes.Clone(x.file), 0)), x.keys, t.TempDir())
			wantKind(t, err, fault.Invalid)
		})
	}
}

// TestWrongKeys says for each mistake what it was.
func TestWrongKeys(t *testing.T) {
	recipient, key := newIdentity(t)
	_, stranger := newIdentity(t)
	open, pass, sealed := written(t, Seal{Plain: true}), written(t, light("right")), written(t, Seal{Recipients: []string{recipient}})
	for name, x := range map[string]struct {
		file []byte
		keys Keys
		kind fault.Kind
		says string
	}{
		"wrong passphrase":         {pass, Keys{Passphrase: "wrong"}, fault.Denied, "passphrase does not open"},
		"no passphrase":            {pass, Keys{}, fault.Denied, "encrypted with a passphrase"},
		"key for a passphrase":     {pass, Keys{Identities: key}, fault.Denied, "encrypted with a passphrase"},
		"both, wrong passphrase":   {pass, Keys{Identities: key, Passphrase: "x"}, fault.Denied, "passphrase does not open"},
		"wrong key":                {sealed, Keys{Identities: stranger}, fault.Denied, "none of the keys"},
		"no key":                   {sealed, Keys{}, fault.Denied, "encrypted to 1 age recipients"},
		"passphrase for a key":     {sealed, Keys{Passphrase: "right"}, fault.Denied, "encrypted to 1 age recipients"},
		"damaged key file":         {sealed, Keys{Identities: "AGE-SECRET-KEY-1NO"}, fault.Invalid, "key file cannot be read"},
		"passphrase for plain":     {open, Keys{Passphrase: "right"}, fault.Conflict, "not encrypted"},
		"foreign":                  {[]byte("PK\x03\x04 some other kind of file"), Keys{}, fault.Invalid, "no backup of flota"},
		"foreign with a key":       {[]byte("short"), Keys{Passphrase: "x"}, fault.Invalid, "no backup of flota"},
		"empty":                    {nil, Keys{}, fault.Invalid, "empty"},
		"age file of other things": {foreignAge(t, recipient), Keys{Identities: key}, fault.Invalid, "no backup of flota"},
		"newer":                    {newer(t), Keys{}, fault.Invalid, "format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Verify(patient(t), bytes.NewReader(x.file), x.keys, t.TempDir())
			wantKind(t, err, x.kind)
			if err != nil && !strings.Contains(err.Error(), x.says) {
				t.Errorf("%v; want %q", err, x.says)
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("a key is repeated: %v", err)
			}
		})
	}
}

// foreignAge encrypts what is no backup.
func foreignAge(t testing.TB, recipient string) []byte {
	var b bytes.Buffer
	w, err := Seal{Recipients: []string{recipient}}.writer(&b)
	if err == nil {
		_, err = io.WriteString(w, "a letter")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newer is a backup of a format that is not known yet.
func newer(t testing.TB) []byte {
	var b bytes.Buffer
	s := newStream(&b)
	m := about()
	m.Format = Format + 1
	s.json(tagManifest, m)
	s.write([]byte("Whatever it will be."))
	if s.err != nil {
		t.Fatal(s.err)
	}
	return b.Bytes()
}

// TestSealRefuses what would leave a backup readable by oversight, or not at all.
func TestSealRefuses(t *testing.T) {
	recipient, key := newIdentity(t)
	for name, s := range map[string]Seal{
		"nothing said":    {},
		"two ways":        {Passphrase: "x", Recipients: []string{recipient}},
		"plain, with key": {Plain: true, Recipients: []string{recipient}},
		"no recipient":    {Recipients: []string{"age1nobody"}},
		"a secret key":    {Recipients: []string{strings.TrimSpace(strings.Split(key, "\n")[1])}},
		"an empty one":    {Recipients: []string{""}},
	} {
		var b bytes.Buffer
		_, err := Write(patient(t), &b, smallSource(t), s)
		if !fault.Is(err, fault.Invalid) || b.Len() > 0 {
			t.Errorf("%s: %v, %d bytes", name, err, b.Len())
		}
	}
	if err := CheckRecipients([]string{recipient}); err != nil {
		t.Error(err)
	}
	wantKind(t, CheckRecipients([]string{"x"}), fault.Invalid)
}

// TestBadSource writes nothing when the source fails.
func TestBadSource(t *testing.T) {
	broken := errors.New("the disk fell off")
	_, stranger := newKeyPair(t)
	for name, x := range map[string]struct {
		change func(*Source)
		kind   fault.Kind
	}{
		"no snapshot": {func(s *Source) {
			s.Snapshot = func(context.Context, io.Writer) (int64, error) { return 0, broken }
		}, fault.Internal},
		"cut short": {func(s *Source) {
			s.Snapshot = func(_ context.Context, w io.Writer) (int64, error) {
				return 0, second(w.Write(smallSnapshot(t)[:8192]))
			}
		}, fault.Internal},
		"empty": {func(s *Source) {
			s.Snapshot = func(context.Context, io.Writer) (int64, error) { return 0, nil }
		}, fault.Internal},
		"no authority": {func(s *Source) {
			s.Trust = func() (Trust, error) { return Trust{}, nil }
		}, fault.Invalid},
		"another's key": {func(s *Source) {
			s.Trust = func() (Trust, error) { return Trust{Bundle: authority().Bundle, Key: stranger}, nil }
		}, fault.Invalid},
		"no authority here": {func(s *Source) {
			s.Trust = func() (Trust, error) { return Trust{}, fault.New(fault.NotFound, "not here") }
		}, fault.NotFound},
		"no scratch": {func(s *Source) { s.Scratch = "" }, fault.Invalid},
	} {
		src := smallSource(t)
		x.change(&src)
		var b bytes.Buffer
		_, err := Write(patient(t), &b, src, Seal{Plain: true})
		if !fault.Is(err, x.kind) || b.Len() > 0 {
			t.Errorf("%s: %v of kind %q, %d bytes written", name, err, fault.KindOf(err), b.Len())
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ended, io.Discard, smallSource(t), Seal{Plain: true}); err == nil {
		t.Error("written after the end of its context")
	}
	if _, err := Write(patient(t), full{}, smallSource(t), Seal{Plain: true}); !fault.Is(err, fault.Internal) {
		t.Error(err)
	}
}

func second(_ int, err error) error { return err }

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestCopy seals a plain stream, and refuses a damaged one.
func TestCopy(t *testing.T) {
	file := written(t, Seal{Plain: true})
	var b bytes.Buffer
	m, err := Copy(patient(t), &b, bytes.NewReader(file), Keys{}, light("p"))
	if err != nil || m.Cluster != cluster {
		t.Fatal(m, err)
	}
	if _, err := Verify(patient(t), &b, Keys{Passphrase: "p"}, t.TempDir()); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]byte{file[:len(file)-10], append(bytes.Clone(file[:500]), file[501:]...)} {
		_, err := Copy(patient(t), io.Discard, bytes.NewReader(bad), Keys{}, light("p"))
		wantKind(t, err, fault.Invalid)
	}
	_, err = Copy(patient(t), full{}, bytes.NewReader(file), Keys{}, Seal{Plain: true})
	wantKind(t, err, fault.Internal)
}

// TestLyingCensus finds a store that is not what its census says, though every checksum is right.
func TestLyingCensus(t *testing.T) {
	var good content
	in, err := Keys{}.open(patient(t), bytes.NewReader(written(t, Seal{Plain: true})))
	if err == nil {
		good, err = in.read(in.plain, io.Discard)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(*Census){
		"keys":   func(c *Census) { c.Keys++ },
		"tables": func(c *Census) { c.Tables = map[string]int64{"flota/units/": 3} },
		"hash":   func(c *Census) { c.Hash = strings.Repeat("0", 64) },
	} {
		c := good.Census
		lie(&c)
		var b bytes.Buffer
		s := newStream(&b)
		s.json(tagManifest, good.Manifest)
		s.copy(patient(t), tagSnapshot, bytes.NewReader(smallSnapshot(t)))
		s.json(tagTrust, good.Trust)
		s.json(tagCensus, c)
		s.sum()
		_, err := Verify(patient(t), &b, Keys{}, t.TempDir())
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "not what it says") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInspect(t *testing.T) {
	recipient, _ := newIdentity(t)
	for name, x := range map[string]struct {
		seal Seal
		want Sealed
	}{
		"passphrase": {light("x"), Sealed{Passphrase: true}},
		"recipients": {Seal{Recipients: []string{recipient, recipient}}, Sealed{Recipients: 2, Kinds: []string{"X25519", "X25519"}}},
	} {
		got, err := Inspect(patient(t), bytes.NewReader(written(t, x.seal)))
		if err != nil || !cmp.Equal(got, x.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	got, err := Inspect(patient(t), bytes.NewReader(written(t, Seal{Plain: true})))
	if err != nil || !got.Plain || got.Manifest.Cluster != cluster {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = Inspect(patient(t), strings.NewReader("hello, world, how are you"))
	wantKind(t, err, fault.Invalid)
}

// TestTail: however a snapshot is cut into writes, its checksum is found.
func TestTail(t *testing.T) {
	body := make([]byte, 4096)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(body)
	whole := append(body, sum[:]...)
	for range 300 {
		tl := newTail()
		for rest := whole; len(rest) > 0; {
			n := 1 + rand.IntN(min(len(rest), 1+rand.IntN(200)))
			tl.Write(rest[:n])
			rest = rest[n:]
		}
		if !tl.good() {
			t.Fatal("a good snapshot is refused")
		}
	}
	for _, bad := range [][]byte{nil, sum[:], whole[:len(whole)-1], whole[1:]} {
		tl := newTail()
		tl.Write(bad)
		if tl.good() {
			t.Errorf("%d bytes are taken", len(bad))
		}
	}
}

// FuzzRead reads anything; what it takes it can write again.
func FuzzRead(f *testing.F) {
	var tiny bytes.Buffer
	s := newStream(&tiny)
	m := about()
	m.Format = Format
	s.json(tagManifest, m)
	body := make([]byte, 512)
	sum := sha256.Sum256(body)
	s.copy(context.Background(), tagSnapshot, bytes.NewReader(append(body, sum[:]...)))
	s.json(tagTrust, authority())
	s.json(tagCensus, Census{})
	s.sum()
	f.Add(tiny.Bytes())
	f.Add([]byte(magic))
	f.Add([]byte(ageMagic + "v1\n-> X25519 a\nb\n--- c\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Inspect(context.Background(), bytes.NewReader(b)); err != nil && fault.KindOf(err) == fault.Internal {
			t.Errorf("inspect: %v", err)
		}
		o, err := Keys{}.open(context.Background(), bytes.NewReader(b))
		if err == nil {
			_, err = o.read(o.plain, io.Discard)
		}
		if err != nil && fault.KindOf(err) == fault.Internal {
			t.Errorf("read: %v", err)
		}
	})
}
