package trust

import (
	"encoding/json"
	"testing"
	"time"

	"flota/internal/machine"
)

// seeds are files of a real identity.
func seeds(f *testing.F, files ...string) {
	i, err := Found(Options{Dir: f.TempDir()}, subject("m1"))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := i.Successor(); err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := i.disk.read(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte{})
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
}

func FuzzBundle(f *testing.F) {
	seeds(f, bundleFile, leafFile, ringFile)
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := readBundle(text)
		if err != nil {
			return
		}
		again, err := readBundle(certPEM(certs...))
		if err != nil || len(again) != len(certs) || len(certs) == 0 {
			t.Errorf("not read again: %v", err)
		}
	})
}

func FuzzRing(f *testing.F) {
	seeds(f, bundleFile, ringFile, keyFile)
	f.Fuzz(func(t *testing.T, text []byte) {
		ring, err := readRing(text)
		if err != nil {
			return
		}
		out, err := writeRing(ring)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := readRing(out); err != nil || len(again) != len(ring) || len(ring) == 0 {
			t.Errorf("not read again: %v", err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	key, err := machineKey(disk{dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	csr, err := subject("m1").request(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, csr []byte) {
		s, hash, err := ReadRequest(csr)
		if err == nil && (len(hash) != 64 || machine.CheckName(s.Name) != nil) {
			t.Errorf("%+v, %q", s, hash)
		}
	})
}

func FuzzCluster(f *testing.F) {
	seeds(f, clusterFile)
	f.Add([]byte(`{"cluster":"0123456789abcdef0123456789abcdef","epoch":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseCluster(text)
		if err != nil {
			return
		}
		out, err := json.Marshal(r)
		if again, err2 := parseCluster(out); err != nil || err2 != nil || again != r {
			t.Errorf("%+v, %v, %v", r, err, err2)
		}
	})
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"removed":{"0123456789abcdef0123456789abcdef":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"removed":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		gone, err := parseGone(text)
		if err != nil {
			return
		}
		for id, at := range gone {
			if _, err := machine.ParseID(string(id)); err != nil {
				t.Error(err)
			}
			_ = removedError(id, at).Error()
			_ = time.Since(at)
		}
	})
}
