package child

import (
	"syscall"
	"unsafe"
)

func namespaces(s *Spec) *Failure { return Namespaces(s) }

// Namespaces gives this thread the namespaces of s, but for the user namespace, which only clone(2) can give to a
// process with threads.
func Namespaces(s *Spec) *Failure {
	if s.JoinNet != "" {
		if err := setns(s.JoinNet); err != nil {
			return fail("NETWORK", ExitNetwork, wrap("enter "+s.JoinNet, err))
		}
	}
	flags := 0
	for flag, want := range map[int]bool{
		syscall.CLONE_NEWNS: s.NewMount, syscall.CLONE_NEWNET: s.NewNet && s.JoinNet == "",
		syscall.CLONE_NEWIPC: s.NewIPC, syscall.CLONE_NEWUTS: s.NewUTS,
	} {
		if want {
			flags |= flag
		}
	}
	if flags == 0 {
		return nil
	}
	if _, err := call(syscall.SYS_UNSHARE, uintptr(flags)); err != nil {
		return fail("NAMESPACE", ExitNamespace, wrap("unshare", err))
	}
	if flags&syscall.CLONE_NEWNET != 0 {
		if err := loopbackUp(); err != nil {
			return fail("NETWORK", ExitNetwork, wrap("set up lo", err))
		}
	}
	if s.NewMount {
		// What the host mounts later still shows here; what is mounted here never shows there.
		err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, "")
		return fail("NAMESPACE", ExitNamespace, wrap("make mounts slaves", err))
	}
	return nil
}

// setns enters the namespace that the file at path stands for.
func setns(path string) error {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	_, err = call(sysSetns, uintptr(fd), 0)
	return err
}

// loopbackUp brings the interface lo up.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	req := struct { // struct ifreq
		name  [16]byte
		flags uint16
		rest  [22]byte
	}{name: [16]byte{'l', 'o'}}
	if _, err := call(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCGIFFLAGS, uintptr(unsafe.Pointer(&req))); err != nil {
		return err
	}
	req.flags |= syscall.IFF_UP
	_, err = call(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req)))
	return err
}
