package trust

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flota/internal/fault"
)

func TestFoundAndOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trust")
	if _, err := Open(Options{Dir: dir}); !fault.Is(err, fault.NotFound) || fault.Hint(err) == "" {
		t.Fatalf("nothing there: %v", err)
	}
	i := found(t, Options{Dir: dir})
	if _, err := Found(Options{Dir: dir}, subject("m1")); !fault.Is(err, fault.Exists) {
		t.Errorf("found twice: %v", err)
	}
	j, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if j.ID() != idOf("m1") || j.Name() != "m1" || j.Cluster() != i.Cluster() || j.CAHash() != i.CAHash() || j.KeyHash() != i.KeyHash() || !bytes.Equal(j.Bundle(), i.Bundle()) {
		t.Errorf("opened %+v, founded %+v", j, i)
	}
	if d := time.Until(j.Expires()); d < Life-time.Minute || d > Life {
		t.Errorf("expires in %s", d)
	}
	if ca := j.now.Load().trusted[0]; ca.NotAfter.Year() != 9999 {
		t.Errorf("the authority ends %s", ca.NotAfter)
	}
	if _, err := j.Authority(); err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700, keyFile: 0o600, ringFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %s, want %s (%v)", name, info.Mode().Perm(), mode, err)
		}
	}
}

func TestKeysAreClosedToOthers(t *testing.T) {
	i := found(t, Options{})
	if err := errors.Join(os.Chmod(i.disk.path(keyFile), 0o644), os.Chmod(i.disk.path(ringFile), 0o640), os.Chmod(i.o.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(i.o); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{i.disk.path(keyFile), i.disk.path(ringFile), i.o.Dir} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %s (%v)", p, info.Mode(), err)
		}
	}
}

func TestJoin(t *testing.T) {
	m1 := found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	if m2.Cluster() != m1.Cluster() || m2.CAHash() != m1.CAHash() || m2.ID() != idOf("m2") {
		t.Errorf("joined %+v", m2)
	}
	if _, err := m2.Authority(); !fault.Is(err, fault.NotFound) {
		t.Errorf("a client has the authority: %v", err)
	}
	if _, err := m2.Keys(); !fault.Is(err, fault.NotFound) {
		t.Errorf("a client has keys: %v", err)
	}
	again, err := Request(m2.o, subject("m2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, key, err := ReadRequest(again); err != nil || key != m2.KeyHash() {
		t.Errorf("a repeated request is for another key (%v)", err)
	}
	if _, err := Install(m2.o, grant(t, m1, again)); err != nil {
		t.Errorf("a repeated join: %v", err)
	}
	other := found(t, Options{})
	if _, err := Install(m2.o, grant(t, other, again)); !fault.Is(err, fault.Conflict) {
		t.Errorf("a join to another cluster: %v", err)
	}
}

func TestInstallRefuses(t *testing.T) {
	m1, other := found(t, Options{}), found(t, Options{})
	o := Options{Dir: filepath.Join(t.TempDir(), "trust")}
	csr, err := Request(o, subject("m2"))
	if err != nil {
		t.Fatal(err)
	}
	good, foreign := grant(t, m1, csr), grant(t, other, csr)
	csr3, err := Request(Options{Dir: t.TempDir()}, subject("m3"))
	if err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]Grant{
		"nothing":         {},
		"no bundle":       {Certificate: good.Certificate, Cluster: good.Cluster},
		"another cluster": {Certificate: good.Certificate, Bundle: good.Bundle, Cluster: foreign.Cluster},
		"foreign leaf":    {Certificate: foreign.Certificate, Bundle: good.Bundle, Cluster: foreign.Cluster},
		"another key":     grant(t, m1, csr3),
		"a leaf as CA":    {Certificate: good.Certificate, Bundle: good.Certificate, Cluster: good.Cluster},
		"a key in it":     {Certificate: good.Certificate, Bundle: append(bytes.Clone(good.Bundle), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")...), Cluster: good.Cluster},
	} {
		if _, err := Install(o, g); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Open(o); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s left an identity: %v", name, err)
		}
	}
}

func TestAuthorityMoves(t *testing.T) {
	m1 := found(t, Options{})
	m2 := join(t, m1, "m2", Options{})
	keys, err := m1.Keys()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // repeated
		if err := m2.KeepAuthority(keys); err != nil {
			t.Fatal(err)
		}
	}
	m2, err = Open(m2.o)
	if err != nil {
		t.Fatal(err)
	}
	m3 := join(t, m2, "m3", Options{})
	if m3.CAHash() != m1.CAHash() {
		t.Error("m2 is another authority")
	}
	if info, err := os.Stat(m2.disk.path(ringFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v %v", info, err)
	}
	for range 2 {
		if err := m2.DropAuthority(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(m2.disk.path(ringFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ca.key is still there: %v", err)
	}
	if m2, err = Open(m2.o); err != nil {
		t.Fatal(err)
	}
	if _, err := m2.Authority(); !fault.Is(err, fault.NotFound) {
		t.Errorf("the authority is still there: %v", err)
	}
	for _, bad := range []string{"", "x", string(m1.Bundle())} {
		if err := m2.KeepAuthority([]byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("keep %.20q: %v", bad, err)
		}
	}
}

func TestEpochNeverGoesBack(t *testing.T) {
	i := found(t, Options{})
	if err := i.SetEpoch(3); err != nil {
		t.Fatal(err)
	}
	if err := i.SetEpoch(2); !fault.Is(err, fault.Conflict) {
		t.Errorf("back to 2: %v", err)
	}
	j, err := Open(i.o)
	if err != nil || j.Epoch() != 3 {
		t.Errorf("epoch %d, %v", j.Epoch(), err)
	}
}

func TestIssueSaysOnlyWhatItIsTold(t *testing.T) {
	m1 := found(t, Options{})
	csr, err := Request(Options{Dir: t.TempDir()}, subject("m2"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := m1.Authority()
	if err != nil {
		t.Fatal(err)
	}
	want := Subject{ID: idOf("m9"), Name: "m9", IPs: []netip.Addr{netip.MustParseAddr("fd00::9")}, Cluster: m1.Cluster()}
	text, err := a.Issue(csr, want, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certs, err := readCerts(text, "it")
	if err != nil {
		t.Fatal(err)
	}
	got, err := subjectOf(certs[0])
	if err != nil || got.ID != want.ID || got.Name != want.Name || len(got.IPs) != 1 || got.IPs[0] != want.IPs[0] || certs[0].IsCA {
		t.Errorf("issued for %+v, %v", got, err)
	}
	for name, s := range map[string]Subject{
		"no id":      {Name: "m2", Cluster: m1.Cluster()},
		"no name":    {ID: idOf("m2"), Cluster: m1.Cluster()},
		"bad name":   {ID: idOf("m2"), Name: "M 2", Cluster: m1.Cluster()},
		"no cluster": {ID: idOf("m2"), Name: "m2"},
		"any addr":   {ID: idOf("m2"), Name: "m2", Cluster: m1.Cluster(), IPs: []netip.Addr{netip.IPv4Unspecified()}},
	} {
		if _, err := a.Issue(csr, s, 0, time.Now()); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	csr[len(csr)-1] ^= 1
	if _, err := a.Issue(csr, want, 0, time.Now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a request with a wrong signature: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	whole := found(t, Options{})
	for _, name := range []string{leafFile, bundleFile, keyFile, clusterFile, ringFile} {
		for _, damage := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", `{"cluster":"00000000000000000000000000000000"}`} {
			dir := copyDir(t, whole.o.Dir)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Options{Dir: dir}); !fault.Is(err, fault.Invalid) || !bytes.Contains([]byte(err.Error()), []byte(name)) || fault.Hint(err) == "" && name != keyFile {
				t.Errorf("%s with %.10q: %v", name, damage, err)
			}
		}
	}
}
