package v2

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startOracle runs Debian's etcd with its v2 API, as a process of its own, and gives its URL. The test is skipped where there is none.
func startOracle(t testing.TB) string {
	t.Helper()
	bin, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd 3.4 is not installed: scripts/setup does that")
	}
	dir, url, peer := t.TempDir(), "http://"+freeAddr(t), "http://"+freeAddr(t)
	cmd := exec.Command(bin, "--enable-v2", "--name", "oracle", "--data-dir", dir, "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "oracle="+peer, "--log-level", "error")
	cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log := &strings.Builder{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-gone
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/version", nil)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !strings.Contains(string(text), `"etcdserver":"3.4`) {
				t.Skipf("the etcd installed is not 3.4: %s", text)
			}
			// The cluster's version is set a moment after the start; until then it says "not_decided".
			if strings.Contains(string(text), `"etcdcluster":"3.4`) {
				return url
			}
		}
		select {
		case <-gone:
			t.Fatalf("etcd ended: %s", log)
		case <-ctx.Done():
			t.Fatalf("etcd does not answer: %s", log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
