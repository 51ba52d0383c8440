package process_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is a user and group that owns nothing.
const nobody = 65534

// TestNotRoot runs the tests that need no rights again as a user who has none.
func TestNotRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("this run is the one without root")
		return
	}
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	exe := filepath.Join(dir, "process.test")
	if err := copyFile(exe); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.v", "-test.run", "TestConformance/(Start|Stop|Fence|Agent|Backend|Power|Stuck|Logs|Unload)|ReExec|Killed|Forking|Notify|PowerCut|Orphans")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + dir, "HOME=" + dir}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("as nobody: %v", err)
		for line := range strings.Lines(out.String()) {
			if !strings.HasPrefix(line, "=== RUN") && !strings.Contains(line, "--- PASS") {
				t.Log(strings.TrimRight(line, "\n"))
			}
		}
	}
}

// copyFile copies the own binary to a place that everybody can reach.
func copyFile(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
