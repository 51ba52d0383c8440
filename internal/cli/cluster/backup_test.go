package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"flota/internal/backup"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/trust"
	"flota/internal/unit"
)

const clusterID = "0123456789abcdef0123456789abcdef"

// plainBackup is what a machine sends: a real backup of a small store, made once.
var plainBackup struct {
	sync.Once
	bytes []byte
}

func plain(t *testing.T) []byte {
	t.Helper()
	plainBackup.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		n, err := etcd.Start(ctx, etcd.Options{Dir: t.TempDir(), Name: "m1", PeerAddr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
		must(err)
		defer n.Close()
		must(n.Ready(ctx))
		s := store.New(n.KV())
		must(s.Cluster.Create(ctx, store.ThisCluster, machine.Cluster{ID: clusterID, Epoch: 3}))
		must(s.Units.Put(ctx, "web.service", unit.Unit{Name: "web.service", Target: unit.Launched}, 0))
		id := machine.ID(strings.Repeat("1", 32))
		must(s.Machines.Create(ctx, string(id), machine.Machine{ID: id, Name: "m1"}))
		must(s.Names.Create(ctx, "m1", id))
		a, err := trust.NewAuthority(clusterID, nil, time.Now())
		must(err)
		key, err := a.PEM()
		must(err)
		var b bytes.Buffer
		_, err = backup.Write(ctx, &b, backup.Source{
			About: func() backup.Manifest {
				return backup.Manifest{Version: "test", Cluster: clusterID, Epoch: 3, Machine: id, Name: "m1"}
			},
			Snapshot: n.Snapshot, Scratch: t.TempDir(), Now: func() time.Time { return moment },
			Trust: func() (backup.Trust, error) { return backup.Trust{Bundle: a.Certificate(), Key: key}, nil },
		}, backup.Seal{Plain: true})
		must(err)
		plainBackup.bytes = b.Bytes()
	})
	if plainBackup.bytes == nil {
		t.Fatal("no backup")
	}
	return plainBackup.bytes
}

// sends has a machine send a backup, or only the beginning of one.
func (s *server) sends(b []byte, cut bool) {
	s.mux.HandleFunc("GET /v1/backup", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(b)
		if cut {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
}

// file writes one and gives its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// alone wants a file to be there for its owner, and nothing beside it.
func alone(t *testing.T, path string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(all) != 1 {
		t.Errorf("beside %s: %v, %v", path, all, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", path, st, err)
	}
}

func TestBackupToARecipient(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	keys := file(t, "key.txt", "# a key\n"+key.String()+"\n")
	s := newServer(t)
	s.sends(plain(t), false)
	path := filepath.Join(t.TempDir(), "it's.flota")
	w := &world{s: s, vars: map[string]string{passphraseVar: "/nowhere"}} // a flag counts more
	if err := w.run(t.Context(), "backup", path, "--recipient", key.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	alone(t, path)
	has(t, w.screen(), ", encrypted to 1 age recipient: cluster "+clusterID+" at 2031-02-03 04:05:06 UTC, copied from m1\n",
		"check it on another machine: flota backup verify "+path)
	wants(t, nil, "encrypted to 1 age recipient (X25519)\n", "backup", "inspect", path)
	wants(t, nil, "{\n  \"plain\": false,\n  \"recipients\": 1,\n  \"kinds\": [\n    \"X25519\"\n  ]\n}\n", "backup", "inspect", path, "--json")
	(&world{}).fails(t, fault.Denied, "--identity FILE", "backup", "verify", path)
	(&world{}).fails(t, fault.Denied, "--identity FILE", "restore", path, "--name", "m1", "--addr", "10.0.0.1")
	(&world{}).fails(t, fault.Invalid, "want one of --passphrase-file and --identity", "backup", "verify", path, "--identity", keys, "--passphrase-file", keys)
	(&world{}).fails(t, fault.Invalid, "age key file", "backup", "verify", path, "--identity", file(t, "x", "nonsense"))
	w = &world{}
	if err := w.run(t.Context(), "backup", "verify", path, "--identity", keys); err != nil {
		t.Fatal(err)
	}
	has(t, w.screen(), "cluster: "+clusterID+", epoch 3\nmade: 2031-02-03 04:05:06 UTC by m1, flota test\nstore: ", "4 keys of ",
		"KEYS UNDER       COUNT\nflota/cluster/   1\nflota/machines/  1\nflota/names/     1\nflota/units/     1\n\nThe backup is good")
}

func TestBackupToStandardOutput(t *testing.T) {
	s := newServer(t)
	s.sends(plain(t), false)
	w := &world{s: s}
	if err := w.run(t.Context(), "backup", "-", "--plain", "--json"); err != nil {
		t.Fatal(err)
	}
	if w.out.String() != string(plain(t)) {
		t.Error("standard output is not the backup alone")
	}
	has(t, w.errs.String(), "not encrypted: cluster ")
	w2 := &world{in: strings.NewReader(w.out.String())}
	if err := w2.run(t.Context(), "backup", "inspect", "-"); err != nil {
		t.Error(err)
	}
	if got, want := w2.screen(), "not encrypted\ncluster: "+clusterID+", epoch 3\nmade: 2031-02-03 04:05:06 UTC by m1, flota test\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w2 = &world{in: strings.NewReader(w.out.String())}
	var rep backup.Report
	if err := w2.run(t.Context(), "backup", "verify", "-", "--json"); err != nil || json.Unmarshal([]byte(w2.out.String()), &rep) != nil || rep.Census.Keys != 4 {
		t.Error(err, w2.screen())
	}
	bad := []byte(w.out.String())
	bad[len(bad)/2] ^= 4
	(&world{in: bytes.NewReader(bad)}).fails(t, fault.Invalid, "damaged", "backup", "verify", "-")
	(&world{in: bytes.NewReader(bad[:len(bad)/2])}).fails(t, fault.Invalid, "cut short", "backup", "verify", "-")
	(&world{in: bytes.NewReader(plain(t)), vars: map[string]string{passphraseVar: file(t, "p", "x\n")}}).fails(t, fault.Conflict, "not encrypted, but a key", "backup", "verify", "-")
}

// Whatever goes wrong, there is no file, and one that was there stays.
func TestBackupsThatFail(t *testing.T) {
	old := file(t, "old.flota", "an older one")
	for name, c := range map[string]struct {
		set   func(*server)
		kind  fault.Kind
		words string
	}{
		"refused": {func(s *server) {
			s.answers("GET /v1/backup", fault.WithHint(fault.New(fault.Unavailable, "m1 holds no copy of the store"), "ask a voter"))
		}, fault.Unavailable, "ask a voter"},
		"cut off":    {func(s *server) { s.sends(plain(t)[:5000], true) }, fault.Unavailable, "read the backup"},
		"cut short":  {func(s *server) { s.sends(plain(t)[:5000], false) }, fault.Invalid, "cut short"},
		"not a copy": {func(s *server) { s.sends([]byte("<html>hello, this is a proxy"), false) }, fault.Invalid, "no backup"},
	} {
		s := newServer(t)
		c.set(s)
		(&world{s: s}).fails(t, c.kind, c.words, "backup", old, "--plain")
		if b, err := os.ReadFile(old); err != nil || string(b) != "an older one" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		alone(t, old)
	}
	s := newServer(t)
	s.sends(plain(t), false)
	(&world{s: s}).fails(t, fault.Internal, "write the backup", "backup", "/nowhere/x.flota", "--plain")
}

// quick is a backup sealed with a passphrase that takes next to no work to try.
func quick(t *testing.T, passphrase string) string {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(8)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain(t)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file(t, "quick.flota", b.String())
}

func TestPassphrases(t *testing.T) {
	s := newServer(t)
	s.sends(plain(t), false)
	path := filepath.Join(t.TempDir(), "b.flota")
	w := &world{s: s}
	if err := w.types(t, map[string]string{"Passphrase for the backup: ": "open sesame", "The same again: ": "open sesam"}, "backup", path); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	w = &world{s: s}
	if err := w.types(t, map[string]string{"Passphrase for the backup: ": ""}, "backup", path); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	s.was()
	person, program := terminal(t)
	var errs buffer
	sealer := &tool{Env: Env{In: program, Err: &errs, Getenv: func(string) string { return "" }}}
	if _, err := person.WriteString("open sesame\nopen sesame\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := sealer.seal(t.Context(), sealFlags{}); err != nil || got.Passphrase != "open sesame" || strings.Contains(errs.String(), "sesame") {
		t.Errorf("%+v, %v, %q", got, err, errs.String())
	}
	path = quick(t, "open sesame")
	wants(t, nil, "encrypted with a passphrase\n", "backup", "inspect", path)
	(&world{}).fails(t, fault.Denied, "--passphrase-file FILE", "backup", "verify", path) // nobody can be asked
	w = &world{}
	if err := w.types(t, map[string]string{"Passphrase of the backup: ": "open sesam"}, "backup", "verify", path); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
	w = &world{}
	if err := w.types(t, map[string]string{"Passphrase of the backup: ": "open sesame"}, "restore", path, "--data-dir", filepath.Join(t.TempDir(), "d"), "--name", "r1"); err != nil {
		t.Error(err)
	}
	secret := file(t, "p", "open sesame\r\nand more\n")
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	w = &world{vars: map[string]string{passphraseVar: secret}}
	if err := w.run(t.Context(), "backup", "verify", path); err != nil {
		t.Fatal(err)
	}
	has(t, w.screen(), "warning: not only you can read "+secret+" (mode 0644); chmod 600 changes that", "The backup is good")
	(&world{}).fails(t, fault.Invalid, "is empty", "backup", "verify", path, "--passphrase-file", file(t, "empty", "\n"))
}

func TestRestore(t *testing.T) {
	path := file(t, "b.flota", string(plain(t)))
	dir := filepath.Join(t.TempDir(), "a data dir")
	w := &world{}
	if err := w.run(t.Context(), "restore", path, "--data-dir", dir, "--name", "r1", "--addr", "10.1.2.3"); err != nil {
		t.Fatal(err)
	}
	id, err := os.ReadFile(filepath.Join(dir, "machine-id"))
	if err != nil {
		t.Fatal(err)
	}
	want := dir + " holds machine r1 (" + string(id[:8]) + ") of cluster " + clusterID + `, epoch 4, as it was at 2031-02-03 04:05:06 UTC.
kept: 1 unit
not kept: 1 machine

next:
  flota up --data-dir '` + dir + `'
  flota token create --uses N       prints what to run on each other machine
  flota rebalance                   when they are there
`
	if w.screen() != want {
		t.Errorf("%s\nwant\n%s", w.screen(), want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, selfFile)); err != nil || string(b) != `{"name":"r1","addr":"10.1.2.3"}`+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := trust.Open(trust.Options{Dir: filepath.Join(dir, "trust")}); err != nil {
		t.Error(err)
	}
	(&world{}).fails(t, fault.Exists, "move the directory aside", "restore", path, "--data-dir", dir, "--name", "r1", "--addr", "10.1.2.3")
	w = &world{in: bytes.NewReader(plain(t))}
	other := filepath.Join(t.TempDir(), "d")
	if err := w.run(t.Context(), "restore", "-", "--data-dir", other, "--name", "m9", "--keep-machines", "--json"); err != nil {
		t.Fatal(err)
	}
	var got restored
	if err := json.Unmarshal([]byte(w.out.String()), &got); err != nil || got.Name != "m9" || got.DataDir != other || got.Epoch != 4 || got.Manifest.Cluster != clusterID {
		t.Errorf("%v %+v", err, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&world{}).run(ctx, "restore", path, "--data-dir", other+"2", "--name", "m1", "--addr", "10.0.0.1"); err == nil {
		t.Error("an interrupted restore succeeds")
	}
	if all, err := os.ReadDir(filepath.Dir(other)); err != nil || len(all) != 1 {
		t.Errorf("left: %v, %v", all, err)
	}
}

// A full disk or a closed pipe behind standard output ends the sending too.
func TestBackupNobodyReads(t *testing.T) {
	s := newServer(t)
	s.sends(plain(t), false)
	c := &tool{Env: Env{Out: broken{}, Err: io.Discard, JSON: func() bool { return false }}}
	client, err := (&world{s: s}).api()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := c.backup(t.Context(), client, stdio, backup.Seal{Plain: true}); err == nil || !strings.Contains(err.Error(), "write the backup") {
		t.Error(err)
	}
}

// broken takes nothing.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestSchedule(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to := key.Recipient().String()
	s := newServer(t)
	set := machine.Backup{Every: 90 * time.Minute, Keep: 8, Recipients: []string{to}}
	s.answers("GET /v1/backup/schedule", machine.Backup{}, machine.Backup{}, set, set, machine.Backup{Every: -1}, set, set)
	s.answers("PUT /v1/backup/schedule", set, machine.Backup{Every: -1, Keep: 8}, machine.Backup{Keep: 3}, fault.New(fault.Invalid, "too often"))
	plain := "encrypted: no; readable for root, as the store on the same disk is\n"
	wants(t, s, "    every: 12h\n     keep: the newest 5 on each voter\n"+plain, "backup", "schedule")
	wants(t, s, "    every: 1h 30min\n     keep: the newest 8 on each voter\nencrypted: to "+to+"\n", "backup", "schedule", "--every", "1.5h", "--keep", "8", "--recipient", to)
	wants(t, s, "    every: never; copies that are there stay\n", "backup", "schedule", "--every", "never") // the rest stays as it is
	wants(t, s, "    every: 12h\n     keep: the newest 3 on each voter\n"+plain, "backup", "schedule", "--plain", "--keep", "3", "--every", "12h")
	wants(t, s, "{\n  \"every\": -1,\n  \"keep\": 5\n}\n", "backup", "schedule", "--json")
	(&world{s: s}).fails(t, fault.Invalid, "too often", "backup", "schedule", "--every", "1s")
	s.was("GET /v1/backup/schedule", "GET /v1/backup/schedule", `PUT /v1/backup/schedule {"every":5400000000000,"keep":8,"recipients":["`+to+`"]}`,
		"GET /v1/backup/schedule", `PUT /v1/backup/schedule {"every":-1,"keep":8,"recipients":["`+to+`"]}`,
		"GET /v1/backup/schedule", `PUT /v1/backup/schedule {"every":43200000000000,"keep":3}`, "GET /v1/backup/schedule",
		"GET /v1/backup/schedule", `PUT /v1/backup/schedule {"every":1000000000,"keep":8,"recipients":["`+to+`"]}`)
}
