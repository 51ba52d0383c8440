package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// keysOf gives the names under which the machines' control groups and notification sockets lie: twelve digits of the hash of
// each data directory.
func keysOf(b *bed) (keys []string) {
	for i := 1; i <= b.n; i++ {
		dir := b.machineDir(i)
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		sum := sha256.Sum256([]byte(dir))
		keys = append(keys, hex.EncodeToString(sum[:])[:12])
	}
	return keys
}

// leaks tells what a cluster that is down has left on the host. Processes that were just killed get a moment to vanish.
func (b *bed) leaks() error {
	var err error
	until(5*time.Second, func() bool {
		err = errors.Join(b.leftProcesses(), b.leftGroups(), b.leftMounts(), b.leftFiles())
		return err == nil
	})
	return err
}

// leftProcesses finds processes whose command line or environment names the cluster.
func (b *bed) leftProcesses() error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if pid == os.Getpid() {
			continue
		}
		cmd, _ := os.ReadFile(filepath.Join(d, "cmdline")) // gone meanwhile
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		if bytes.Contains(cmd, []byte(b.dir)) || bytes.Contains(env, []byte(b.dir)) {
			errs = append(errs, fmt.Errorf("process %d is left: %q", pid, bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	return errors.Join(errs...)
}

// leftGroups finds control groups with a key of the cluster in any hierarchy.
func (b *bed) leftGroups() error {
	var errs []error
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // vanished, or may not be read
		}
		for _, k := range b.keys {
			if d.Name() == k {
				errs = append(errs, fmt.Errorf("control group %s is left", path))
				return fs.SkipDir
			}
		}
		return nil
	})
	return errors.Join(errs...)
}

// leftMounts finds mounts whose line names the cluster's folder or a key of it.
func (b *bed) leftMounts() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.SplitSeq(string(text), "\n") {
		for _, word := range append([]string{b.dir}, b.keys...) {
			if strings.Contains(line, word) {
				errs = append(errs, fmt.Errorf("mount is left: %s", line))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// leftFiles looks at the folder and at what lies below /run.
func (b *bed) leftFiles() error {
	var errs []error
	if _, err := os.Lstat(b.dir); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("folder %s is left", b.dir))
	}
	for _, k := range b.keys {
		if _, err := os.Lstat(filepath.Join("/run/flota", k)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("folder /run/flota/%s is left", k))
		}
	}
	return errors.Join(errs...)
}
