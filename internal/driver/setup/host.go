package setup

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"flota/internal/driver/proc"
	"flota/internal/service"
	"flota/internal/setting"
)

// LookHost finds out what unit files may refer to on this machine. Without root, the directories of units are below
// the data directory, since /run and /var/lib are not ours to write.
func LookHost(dataDir string) service.Host {
	h := service.DefaultHost()
	h.UID, h.GID = os.Geteuid(), os.Getegid()
	if h.UID != 0 {
		h.User, h.Group, h.Home = strconv.Itoa(h.UID), strconv.Itoa(h.GID), dataDir
		if u, err := user.LookupId(h.User); err == nil {
			h.User, h.Home = u.Username, u.HomeDir
		}
		h.RuntimeDir, h.StateDir = filepath.Join(dataDir, "run"), filepath.Join(dataDir, "state")
		h.CacheDir, h.LogsDir, h.ConfigDir = filepath.Join(dataDir, "cache"), filepath.Join(dataDir, "log"), filepath.Join(dataDir, "config")
	}
	h.MachineID, h.BootID = firstLine("/etc/machine-id"), proc.BootID()
	h.Hostname, _ = os.Hostname()
	var un unix.Utsname
	if unix.Uname(&un) == nil {
		h.Kernel = string(un.Release[:bytes.IndexByte(un.Release[:], 0)])
	}
	h.Arch = map[string]string{"amd64": "x86-64", "386": "x86"}[runtime.GOARCH]
	if h.Arch == "" {
		h.Arch = runtime.GOARCH
	}
	release(&h)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemBytes = int64(info.Totalram) * int64(info.Unit)
	}
	h.MaxTasks, _ = strconv.ParseInt(firstLine("/proc/sys/kernel/pid_max"), 10, 64)
	h.DefaultTasks = h.MaxTasks * 15 / 100 // systemd's DefaultTasksMax=15%
	return h
}

// release reads os-release, which has the syntax of an environment file.
func release(h *service.Host) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		text, _ = os.ReadFile("/usr/lib/os-release")
	}
	env, _ := setting.EnvFile(string(text))
	for key, field := range map[string]*string{"ID": &h.OSID, "VERSION_ID": &h.OSVersionID, "VARIANT_ID": &h.OSVariantID,
		"IMAGE_ID": &h.OSImageID, "IMAGE_VERSION": &h.OSImageVersion, "BUILD_ID": &h.OSBuild} {
		*field, _ = setting.LookupEnv(env, key)
	}
}

// firstLine reads a file's first line; empty if it cannot be read.
func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}
