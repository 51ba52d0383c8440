package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// fixture is the path of a unit of testdata; the file need not exist if its template does.
func fixture(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", "units", name))
	if err != nil {
		panic(err) // the working directory is gone
	}
	return path
}

// fixtures are the paths of several units.
func fixtures(names ...string) (paths []string) {
	for _, n := range names {
		paths = append(paths, fixture(n))
	}
	return paths
}

// hellos are the instances 1 to n of hello@.service.
func hellos(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("hello@%d.service", i+1))
	}
	return names
}

// rows runs a list command of fleetctl without its header and gives the words of each line.
func (b *bed) rows(t *testing.T, args ...string) (rows [][]string) {
	t.Helper()
	for line := range strings.Lines(b.fleetctl(t, append(args, "--no-legend", "--full")...)) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// active gives the machine ids of the units that are active, as fleetctl lists them.
func (b *bed) active(t *testing.T) map[string][]string {
	t.Helper()
	on := map[string][]string{}
	for _, r := range b.rows(t, "list-units", "--fields", "unit,active,machine") {
		if r[1] == "active" {
			id, _, _ := strings.Cut(r[2], "/")
			on[r[0]] = append(on[r[0]], id)
		}
	}
	return on
}

// waitActive waits until n units, those on several machines counted on each, are active and none else, and gives their machines.
func (b *bed) waitActive(t *testing.T, n int) (on map[string][]string) {
	t.Helper()
	wait(t, fmt.Sprintf("%d active units", n), func() error {
		on = b.active(t)
		sum := 0
		for _, ids := range on {
			sum += len(ids)
		}
		if sum != n {
			return fmt.Errorf("active are %v", on)
		}
		return nil
	})
	return on
}

// waitListed waits until a list of fleetctl names just these units in its first column.
func (b *bed) waitListed(t *testing.T, list string, names []string) {
	t.Helper()
	wait(t, list, func() error {
		var got []string
		for _, r := range b.rows(t, list, "--fields", "unit") {
			got = append(got, r[0])
		}
		if !slices.Equal(got, names) {
			return fmt.Errorf("it names %v, want %v", got, names)
		}
		return nil
	})
}

// waitDone waits until n units are where the verb takes them.
func (b *bed) waitDone(t *testing.T, verb string, names []string) {
	t.Helper()
	switch verb {
	case "submit":
		b.waitListed(t, "list-unit-files", names)
	case "load":
		b.waitListed(t, "list-units", names)
	default:
		on := b.waitActive(t, len(names))
		for _, n := range names {
			if len(on[n]) != 1 {
				t.Errorf("%s is active on %d machines", n, len(on[n]))
			}
		}
	}
}

// undo is the verb that takes back what another did.
var undo = map[string]string{"submit": "destroy", "load": "unload", "start": "stop", "restart": "stop"}

// cycle does, undoes and does again with n units, as fleet's tests of the verbs do.
func cycle(t *testing.T, verb string, n int) {
	b := borrow(t)
	names := hellos(n)
	for range 2 {
		out := b.run("fleetctl", append([]string{verb}, fixtures(names...)...)...)
		if out.code != 0 || strings.Contains(out.err, "Error") {
			t.Fatal(out)
		}
		b.waitDone(t, verb, names)
		for _, name := range names {
			b.fleetctl(t, undo[verb], name)
		}
		b.waitDone(t, verb, nil)
	}
}

// TestUnitRunnable starts one unit on a cluster of one machine.
func TestUnitRunnable(t *testing.T) {
	b := newCluster(t, 1)
	b.fleetctl(t, "start", fixture("hello.service"))
	if on := b.waitActive(t, 1); len(on["hello.service"]) != 1 {
		t.Errorf("active are %v", on)
	}
}

func TestUnitSubmit(t *testing.T) { cycle(t, "submit", 9) }
func TestUnitLoad(t *testing.T)   { cycle(t, "load", 6) }
func TestUnitStart(t *testing.T)  { cycle(t, "start", 3) }

// replace changes the files of n units and replaces each with verb --replace; without the flag nothing changes.
func replace(t *testing.T, verb string, n int) {
	b := borrow(t)
	names := hellos(n)
	b.fleetctl(t, append([]string{verb}, fixtures(names...)...)...)
	b.waitDone(t, verb, names)
	text, err := os.ReadFile(fixture("hello@.service"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "Hello, World!", "Hello again!", 1)
	dir := t.TempDir()
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		before := b.fleetctl(t, "cat", name)
		if r := b.run("fleetctl", verb, file); r.code != 0 || !strings.Contains(r.err, "Add --replace to override") {
			t.Errorf("a file that differs, without --replace: %v", r)
		}
		if now := b.fleetctl(t, "cat", name); now != before {
			t.Errorf("%s changed without --replace: %s", name, now)
		}
		b.fleetctl(t, verb, "--replace", file)
		if now := b.fleetctl(t, "cat", name); now == before || !strings.Contains(now, "Hello again!") {
			t.Errorf("%s is not replaced: %s", name, now)
		}
	}
	b.waitDone(t, verb, names)
	if verb == "start" {
		for _, name := range names {
			wait(t, "new output of "+name, func() error {
				if out := b.fleetctl(t, "journal", name); !strings.Contains(out, "Hello again!") {
					return fmt.Errorf("journal: %s", out)
				}
				return nil
			})
		}
	}
	for _, name := range names {
		b.fleetctl(t, undo[verb], name)
	}
	b.waitDone(t, verb, nil)
}

func TestUnitSubmitReplace(t *testing.T) { replace(t, "submit", 9) }
func TestUnitLoadReplace(t *testing.T)   { replace(t, "load", 6) }
func TestUnitStartReplace(t *testing.T)  { replace(t, "start", 3) }

// TestUnitRestart restarts three units: each runs again, in a process of its own.
func TestUnitRestart(t *testing.T) {
	b := borrow(t)
	names := hellos(3)
	b.fleetctl(t, append([]string{"start"}, fixtures(names...)...)...)
	b.waitDone(t, "start", names)
	before := map[string]int{}
	for _, n := range names {
		before[n] = b.unit(t, n).States[0].MainPID
	}
	b.fleetctl(t, append([]string{"restart"}, names...)...)
	b.waitDone(t, "restart", names)
	for _, n := range names {
		if pid := b.unit(t, n).States[0].MainPID; pid == before[n] || pid == 0 {
			t.Errorf("%s runs as process %d, as before", n, pid)
		}
	}
	for _, n := range names {
		b.fleetctl(t, "stop", n)
	}
	b.waitActive(t, 0)
}

// TestInstallUnit loads a unit that is bound to another and wanted by it ([Install] WantedBy=): nobody starts it, it runs while the other does.
func TestInstallUnit(t *testing.T) {
	b := borrow(t)
	b.fleetctl(t, "load", fixture("hello.service"))
	b.fleetctl(t, "load", fixture("sidekick.service"))
	b.waitListed(t, "list-units", []string{"hello.service", "sidekick.service"})
	b.waitActive(t, 0)
	for range 2 {
		b.fleetctl(t, "start", "hello.service")
		on := b.waitActive(t, 2)
		if one(t, on, "hello.service") != one(t, on, "sidekick.service") {
			t.Errorf("active are %v", on)
		}
		stays(t, "both run", func() error {
			if on := b.active(t); len(on) != 2 {
				return fmt.Errorf("active are %v", on)
			}
			return nil
		})
		b.fleetctl(t, "stop", "hello.service")
		b.waitActive(t, 0)
	}
	// Once it is started for itself it keeps its process, and is stopped as any other.
	b.fleetctl(t, "start", "hello.service")
	b.waitActive(t, 2)
	before := b.unit(t, "sidekick.service").States[0].MainPID
	b.fleetctl(t, "start", "sidekick.service")
	wait(t, "the run that was asked for", func() error {
		u := b.unit(t, "sidekick.service")
		if st := u.States[0]; st.Run == 0 || st.Active != "active" || st.MainPID != before {
			return fmt.Errorf("process %d before, now %+v", before, st)
		}
		return nil
	})
	b.fleetctl(t, "stop", "sidekick.service")
	if on := b.waitActive(t, 1); len(on["hello.service"]) != 1 {
		t.Errorf("active are %v", on)
	}
}

// TestUnitSSHActions asks for what fleet fetched over SSH, wherever the unit is. Here the API brings it; fleetctl ssh says that
// it is not offered.
func TestUnitSSHActions(t *testing.T) {
	b := borrow(t)
	b.fleetctl(t, "start", "--no-block", fixture("hello.service"))
	b.waitActive(t, 1)
	for i := 1; i <= 3; i++ {
		if out := b.fleetctl(t, b.at(i), "--strict-host-key-checking=false", "status", "hello.service"); !strings.Contains(out, "Active: active") {
			t.Errorf("status by m%d: %s", i, out)
		}
		if out := b.fleetctl(t, b.at(i), "journal", "--sudo", "hello.service"); !strings.Contains(out, "Hello, World!") {
			t.Errorf("journal by m%d: %s", i, out)
		}
	}
	if r := b.run("fleetctl", "ssh", "hello.service", "echo", "foo"); r.code != 1 || !strings.Contains(r.err, "not offered") {
		t.Error(r)
	}
}

// TestUnitCat compares a file with what comes back.
func TestUnitCat(t *testing.T) {
	b := borrow(t)
	text, err := os.ReadFile(fixture("hello.service"))
	if err != nil {
		t.Fatal(err)
	}
	b.fleetctl(t, "submit", fixture("hello.service"))
	b.waitListed(t, "list-unit-files", []string{"hello.service"})
	if out := b.fleetctl(t, "cat", "hello.service"); strings.TrimSpace(out) != strings.TrimSpace(string(text)) {
		t.Errorf("cat prints\n%s\nwant\n%s", out, text)
	}
}

// TestUnitStatus asks for the status of a unit that is loaded and does not run: systemctl's exit code for that is 3.
func TestUnitStatus(t *testing.T) {
	b := borrow(t)
	b.fleetctl(t, "load", fixture("hello.service"))
	b.waitListed(t, "list-units", []string{"hello.service"})
	if r := b.run("fleetctl", "status", "hello.service"); r.code != 3 || !strings.Contains(r.out, "Loaded: loaded") {
		t.Error(r)
	}
}

// TestListUnitFilesOrder submits 20 units one by one and wants them sorted.
func TestListUnitFilesOrder(t *testing.T) {
	b := borrow(t)
	var names []string
	for i := range 20 {
		name := fmt.Sprintf("hello@%02d.service", (i*7)%20+1) // any order but the sorted one
		b.fleetctl(t, "submit", fixture(name))
		names = append(names, name)
	}
	sort.Strings(names)
	b.waitListed(t, "list-unit-files", names)
}

// TestTunnelScheduleBatchUnits starts units through a machine's address instead of its socket; fleet used an SSH tunnel for that.
func TestTunnelScheduleBatchUnits(t *testing.T) {
	b := borrow(t)
	remote := "--endpoint=http://" + b.base + ".3:7700"
	b.fleetctl(t, remote, "start", fixture("hello.service"))
	b.waitActive(t, 1)
	b.fleetctl(t, append([]string{remote, "start"}, fixtures(hellos(10)...)...)...)
	b.waitActive(t, 11)
}

// TestSystemdUnitFlow follows the three words of a unit's state through load, start, stop and unload.
func TestSystemdUnitFlow(t *testing.T) {
	b := borrow(t)
	want := func(words string) {
		t.Helper()
		wait(t, "state "+words, func() error {
			got := ""
			for _, r := range b.rows(t, "list-units", "--fields", "unit,load,active,sub") {
				got += strings.Join(r[1:], " ")
			}
			if got != words {
				return fmt.Errorf("state is %q", got)
			}
			return nil
		})
	}
	b.fleetctl(t, "load", fixture("hello.service"))
	want("loaded inactive dead")
	b.fleetctl(t, "start", "hello.service")
	want("loaded active running")
	b.fleetctl(t, "stop", "hello.service")
	want("loaded inactive dead")
	b.fleetctl(t, "unload", "hello.service")
	want("")
}
