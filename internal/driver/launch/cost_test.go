package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"flota/internal/driver/launch/child"
)

// TestHelperCostsTheSameInABigBinary compares processor time: the helper of a binary with etcd in it must be done before
// etcd's packages spend time on themselves. If this fails, package child imports something that it must not.
func TestHelperCostsTheSameInABigBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("links etcd")
	}
	dir := t.TempDir()
	for _, name := range []string{"bare", "big"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), "./testdata/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	bare, big := cost(t, filepath.Join(dir, "bare"), child.Name), cost(t, filepath.Join(dir, "big"), child.Name)
	whole := cost(t, filepath.Join(dir, "big"), "big")
	t.Logf("helper in a bare binary %v, in a big one %v; the big one without helper %v", bare, big, whole)
	if big > 3*bare {
		t.Errorf("the helper of the big binary takes %v, of the bare one %v", big, bare)
	}
	if big > whole/2 {
		t.Errorf("the helper takes %v, all initialisation %v", big, whole)
	}
}

// cost gives the least processor time of some runs. A helper without a spec ends at once.
func cost(t *testing.T, path, argv0 string) time.Duration {
	t.Helper()
	least := time.Hour
	const runs = 10
	for range runs {
		cmd := exec.Command(path)
		cmd.Args = []string{argv0}
		cmd.Env = helperEnv
		cmd.Run() // the helper's failure is wanted
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		least = min(least, time.Duration(u.Utime.Nano()+u.Stime.Nano()))
	}
	return least
}

func BenchmarkStart(b *testing.B) {
	spec := Spec{Path: "/bin/true", Args: []string{"true"}}
	for b.Loop() {
		c, err := Start(spec, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Exec(b.Context()); err != nil {
			b.Fatal(err)
		}
		var st syscall.WaitStatus
		if _, err := syscall.Wait4(c.PID, &st, 0, nil); err != nil || st != 0 {
			b.Fatal(st, err)
		}
		c.Close()
	}
}
