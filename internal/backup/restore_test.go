package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
	"flota/internal/unit"
)

func optionsFor(dir string) RestoreOptions {
	return RestoreOptions{DataDir: dir, Name: "m1", PeerAddr: "127.0.0.1:7701", PlainPeers: true, Log: quiet(), Files: map[string][]byte{"machine.json": []byte("{}")}}
}

// keysOf lists a table's keys.
func keysOf[T any](t *testing.T, table store.Table[T]) (keys []string) {
	t.Helper()
	all, _, err := table.List(patient(t), "", store.Read{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		keys = append(keys, e.Key)
	}
	return keys
}

// TestRestore makes a new cluster of the backup of one that had two machines.
func TestRestore(t *testing.T) {
	for name, keep := range map[string]bool{"machines dropped": false, "machines kept": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "data")
			o := optionsFor(dir)
			o.KeepMachines, o.PlainPeers = keep, !keep // once with the members' addresses of either kind
			res, err := Restore(patient(t), bytes.NewReader(written(t, light("p"))), Keys{Passphrase: "p"}, o)
			if err != nil {
				t.Fatal(err)
			}
			id := checkHome(t, dir)
			n := startStore(t, filepath.Join(dir, "store"), "m1")
			s := store.New(n.KV())
			machines, names, places := []string{string(id.ID())}, []string{"m1"}, []string(nil)
			if keep {
				machines, names, places = append(machines, string(m2)), append(names, "m2"), append(places, store.PlaceKey(m2, "web.service"))
				slices.Sort(machines)
			}
			for what, d := range map[string]string{
				"machines": cmp.Diff(machines, keysOf(t, s.Machines)), "names": cmp.Diff(names, keysOf(t, s.Names)), "places": cmp.Diff(places, keysOf(t, s.Places)),
			} {
				if d != "" {
					t.Error(what, d)
				}
			}
			if m, _, err := s.Machines.Get(patient(t), string(res.Machine), store.Read{}); err != nil || m.Value.Key != id.KeyHash() || m.Value.Name != "m1" {
				t.Errorf("first machine: %+v, %v", m.Value, err)
			}
			if left := append(append(append(keysOf(t, s.Alive), keysOf(t, s.States)...), keysOf(t, s.Voters)...), keysOf(t, s.Joins)...); len(left) > 0 {
				t.Error("left of the old cluster:", left)
			}
			if _, ok, err := s.KV.Get(patient(t), "flota/leader", store.Read{}); ok || err != nil {
				t.Error("the old leader is left", err)
			}
			if u, ok, err := s.Units.Get(patient(t), "web.service", store.Read{}); !ok || err != nil || u.Value.Target != unit.Launched {
				t.Errorf("unit: %+v, %v", u, err)
			}
			c, ok, err := s.Cluster.Get(patient(t), store.ThisCluster, store.Read{})
			if !ok || err != nil || c.Value.Epoch != 4 || c.Value.ID != cluster || res.Epoch != 4 {
				t.Errorf("cluster: %+v, %v; epoch %d", c.Value, err, res.Epoch)
			}
			if res.Dropped["flota/voters/"] != 2 || res.Dropped["flota/leader"] != 1 || res.Dropped["flota/machines/"]+len(machines) != 3 {
				t.Error("dropped:", res.Dropped)
			}
			if it, ok, err := s.KV.Get(patient(t), "user/leased", store.Read{}); !ok || err != nil || it.Lease == 0 {
				t.Errorf("an application's key under a lease: %+v, %v", it, err)
			} else if err := s.KV.Renew(patient(t), it.Lease); err != nil {
				t.Error("its lease cannot be renewed:", err)
			}
			checkTime(t, s.KV, res.Census.Revision)
		})
	}
}

// checkTime: who watched the old cluster is told to list again, from whatever revision of it.
func checkTime(t *testing.T, kv store.KV, old int64) {
	t.Helper()
	for _, after := range []int64{1, old - 1, old, old + 1000} {
		var last store.Update
		ctx, cancel := context.WithTimeout(patient(t), 10*time.Second)
		for last = range kv.Watch(ctx, "", after) {
			if len(last.Events) > 0 || last.Err != nil {
				break
			}
		}
		cancel()
		if !errors.Is(last.Err, store.ErrCompacted) {
			t.Errorf("a watch from %d of the old cluster gets %+v", after, last)
		}
	}
	if _, rev, err := kv.List(patient(t), "flota/", store.Read{}); err != nil || rev <= old+bump {
		t.Errorf("revision %d after %d, %v", rev, old, err)
	}
}

// checkHome looks at what `flota up` finds: this machine's identity, made by the old authority, and nothing that should not be there.
func checkHome(t *testing.T, dir string) *trust.Identity {
	t.Helper()
	i, err := trust.Open(trust.Options{Dir: filepath.Join(dir, "trust")})
	if err != nil {
		t.Fatal(err)
	}
	if i.Cluster() != cluster || i.Epoch() != 4 || i.Name() != "m1" || !bytes.Equal(i.Bundle(), authority().Bundle) {
		t.Errorf("identity of %q in cluster %s, epoch %d, other authority: %v", i.Name(), i.Cluster(), i.Epoch(), !bytes.Equal(i.Bundle(), authority().Bundle))
	}
	if _, err := i.Authority(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "machine-id")); err != nil || string(b) != string(i.ID())+"\n" {
		t.Errorf("machine-id %q of machine %s, %v", b, i.ID(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "trust", "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v", err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "trust")} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v", d, err)
		}
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 4 {
		t.Errorf("%v, %v: want machine-id, machine.json, store and trust", all, err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
	return i
}

// TestRestoreAgain restores a restored cluster's backup: revisions and epoch rise again, and the first restore's mark is not counted as a key.
func TestRestoreAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "one")
	if _, err := Restore(patient(t), bytes.NewReader(written(t, Seal{Plain: true})), Keys{}, optionsFor(dir)); err != nil {
		t.Fatal(err)
	}
	n := startStore(t, filepath.Join(dir, "store"), "m1")
	src := sourceOf(t, n)
	src.About = func() Manifest { m := about(); m.Epoch = 4; return m }
	var b bytes.Buffer
	if _, err := Write(patient(t), &b, src, Seal{Plain: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(patient(t), bytes.NewReader(b.Bytes()), Keys{}, t.TempDir()); err != nil {
		t.Error(err)
	}
	two := filepath.Join(t.TempDir(), "two")
	res, err := Restore(patient(t), &b, Keys{}, optionsFor(two))
	if err != nil || res.Epoch != 5 || res.Census.Revision < bump {
		t.Fatalf("%+v, %v", res, err)
	}
	checkTime(t, startStore(t, filepath.Join(two, "store"), "m1").KV(), res.Census.Revision)
}

// TestRestoreWithoutRecord restores a store of before there was a cluster's record.
func TestRestoreWithoutRecord(t *testing.T) {
	n := startStore(t, filepath.Join(t.TempDir(), "s"), "m1")
	var b bytes.Buffer
	if _, err := Write(patient(t), &b, sourceOf(t, n), Seal{Plain: true}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(patient(t), &b, Keys{}, optionsFor(dir)); err != nil {
		t.Fatal(err)
	}
	c, ok, err := store.New(startStore(t, filepath.Join(dir, "store"), "m1").KV()).Cluster.Get(patient(t), store.ThisCluster, store.Read{})
	if want := string(authority().Bundle); err != nil || !ok || c.Value.Epoch != 4 || c.Value.Trust != want {
		t.Errorf("%+v, %v, %v", c.Value, ok, err)
	}
}

// TestRestoreRefuses leaves everything as it was.
func TestRestoreRefuses(t *testing.T) {
	file := written(t, Seal{Plain: true})
	here := t.TempDir()
	used := filepath.Join(here, "used")
	if err := errors.Join(os.Mkdir(used, 0o700), os.WriteFile(filepath.Join(used, "machine-id"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(here, "link")
	if err := errors.Join(os.Mkdir(filepath.Join(here, "to"), 0o700), os.Symlink("to", link)); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(here, "fresh")
	for name, x := range map[string]struct {
		file   []byte
		change func(*RestoreOptions)
		kind   fault.Kind
	}{
		"not empty":    {file, func(o *RestoreOptions) { o.DataDir = used }, fault.Exists},
		"a file":       {file, func(o *RestoreOptions) { o.DataDir = filepath.Join(used, "machine-id") }, fault.Exists},
		"a link":       {file, func(o *RestoreOptions) { o.DataDir = link }, fault.Invalid},
		"no directory": {file, func(o *RestoreOptions) { o.DataDir = "" }, fault.Invalid},
		"no name":      {file, func(o *RestoreOptions) { o.Name = "" }, fault.Invalid},
		"no address":   {file, func(o *RestoreOptions) { o.PeerAddr = "here:1" }, fault.Invalid},
		"damaged":      {file[:len(file)-1], func(*RestoreOptions) {}, fault.Invalid},
		"foreign":      {[]byte("something else altogether"), func(*RestoreOptions) {}, fault.Invalid},
	} {
		o := optionsFor(fresh)
		x.change(&o)
		_, err := Restore(patient(t), bytes.NewReader(x.file), Keys{}, o)
		if !fault.Is(err, x.kind) {
			t.Errorf("%s: %v of kind %q", name, err, fault.KindOf(err))
		}
		if x.kind == fault.Exists && name == "not empty" && fault.Hint(err) == "" {
			t.Error("no hint")
		}
	}
	if all, err := os.ReadDir(here); err != nil || len(all) != 3 {
		t.Errorf("left: %v, %v", all, err)
	}
}

// TestRestoreTwiceAtOnce lets one win.
func TestRestoreTwiceAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s, err := openSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Restore(patient(t), bytes.NewReader(written(t, Seal{Plain: true})), Keys{}, optionsFor(dir))
	wantKind(t, err, fault.Conflict)
	if err := os.WriteFile(filepath.Join(s.dir, "left by a crash"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if _, err = Restore(patient(t), bytes.NewReader(written(t, Seal{Plain: true})), Keys{}, optionsFor(dir)); err != nil {
		t.Error(err)
	}
	s.lock.Close()
	checkHome(t, dir)
}

// TestRestoreKilled kills restores at different moments: there is no data directory afterwards, or a complete one, and the next restore works.
func TestRestoreKilled(t *testing.T) {
	const mark = "FLOTA_TEST_RESTORE"
	if dir := os.Getenv(mark); dir != "" {
		f, err := os.Open(os.Getenv(mark + "_FILE"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Println("begins")
		if _, err := Restore(context.Background(), f, Keys{}, optionsFor(dir)); err != nil {
			t.Fatal(err)
		}
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.flota")
	if err := os.WriteFile(file, written(t, Seal{Plain: true}), 0o600); err != nil {
		t.Fatal(err)
	}
	finished := 0
	for _, ms := range []int{0, 3, 10, 20, 40, 80, 150, 300, 600, 1000, 1500, 3000} {
		dir := filepath.Join(t.TempDir(), "data")
		cmd := exec.CommandContext(patient(t), self, "-test.run=^TestRestoreKilled$")
		cmd.Env = append(os.Environ(), mark+"="+dir, mark+"_FILE="+file)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(ms)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if _, err := os.Stat(dir); err != nil {
			if _, err := Restore(patient(t), bytes.NewReader(written(t, Seal{Plain: true})), Keys{}, optionsFor(dir)); err != nil {
				t.Errorf("after %d ms: the next restore: %v", ms, err)
			}
		} else {
			finished++
		}
		checkHome(t, dir)
		n := startStore(t, filepath.Join(dir, "store"), "m1")
		if c, ok, err := store.New(n.KV()).Cluster.Get(patient(t), store.ThisCluster, store.Read{}); err != nil || !ok || c.Value.Epoch != 4 {
			t.Errorf("after %d ms: %+v, %v", ms, c.Value, err)
		}
		n.Close()
	}
	t.Logf("%d of 12 had finished", finished)
}

// TestRestoreForeignStore refuses a store of another cluster than the manifest says.
func TestRestoreForeignStore(t *testing.T) {
	src := smallSource(t)
	src.About = func() Manifest { m := about(); m.Cluster = string(machine.ID("f" + cluster[1:])); return m }
	var b bytes.Buffer
	if _, err := Write(patient(t), &b, src, Seal{Plain: true}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	_, err := Restore(patient(t), &b, Keys{}, optionsFor(dir))
	wantKind(t, err, fault.Invalid)
	if _, err := os.Stat(dir); err == nil {
		t.Error("there is a data directory")
	}
}
