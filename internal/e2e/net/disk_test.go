package netbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The requests of ioctl(2) that stop and go on with writing to a file system. Source: linux/fs.h, _IOWR('X', 119, int) and 120.
const fiFreeze, fiThaw = 0xC0045877, 0xC0045878

// smallDisk gives a machine that never ran a data directory on a file system of its own (ext4 in a file) of so many MiB.
func (b *bed) smallDisk(t *testing.T, i, mebibytes int) {
	t.Helper()
	dir, image := b.at(i).dir, filepath.Join(b.root, b.at(i).name+".disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"truncate", "-s", fmt.Sprintf("%dM", mebibytes), image},
		{"mkfs.ext4", "-q", "-m", "0", image},
		{"mount", "-o", "loop", image, dir}, // the loop device goes with the mount
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no small disks here: %v: %v: %s", c, err, out)
		}
	}
	b.disks[i] = true
}

// fillDisk leaves about so many KiB on a machine's small disk, and gives what frees the rest again.
func (b *bed) fillDisk(t *testing.T, i, kibibytes int) (free func()) {
	t.Helper()
	b.ownDisk(t, i)
	path := filepath.Join(b.at(i).dir, "ballast")
	var st unix.Statfs_t
	if err := unix.Statfs(b.at(i).dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := int64(st.Bavail)*st.Bsize - int64(kibibytes)<<10; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatalf("fill the disk of m%d: %v", i, err)
		}
	}
	return func() { _ = os.Remove(path) }
}

// ownDisk fails the test if a machine's data lies on the host's file system.
func (b *bed) ownDisk(t *testing.T, i int) {
	t.Helper()
	if !b.disks[i] {
		t.Fatalf("m%d has no disk of its own", i)
	}
}

// hangDisk lets no write to a machine's small disk come to an end until the function that it gives is called: writers wait, as for a disk
// that does not answer.
func (b *bed) hangDisk(t *testing.T, i int) (goOn func()) {
	t.Helper()
	b.ownDisk(t, i)
	if err := frozen(b.at(i).dir, fiFreeze); err != nil {
		t.Fatalf("freeze the disk of m%d: %v", i, err)
	}
	t.Cleanup(func() { thaw(b.at(i).dir) })
	return func() { thaw(b.at(i).dir) }
}

// slowDisk makes a machine's small disk slow until stop is called: in each period it answers only after the hang.
func (b *bed) slowDisk(t *testing.T, i int, hang, period time.Duration) (stop func()) {
	t.Helper()
	b.ownDisk(t, i)
	ends, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends when ends is closed
		defer close(ended)
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			if frozen(b.at(i).dir, fiFreeze) == nil {
				select {
				case <-time.After(hang):
				case <-ends:
				}
				thaw(b.at(i).dir)
			}
			select {
			case <-tick.C:
			case <-ends:
				return
			}
		}
	}()
	once := false
	stop = func() {
		if !once {
			once = true
			close(ends)
			<-ended
		}
	}
	t.Cleanup(stop)
	return stop
}

// frozen stops writing to the file system at a folder, or goes on with it.
func frozen(dir string, request uint) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), request, 0)
}

// thaw lets a file system go on, if it was frozen.
func thaw(dir string) { _ = frozen(dir, fiThaw) }
