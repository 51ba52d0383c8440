package child

import (
	"strconv"
	"syscall"
	"unsafe"
)

// groups sets group and supplementary groups.
func groups(s *Spec) *Failure {
	if s.User == nil {
		return nil
	}
	list := make([]uint32, len(s.User.Groups))
	for i, g := range s.User.Groups {
		list[i] = uint32(g)
	}
	var first unsafe.Pointer
	if len(list) > 0 {
		first = unsafe.Pointer(&list[0])
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(list)), uintptr(first), 0); errno != 0 {
		return fail("GROUP", ExitGroup, wrap("setgroups", errno))
	}
	if g := s.User.GID; g >= 0 {
		if _, err := call(syscall.SYS_SETRESGID, uintptr(g), uintptr(g), uintptr(g)); err != nil {
			return fail("GROUP", ExitGroup, wrap("setresgid", err))
		}
	}
	return nil
}

// bounding drops what is not in the bounding set; from there exec gives nothing of it back.
func bounding(s *Spec) *Failure {
	if s.Caps == nil {
		return nil
	}
	for n := uintptr(0); n < 64; n++ {
		if s.Caps.Bounding>>n&1 == 1 {
			continue
		}
		has, err := call(syscall.SYS_PRCTL, prCapbsetRead, n)
		if err == syscall.EINVAL {
			break // beyond the kernel's last capability
		}
		if has == 0 {
			continue
		}
		if err := prctl(prCapbsetDrop, n); err != nil {
			return fail("CAPABILITIES", ExitCapabilities, wrap("drop capability "+strconv.Itoa(int(n)), err))
		}
	}
	return nil
}

// become changes the user; ambient capabilities survive it.
func become(s *Spec) *Failure {
	var ambient uint64
	if s.Caps != nil {
		ambient = s.Caps.Ambient
	}
	if ambient != 0 {
		if err := prctl(prSetKeepCaps, 1); err != nil {
			return fail("CAPABILITIES", ExitCapabilities, wrap("keep capabilities", err))
		}
	}
	if s.User != nil && s.User.UID >= 0 {
		u := uintptr(s.User.UID)
		if _, err := call(syscall.SYS_SETRESUID, u, u, u); err != nil {
			return fail("USER", ExitUser, wrap("setresuid", err))
		}
	}
	if ambient == 0 {
		return nil
	}
	if err := raise(ambient); err != nil {
		return fail("CAPABILITIES", ExitCapabilities, err)
	}
	if err := prctl(prSetKeepCaps, 0); err != nil {
		return fail("CAPABILITIES", ExitCapabilities, wrap("keep capabilities", err))
	}
	return nil
}

// raise puts the set into inheritable and ambient, and into effective what of it is permitted.
func raise(set uint64) error {
	const version3 = 0x20080522
	header := struct{ version, pid uint32 }{version3, 0}
	var data [2]struct{ effective, permitted, inheritable uint32 }
	h, d := uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data))
	if _, err := call(syscall.SYS_CAPGET, h, d); err != nil {
		return wrap("capget", err)
	}
	for i := range data {
		part := uint32(set >> (32 * i))
		data[i].inheritable |= part
		data[i].effective |= part & data[i].permitted
	}
	if _, err := call(syscall.SYS_CAPSET, h, d); err != nil {
		return wrap("capset", err)
	}
	for n := uintptr(0); n < 64; n++ {
		if set>>n&1 == 0 {
			continue
		}
		if err := prctl(prCapAmbient, capAmbientRaise, n, 0, 0); err != nil {
			return wrap("raise ambient capability "+strconv.Itoa(int(n)), err)
		}
	}
	return nil
}

// keyring gives the process a session keyring of its own. Kernels and containers without keyrings have none to protect.
func keyring(s *Spec) *Failure {
	const joinSession, link = 1, 8
	const userKeyring, sessionKeyring = ^uintptr(3), ^uintptr(2) // -4, -3
	if s.Keyring == "" {
		return nil
	}
	if _, err := call(syscall.SYS_KEYCTL, joinSession, 0); err != nil {
		if err == syscall.ENOSYS || err == syscall.EPERM || err == syscall.EACCES || err == syscall.EDQUOT {
			return nil
		}
		return fail("KEYRING", ExitKeyring, wrap("join session keyring", err))
	}
	if s.Keyring == "shared" {
		if _, err := call(syscall.SYS_KEYCTL, link, userKeyring, sessionKeyring); err != nil {
			return fail("KEYRING", ExitKeyring, wrap("link user keyring", err))
		}
	}
	return nil
}

// workDir changes to the working directory, as the unit's user.
func workDir(s *Spec) *Failure {
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	err := syscall.Chdir(dir)
	if err != nil && s.DirMissingOK {
		err = syscall.Chdir("/")
	}
	return fail("CHDIR", ExitChdir, wrap("chdir "+dir, err))
}

// lockDown sets securebits and no_new_privs.
func lockDown(s *Spec) *Failure {
	if s.SecureBits != 0 {
		if err := prctl(prSetSecureBits, uintptr(s.SecureBits)); err != nil {
			return fail("SECUREBITS", ExitSecureBits, wrap("securebits", err))
		}
	}
	if s.NoNewPrivs {
		return fail("NO_NEW_PRIVILEGES", ExitNoNewPrivs, wrap("no_new_privs", prctl(prSetNoNewPrivs, 1, 0, 0, 0)))
	}
	return nil
}

// filters installs the seccomp programs. The kernel runs all of them, whatever the order.
func filters(s *Spec) *Failure {
	const insnSize, modeFilter = 8, 2
	for _, p := range s.Seccomp {
		prog := struct {
			n    uint16
			code *byte
		}{uint16(len(p) / insnSize), unsafe.SliceData(p)}
		if err := prctl(prSetSeccomp, modeFilter, uintptr(unsafe.Pointer(&prog))); err != nil {
			return fail("SECCOMP", ExitSeccomp, wrap("seccomp", err))
		}
	}
	return nil
}
