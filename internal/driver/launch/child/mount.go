package child

import (
	"os"
	"strconv"
	"syscall"
)

// prepared is a step with its path resolved and its source held open, so that no later step can hide it.
type prepared struct {
	Mount
	from int // descriptor of Source, -1 for none
}

func mounts(s *Spec) *Failure { return Mounts(s) }

// Mounts carries out the mount plan in this thread's mount namespace: first every step in order, then read-only and
// noexec over all mounts that there are, by the longest path that says something of them.
func Mounts(s *Spec) *Failure {
	if len(s.Mounts) == 0 {
		return nil
	}
	steps, err := prepare(s.Mounts)
	if err == nil {
		err = build(steps)
	}
	if err == nil {
		err = guard(steps)
	}
	for _, p := range steps {
		if p.from >= 0 {
			syscall.Close(p.from)
		}
	}
	return fail("NAMESPACE", ExitNamespace, err)
}

// prepare opens the sources and drops the steps whose source is missing and may be.
func prepare(plan []Mount) (steps []prepared, err error) {
	for _, m := range plan {
		p := prepared{Mount: m, from: -1}
		if m.Kind == Bind {
			p.from, err = syscall.Open(m.Source, oPath|syscall.O_CLOEXEC, 0)
			if err == syscall.ENOENT && m.Missing {
				continue
			}
			if err != nil {
				return steps, wrap("open "+m.Source, err)
			}
		}
		steps = append(steps, p)
	}
	return steps, nil
}

// build does the steps that make mounts. A step whose path is missing and may be is forgotten.
func build(steps []prepared) error {
	for i := range steps {
		p := &steps[i]
		real, err := resolve(p.Path)
		if os.IsNotExist(err) && p.Create {
			if err = create(p); err == nil {
				real, err = resolve(p.Path)
			}
		}
		if os.IsNotExist(err) && p.Missing {
			p.Kind = ""
			continue
		}
		if err != nil {
			return err
		}
		p.Path = real
		if err := p.do(); err != nil {
			return wrap(string(p.Kind)+" "+p.Path, err)
		}
	}
	return nil
}

// create makes the path of a step: a directory, or an empty file to bind a file over.
func create(p *prepared) error {
	if p.from >= 0 {
		var st syscall.Stat_t
		if err := syscall.Fstat(p.from, &st); err != nil {
			return err
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			if err := os.MkdirAll(parent(p.Path), 0o755); err != nil {
				return err
			}
			f, err := os.OpenFile(p.Path, os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return os.MkdirAll(p.Path, 0o755)
}

func (p *prepared) do() error {
	switch p.Kind {
	case Bind:
		flags := uintptr(syscall.MS_BIND | syscall.MS_REC)
		if p.Shallow {
			flags = syscall.MS_BIND
		}
		return syscall.Mount(fdPath(p.from), p.Path, "", flags, "")
	case Tmpfs:
		return syscall.Mount("tmpfs", p.Path, "tmpfs", syscall.MS_NODEV|syscall.MS_STRICTATIME, p.Data)
	case Mask:
		return mask(p.Path)
	case Devices:
		return devices(p.Path)
	case Proc:
		return syscall.Mount("proc", p.Path, "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, p.Data)
	case ReadOnly, Writable, NoExec, Exec:
		return selfBind(p.Path)
	}
	return nil
}

// selfBind makes path a mount of its own, so that it can have its own flags.
func selfBind(path string) error {
	if path == "/" {
		return nil
	}
	is, err := isMount(path)
	if err != nil || is {
		return err
	}
	return syscall.Mount(path, path, "", syscall.MS_BIND|syscall.MS_REC, "")
}

// mask hides what is at path: a directory becomes empty, anything else an empty file, both without any permission.
func mask(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		const flags = syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
		return syscall.Mount("tmpfs", path, "tmpfs", flags, "mode=000,size=4k,nr_inodes=2")
	}
	if err := maskFile(path); err != syscall.ENOSYS {
		return err
	}
	return syscall.Mount(os.DevNull, path, "", syscall.MS_BIND, "") // kernels before 5.2
}

// resolve gives the path without symbolic links, as mountinfo spells it.
func resolve(path string) (string, error) {
	fd, err := syscall.Open(path, oPath|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", wrap("open "+path, err)
	}
	defer syscall.Close(fd)
	return os.Readlink(fdPath(fd))
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// oPath is O_PATH, the same on all of Linux' architectures that Go has.
const oPath = 0x200000
