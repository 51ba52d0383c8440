package child

import (
	"os"
	"syscall"
	"unsafe"
)

// devices puts a new /dev over dir with the pseudo devices alone. The nodes are the host's own, bound.
func devices(dir string) error {
	type node struct {
		name string
		fd   int
		mode uint32
	}
	var nodes []node
	defer func() {
		for _, n := range nodes {
			syscall.Close(n.fd)
		}
	}()
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "hugepages", "log"} {
		var st syscall.Stat_t
		if syscall.Lstat(dir+"/"+name, &st) != nil || st.Mode&syscall.S_IFMT == syscall.S_IFLNK {
			continue
		}
		fd, err := syscall.Open(dir+"/"+name, oPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		if err != nil {
			return wrap("open "+name, err)
		}
		nodes = append(nodes, node{name, fd, st.Mode})
	}
	logTarget, _ := os.Readlink(dir + "/log")
	const flags = syscall.MS_NOSUID | syscall.MS_NOEXEC | syscall.MS_STRICTATIME
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, "mode=755,size=4m,nr_inodes=64k"); err != nil {
		return wrap("mount tmpfs", err)
	}
	for _, n := range nodes {
		at := dir + "/" + n.name
		if err := place(at, n.mode); err != nil {
			return err
		}
		if err := syscall.Mount(fdPath(n.fd), at, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return wrap("bind "+n.name, err)
		}
	}
	links := map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"core": "/proc/kcore", "ptmx": "pts/ptmx",
	}
	if logTarget != "" {
		links["log"] = logTarget
	}
	for name, target := range links {
		if err := os.Symlink(target, dir+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// place makes something to bind a node over.
func place(at string, mode uint32) error {
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		return os.Mkdir(at, 0o755)
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// maskFile moves an empty file without permissions over path. It lives on a file system that is mounted nowhere
// else. ENOSYS: the kernel lacks the calls.
func maskFile(path string) error {
	const (
		configCreate  = 6              // FSCONFIG_CMD_CREATE
		fromEmptyPath = 4              // MOVE_MOUNT_F_EMPTY_PATH
		treeClone     = 1              // OPEN_TREE_CLONE
		readOnlyLess  = 1 | 2 | 4 | 8  // MOUNT_ATTR_ RDONLY NOSUID NODEV NOEXEC
		atEmptyPath   = 0x1000         // AT_EMPTY_PATH
		name          = "inaccessible" // inside the hidden file system
	)
	kind, _ := syscall.BytePtrFromString("tmpfs")
	fs, err := call(sysFsopen, uintptr(unsafe.Pointer(kind)), 1)
	if err != nil {
		return err
	}
	defer syscall.Close(int(fs))
	if _, err := call(sysFsconfig, fs, configCreate, 0, 0, 0); err != nil {
		return err
	}
	mnt, err := call(sysFsmount, fs, 1, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(int(mnt))
	fd, err := syscall.Openat(int(mnt), name, syscall.O_CREAT|syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	syscall.Close(fd)
	file, _ := syscall.BytePtrFromString(name)
	tree, err := call(sysOpenTree, mnt, uintptr(unsafe.Pointer(file)), treeClone)
	if err != nil {
		return err
	}
	defer syscall.Close(int(tree))
	attr := struct{ set, clear, propagation, userns uint64 }{set: readOnlyLess}
	empty, _ := syscall.BytePtrFromString("")
	if _, err := call(sysMountSetattr, tree, uintptr(unsafe.Pointer(empty)), atEmptyPath,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); err != nil && err != syscall.ENOSYS {
		return err
	}
	target, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	const here = ^uintptr(99) // AT_FDCWD is -100
	_, err = call(sysMoveMount, tree, uintptr(unsafe.Pointer(empty)), here, uintptr(unsafe.Pointer(target)), fromEmptyPath)
	return err
}
