package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// file writes a unit file for the test and gives its path.
func (b *bed) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// well fails unless the cluster works: all machines are ready and a unit starts on each.
func (b *bed) well(t *testing.T) {
	t.Helper()
	b.flota(t, "start", fixture("everywhere.service"))
	if n := len(b.active(t)["everywhere.service"]); n != b.n {
		t.Errorf("everywhere.service is active on %d of %d machines", n, b.n)
	}
	b.flota(t, "destroy", "everywhere.service")
	ms, err := b.machines()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Status != "ready" {
			t.Errorf("%s is %s", m.Name, m.Status)
		}
	}
}

// TestBadPlacement asks for what no machine has: the command says why at once, and `why` too; the request stands until it is
// taken back.
func TestBadPlacement(t *testing.T) {
	b := borrow(t)
	nowhere := b.file(t, "nowhere.service", "[Service]\nExecStart=/bin/sleep infinity\n[X-Fleet]\nMachineMetadata=disk=none\n")
	b.fails(t, 1, []string{"nowhere.service", "cannot be placed", "disk", "hint:"}, "start", nowhere)
	if out := b.flota(t, "why", "nowhere"); !strings.Contains(out, "disk") {
		t.Errorf("why: %s", out)
	}
	huge := b.file(t, "huge.service", "[Service]\nExecStart=/bin/sleep infinity\nMemoryMax=900T\n")
	b.fails(t, 1, []string{"huge.service", "cannot be placed", "memory"}, "start", huge)
	b.flota(t, "machine", "label", "m2", "disk=none")
	wait(t, "nowhere.service on m2", func() error {
		if on := b.active(t)["nowhere.service"]; len(on) != 1 {
			return fmt.Errorf("it is on %v", on)
		}
		return nil
	})
	b.well(t)
}

// TestBadUnitFiles gives files that cannot be units: wrong usage, and the message names the file and what is wrong.
func TestBadUnitFiles(t *testing.T) {
	b := borrow(t)
	ten := strings.Repeat("# ten megabytes of comments, which say nothing at all to nobody\n", 10<<20/64)
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"header.service":   {"[Service\nExecStart=/bin/true\n", []string{"header.service", ":1"}},
		"nothing.service":  {"", []string{"nothing.service", "says nothing"}},
		"ten.service":      {ten + "[Service]\nExecStart=/bin/true\n", []string{"ten.service", "larger"}},
		"fleet.service":    {"[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nMachineOf=a.service\n", []string{"Global cannot be used with Peers"}},
		"glob.service":     {"[Service]\nExecStart=/bin/true\n[X-Fleet]\nConflicts=[a\n", []string{"glob.service", "Conflicts", "pattern"}},
		"nul.service":      {"[Service]\nExecStart=/bin/\x00true\n", []string{"nul.service"}},
		"relative.service": {"[Service]\nExecStart=bin/true\n", []string{"relative.service", "bin/true"}},
		"empty.service":    {"[Service]\nType=simple\n", []string{"empty.service", "ExecStart"}},
	} {
		file := b.file(t, name, c.text)
		r := b.run("flota", "start", file)
		if r.code != 2 && r.code != 1 {
			t.Errorf("%s: %v", name, r)
		}
		for _, w := range c.words {
			if !strings.Contains(r.out+r.err, w) {
				t.Errorf("%s: %q is not said: %v", name, w, r)
			}
		}
	}
	b.fails(t, 3, []string{"gone.service"}, "start", filepath.Join(t.TempDir(), "gone.service"))
	b.well(t)
}

// TestBadNames asks for units that are not there and for names that no unit can have.
func TestBadNames(t *testing.T) {
	b := borrow(t)
	for _, verb := range []string{"start", "stop", "restart", "load", "unload", "destroy", "cat", "status", "logs", "why", "reload", "submit"} {
		b.fails(t, 3, []string{"stranger", "hint:"}, verb, "stranger")
	}
	b.fails(t, 3, []string{"stranger"}, "stop", "stranger*")
	for _, name := range []string{"a..b", "..", "a b", "@a", "b\nc", strings.Repeat("x", 300)} {
		b.fails(t, 2, []string{"unit"}, "start", name)
	}
	b.fails(t, 2, []string{"template"}, "start", fixture("hello@.service"))
	b.fails(t, 2, []string{"too many", "10000"}, "start", "hello@{1..1000000}")
	b.fails(t, 2, []string{"too many"}, "start", "hello@{1..9999}{1..9999}")
	for _, path := range []string{"/v1/units/..%2F..%2Fetc%2Fpasswd", "/v1/units/a..b.service", "/v1/units/%00.service", "/fleet/v1/units/..%2Fa.service"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://flota"+path, strings.NewReader(`{"options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := b.http(1).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
		}
	}
	if units, err := b.units(); err != nil || len(units) > 0 {
		t.Errorf("units are there: %+v, %v", units, err)
	}
	b.well(t)
}

// TestBadCrash starts a unit that crashes at once, and one that is restarted for ever: both are told with their last words.
func TestBadCrash(t *testing.T) {
	b := borrow(t)
	crash := "[Service]\nExecStart=/bin/sh -c 'echo these are my last words; exit 7'\n"
	b.fails(t, 1, []string{"failed", "7", "these are my last words"}, "start", b.file(t, "crash.service", crash))
	b.fails(t, 1, []string{"again", "7", "these are my last words"}, "start", b.file(t, "again.service", crash+"Restart=always\nRestartSec=100ms\n"))
	b.fails(t, 1, []string{"203", "none/such"}, "start", b.file(t, "absent.service", "[Service]\nExecStart=/none/such\n"))
	b.fails(t, 3, nil, "status", "crash")
	if out := b.flota(t, "why", "crash"); !strings.Contains(out, "7") {
		t.Errorf("why: %s", out)
	}
	b.well(t)
}

// TestBadStop stops a unit that ignores SIGTERM: it is killed when its time is over, and systemctl would call that failed too.
func TestBadStop(t *testing.T) {
	b := borrow(t)
	b.flota(t, "start", b.file(t, "deaf.service", "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec=2s\n"))
	pid := b.unit(t, "deaf.service").States[0].MainPID
	began := time.Now()
	b.flota(t, "stop", "deaf")
	if took := time.Since(began); took < 1500*time.Millisecond || took > 30*time.Second {
		t.Errorf("stopped after %s, want 2 s and a little", took)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Errorf("process %d is there", pid)
	}
	if st := b.unit(t, "deaf.service").States[0]; st.Active != "failed" || st.Result != "timeout" {
		t.Errorf("it is %+v", st)
	}
	b.well(t)
}

// TestBadForks starts a unit that makes processes for as long as it can: TasksMax= holds it, its machine runs other units, and
// it can be stopped, with all of them.
func TestBadForks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("TasksMax= needs root: run make test as root")
	}
	b := borrow(t)
	b.flota(t, "start", b.file(t, "forks.service",
		"[Service]\nExecStart=/usr/bin/perl -e 'while (1) { my $p = fork; if (!defined $p) { select undef, undef, undef, 0.1; next } if (!$p) { sleep 1000; exit } }'\nTasksMax=32\n"))
	d := &debian{bed: b, t: t}
	wait(t, "as many processes as are allowed", func() error {
		n := len(d.tasks("forks.service"))
		if n > 32 {
			t.Fatalf("%d processes, TasksMax=32", n)
		}
		if n < 32 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	stays(t, "TasksMax=32", func() error {
		if n := len(d.tasks("forks.service")); n > 32 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	b.well(t)
	b.flota(t, "stop", "forks")
	if left := d.members("forks.service"); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// tasks are the processes of a unit, each once.
func (d *debian) tasks(unit string) map[string]bool {
	all := map[string]bool{}
	for _, pid := range d.members(unit) {
		all[pid] = true
	}
	return all
}
