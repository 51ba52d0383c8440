package netbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The names by which a process of these tests, or what it has left, is found.
const (
	topPattern = "flota-net-"    // of folders in the temporary directory
	ownerFile  = "owner"         // in a top folder: "PID START-TIME" of the test process
	recordFile = "bed.json"      // in a bed's folder: its record
	wardenVar  = "NETBED_WARDEN" // makes the test binary a warden of that folder
	bedVar     = "NETBED"        // in the environment of all that a bed starts: its folder
)

// record is what must be known of a bed to clear it away. It is written before anything is made.
type record struct {
	ID   string   `json:"id"`   // names of its interfaces begin with it
	Dirs []string `json:"dirs"` // its machines' data directories
}

// sweepDead clears away what dead tests have left.
func sweepDead() error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), topPattern+"*"))
	errs := []error{err}
	for _, dir := range left {
		var st unix.Stat_t
		mine := unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == os.Geteuid() // others may put what they like there
		if mine && !alive(dir) {
			errs = append(errs, sweep(dir))
		}
	}
	return errors.Join(errs...)
}

// idForm is what every bed's ID looks like: nothing else may be taken for one.
var idForm = regexp.MustCompile(`^fn[a-ln-z2-9]{6}$`)

// openTop makes the folder of this process, after what dead tests have left is gone.
func openTop() (string, error) {
	if err := sweepDead(); err != nil {
		fmt.Fprintln(os.Stderr, "clear away what earlier tests have left:", err)
	}
	dir, err := os.MkdirTemp("", topPattern)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	me := fmt.Sprintf("%d %s", os.Getpid(), startOf(os.Getpid()))
	return dir, os.WriteFile(filepath.Join(dir, ownerFile), []byte(me), 0o600)
}

// alive reports whether the tests whose folder this is still run. A folder without an owner belongs to one that begins, unless it is old.
func alive(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, ownerFile))
	pid, start, ok := strings.Cut(string(text), " ")
	if err != nil || !ok {
		info, err := os.Stat(dir)
		return err == nil && time.Since(info.ModTime()) < time.Minute
	}
	n, _ := strconv.Atoi(pid)
	return startOf(n) == start
}

// startOf is the start time of a process as /proc tells it; "" for none.
func startOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(text), ") ")
	if f := strings.Fields(rest); err == nil && ok && len(f) > 19 && f[0] != "Z" {
		return f[19]
	}
	return ""
}

// warden is a process that clears a top folder away when this one has ended without doing so.
type warden struct {
	cmd  *exec.Cmd
	rope io.WriteCloser // closed by the kernel when this process ends
}

// startWarden starts one. It has a session of its own, so that ctrl-C does not reach it.
func startWarden(dir string) (*warden, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &warden{cmd: exec.Command(self)}
	w.cmd.Env = append(os.Environ(), wardenVar+"="+dir)
	w.cmd.Dir = "/"
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if w.rope, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the warden: %w", err)
	}
	return w, nil
}

// dismiss ends the warden.
func (w *warden) dismiss() {
	w.rope.Close()
	_ = w.cmd.Wait() // it finds nothing to do
}

// wardMain is the warden.
func wardMain(dir string) int {
	_, _ = io.Copy(io.Discard, os.Stdin) // nobody writes: this returns when the tests have ended
	if sweep(dir) != nil {
		return 1
	}
	return 0
}

// sweep ends and removes all that lies in a top folder. It may be repeated, and run by two at once.
func sweep(dir string) error {
	var errs []error
	files, err := filepath.Glob(filepath.Join(dir, "*", recordFile))
	if err != nil {
		return err
	}
	for _, f := range files {
		var r record
		text, err := os.ReadFile(f)
		if err == nil && json.Unmarshal(text, &r) == nil && idForm.MatchString(r.ID) { // else it was killed before it made anything
			errs = append(errs, r.clear(filepath.Dir(f)))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// clear ends and removes all that a bed has.
func (r record) clear(dir string) error {
	for _, m := range mountsBelow(dir) {
		thaw(m) // a process that waits for a frozen file system cannot be killed
	}
	errs := []error{r.killAll(dir)}
	if !until(5*time.Second, func() bool {
		for _, m := range mountsBelow(dir) {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
		return len(mountsBelow(dir)) == 0
	}) {
		errs = append(errs, fmt.Errorf("mounts are left below %s: %v", dir, mountsBelow(dir)))
	}
	if !until(5*time.Second, func() bool { // the kernel needs a moment to empty them
		for _, g := range r.groups() {
			_ = os.Remove(g)
		}
		return len(r.groups()) == 0
	}) {
		errs = append(errs, fmt.Errorf("control groups are left: %v", r.groups()))
	}
	for _, d := range r.Dirs {
		errs = append(errs, os.RemoveAll(filepath.Join("/run/flota", keyOf(d))))
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// killAll kills all processes of a bed. They are stopped first, so that none sees another's end and acts on it.
func (r record) killAll(dir string) error {
	halt(func() []process { return r.processes(dir) })
	if !until(10*time.Second, func() bool {
		ps := r.processes(dir)
		for _, p := range ps {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		return len(ps) == 0
	}) {
		return fmt.Errorf("processes cannot be killed: %v", r.processes(dir))
	}
	return nil
}

// halt stops processes, until no others have come.
func halt(list func() []process) {
	stopped := map[int]bool{}
	for range 100 {
		more := false
		for _, p := range list() {
			if !stopped[p.pid] {
				more, stopped[p.pid] = true, true
				_ = syscall.Kill(p.pid, syscall.SIGSTOP) // gone meanwhile
			}
		}
		if !more {
			return
		}
	}
}

// mountsBelow gives the mount points in a folder, those within others first.
func mountsBelow(dir string) (points []string) {
	text, _ := os.ReadFile("/proc/self/mountinfo") // always there
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	return points
}

// groups gives the control groups of a bed's machines in all hierarchies, those within others first.
func (r record) groups() (dirs []string) {
	keys := map[string]bool{}
	for _, d := range r.Dirs {
		keys[keyOf(d)] = true
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // vanished, or may not be read
		}
		for _, part := range strings.Split(path, "/") {
			if keys[part] {
				dirs = append(dirs, path)
				break
			}
		}
		return nil
	})
	sort.Sort(sort.Reverse(sort.StringSlice(dirs)))
	return dirs
}

// left tells what there still is of a bed that was cleared.
func (r record) left(dir string) error {
	var errs []error
	for _, p := range r.processes(dir) {
		errs = append(errs, fmt.Errorf("process is left: %v", p))
	}
	for _, m := range mountsBelow(dir) {
		errs = append(errs, fmt.Errorf("mount is left: %s", m))
	}
	for _, g := range r.groups() {
		errs = append(errs, fmt.Errorf("control group is left: %s", g))
	}
	for _, d := range append([]string{dir}, r.Dirs...) {
		for _, path := range []string{d, filepath.Join("/run/flota", keyOf(d))} {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("file is left: %s", path))
			}
		}
	}
	return errors.Join(errs...)
}
