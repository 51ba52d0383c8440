package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// MakeTmp makes the private directories of one run for PrivateTmp= below dir, which becomes 0700 and root's, and gives
// dir. The caller removes dir when the unit has ended. Making them again leaves them as they are.
func MakeTmp(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make private tmp: %w", err)
	}
	for _, name := range []string{"tmp", "var-tmp"} {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o700); err != nil && !os.IsExist(err) {
			return "", fmt.Errorf("make private tmp: %w", err)
		}
		if err := os.Chmod(at, 0o777|os.ModeSticky); err != nil {
			return "", fmt.Errorf("make private tmp: %w", err)
		}
	}
	return dir, nil
}

// RemoveIPC removes the System V and POSIX IPC objects that belong to the identity, for RemoveIPC= when a unit has
// ended and no other runs as the same user. It does nothing for system users of uid 0.
func RemoveIPC(id Identity) error {
	if id.UID == 0 || !id.Switch {
		return nil
	}
	var failed []error
	for file, remove := range map[string]func(int) error{
		"shm": func(n int) error { _, err := unix.SysvShmCtl(n, unix.IPC_RMID, nil); return err },
		"sem": func(n int) error { return ipcRemove(unix.SYS_SEMCTL, n) },
		"msg": func(n int) error { return ipcRemove(unix.SYS_MSGCTL, n) },
	} {
		ids, err := ownedIPC("/proc/sysvipc/"+file, id.UID)
		failed = append(failed, err)
		for _, n := range ids {
			if err := remove(n); err != nil && err != syscall.EINVAL && err != syscall.EIDRM {
				failed = append(failed, fmt.Errorf("remove %s %d: %w", file, n, err))
			}
		}
	}
	for _, dir := range []string{"/dev/shm", "/dev/mqueue"} {
		names, _ := os.ReadDir(dir)
		for _, n := range names {
			if st, err := n.Info(); err == nil && st.Sys().(*syscall.Stat_t).Uid == uint32(id.UID) {
				failed = append(failed, os.RemoveAll(filepath.Join(dir, n.Name())))
			}
		}
	}
	return errors.Join(failed...)
}

// ipcRemove is IPC_RMID for semaphores (whose third argument is a number) and message queues.
func ipcRemove(call uintptr, n int) error {
	args := [3]uintptr{uintptr(n), unix.IPC_RMID, 0}
	if call == unix.SYS_SEMCTL {
		args = [3]uintptr{uintptr(n), 0, unix.IPC_RMID}
	}
	_, _, errno := syscall.Syscall(call, args[0], args[1], args[2])
	if errno != 0 {
		return errno
	}
	return nil
}

// ownedIPC lists the identifiers in a table of /proc/sysvipc that belong to uid.
func ownedIPC(path string, uid int) ([]int, error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(text, []byte{'\n'})
	idAt, uidAt := -1, -1
	for i, name := range strings.Fields(string(lines[0])) {
		switch name {
		case "shmid", "semid", "msqid":
			idAt = i
		case "uid":
			uidAt = i
		}
	}
	var out []int
	for _, line := range lines[1:] {
		f := strings.Fields(string(line))
		if idAt < 0 || uidAt < 0 || len(f) <= max(idAt, uidAt) || f[uidAt] != strconv.Itoa(uid) {
			continue
		}
		if n, err := strconv.Atoi(f[idAt]); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}
