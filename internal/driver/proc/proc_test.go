package proc

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestOneProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	s, ok := Look(pid)
	if !ok || s.Parent != os.Getpid() || s.Zombie || s.Ticks == 0 {
		t.Fatalf("stat %+v, %v", s, ok)
	}
	if Signal(pid, s.Ticks+1, syscall.SIGKILL) || Alive(pid, s.Ticks+1) || Signal(1, 0, syscall.SIGURG) || Signal(-1, 0, syscall.SIGURG) {
		t.Error("the wrong process was taken for it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, pid, s.Ticks); err != context.DeadlineExceeded {
		t.Errorf("wait for a living process: %v", err)
	}
	if !Signal(pid, s.Ticks, syscall.SIGKILL) {
		t.Error("not signalled")
	}
	if err := Wait(t.Context(), pid, s.Ticks); err != nil {
		t.Error(err)
	}
	if Alive(pid, s.Ticks) || !There(pid, s.Ticks) {
		t.Error("a zombie is there, but does not run")
	}
	cmd.Wait()
	if There(pid, s.Ticks) || Wait(t.Context(), pid, s.Ticks) != nil {
		t.Error("it is still there")
	}
}
