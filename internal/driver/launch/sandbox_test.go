package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEachKeyRestricts runs one probe without and with a key: the key makes the difference.
func TestEachKeyRestricts(t *testing.T) {
	needRoot(t)
	work := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(work, "file")
	os.WriteFile(file, []byte("x"), 0o644)
	for _, c := range []struct {
		key, probe    string
		without, with string
	}{
		{"ReadOnlyPaths=" + work, "write " + file, "ok", "EROFS"},
		{"InaccessiblePaths=" + work, "read " + file, "ok", "ENOENT"},
		{"InaccessiblePaths=" + file + "\nCapabilityBoundingSet=~CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH", "read " + file, "ok", "EACCES"},
		{"TemporaryFileSystem=" + work, "read " + file, "ok", "ENOENT"},
		{"TemporaryFileSystem=" + work + ":ro", "mkdir " + work + "/new", "ok", "EROFS"},
		{"NoExecPaths=" + work, "exec " + work + "/tool", "ok", "EACCES"},
		{"BindReadOnlyPaths=/etc:" + work, "write " + file, "ok", "EROFS"},
		{"ProtectSystem=yes", "mkdir /usr/flota-probe", "ok", "EROFS"},
		{"ProtectSystem=full", "mkdir /etc/flota-probe", "ok", "EROFS"},
		{"ProtectSystem=strict", "mkdir /var/flota-probe", "ok", "EROFS"},
		{"ProtectHome=read-only", "mkdir /root/flota-probe", "ok", "EROFS"},
		{"ProtectHome=yes", "mkdir /root/flota-probe", "ok", "EROFS"},
		{"ProtectHome=tmpfs", "read /root/.flota-probe", "ok", "ENOENT"},
		{"ProtectControlGroups=yes", "mkdir " + cgroupDir() + "/flota-probe", "ok", "EROFS"},
		{"ProtectKernelTunables=yes", "write /proc/sys/kernel/printk_delay", "EINVAL", "EROFS"},
		{"ProtectKernelLogs=yes", "syslog", "ok", "EPERM"},
		{"ProtectKernelModules=yes", "module", "", "EPERM"},
		{"ProtectClock=yes", "clock", "", "EPERM"},
		{"ProtectHostname=yes", "hostname", "", "EPERM"},
		{"PrivateDevices=yes", "list /dev/block", "", "ENOENT"},
		{"PrivateTmp=yes", "read " + tmpFile(t), "ok", "ENOENT"},
		{"ProtectProc=invisible\nUser=65534", "list /proc/1", "ok", "ENOENT"},
		{"ProcSubset=pid", "read /proc/version", "ok", "ENOENT"},
		{"RestrictAddressFamilies=AF_UNIX", "socket", "ok", "EAFNOSUPPORT"},
		{"RestrictAddressFamilies=~AF_INET AF_PACKET", "packet", "ok", "EAFNOSUPPORT"},
		{"RestrictAddressFamilies=none", "unix", "ok", "EAFNOSUPPORT"},
		{"RestrictNamespaces=yes", "unshare", "ok", "EPERM"},
		{"RestrictNamespaces=net mnt", "unshare", "ok", "EPERM"},
		{"RestrictRealtime=yes", "fifo", "ok", "EPERM"},
		{"RestrictSUIDSGID=yes", "suid " + file, "ok", "EPERM"},
		{"LockPersonality=yes", "persona", "ok", "EPERM"},
		{"MemoryDenyWriteExecute=yes", "wx", "ok", "EPERM"},
		{"SystemCallFilter=~unshare:EACCES", "unshare", "ok", "EACCES"},
		{"SystemCallFilter=~@clock\nSystemCallErrorNumber=EPERM", "clock", "", "EPERM"},
		{"SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\nSystemCallErrorNumber=EPERM", "hostname", "", "EPERM"},
		{"CapabilityBoundingSet=~CAP_SYS_ADMIN", "unshare", "ok", "EPERM"},
		{"CapabilityBoundingSet=", "hostname", "", "EPERM"},
		{"User=65534", "write " + file, "ok", "EACCES"},
	} {
		t.Run(strings.ReplaceAll(c.key, work, "DIR"), func(t *testing.T) {
			os.WriteFile("/root/.flota-probe", nil, 0o600)
			os.WriteFile(work+"/tool", []byte("#!/bin/sh\n"), 0o755)
			os.Chmod(file, 0o644)
			t.Cleanup(func() { // what a probe without the key made
				for _, d := range []string{"/usr", "/etc", "/var", "/root", cgroupDir()} {
					os.Remove(d + "/flota-probe")
				}
				os.Remove("/root/.flota-probe")
				os.Remove(work + "/new")
			})
			cmd := self(t, c.probe)
			if c.without != "" {
				bench{cmd: cmd}.run(t).wants(t, c.without)
			}
			for _, d := range []string{"/usr", "/etc", "/var", "/root", cgroupDir()} {
				os.Remove(d + "/flota-probe")
			}
			os.Remove(work + "/new")
			bench{cmd: cmd, keys: c.key, ctx: privateTmp(t)}.run(t).wants(t, c.with)
		})
	}
}

// TestEachKeyLeavesAPlainServiceRunning gives a shell that does everyday things every key that only restricts.
func TestEachKeyLeavesAPlainServiceRunning(t *testing.T) {
	needRoot(t)
	keys := strings.Fields(`PrivateTmp=yes PrivateDevices=yes PrivateNetwork=yes PrivateUsers=yes PrivateIPC=yes PrivateMounts=yes
		ProtectSystem=full ProtectHome=yes ProtectProc=invisible ProcSubset=pid ProtectControlGroups=yes ProtectKernelTunables=yes
		ProtectKernelModules=yes ProtectKernelLogs=yes ProtectClock=yes ProtectHostname=yes RestrictAddressFamilies=AF_UNIX
		RestrictNamespaces=yes RestrictRealtime=yes RestrictSUIDSGID=yes LockPersonality=yes MemoryDenyWriteExecute=yes
		SystemCallFilter=@system-service SystemCallArchitectures=native NoNewPrivileges=yes CapabilityBoundingSet= User=65534
		DynamicUser=yes`)
	everyday := `/bin/sh -c 'echo x >/tmp/flota-everyday && cat /tmp/flota-everyday && rm /tmp/flota-everyday && ls / >/dev/null && echo >/dev/null && sleep 0 && echo done'`
	for _, key := range append(keys, strings.Join(keys, "\n")) {
		name := key
		if strings.Contains(key, "\n") {
			name = "all together"
		}
		t.Run(name, func(t *testing.T) {
			bench{cmd: everyday, keys: key, ctx: privateTmp(t)}.run(t).wants(t, "x\ndone")
		})
	}
}

func TestHolesInAStrictSystem(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ keys, path, want string }{
		{"ReadWritePaths=/var/cache", "/var/cache/flota-probe", "ok"},
		{"ReadWritePaths=/var/cache", "/var/lib/flota-probe", "EROFS"},
		{"ReadWritePaths=/var\nReadOnlyPaths=/var/cache", "/var/cache/flota-probe", "EROFS"},
		{"ReadWritePaths=-/no/such/path", "/var/flota-probe", "EROFS"},
		{"TemporaryFileSystem=/mnt", "/mnt/flota-probe", "ok"},
		{"TemporaryFileSystem=/var:ro\nBindPaths=/var/cache", "/var/cache/flota-probe", "ok"},
		{"TemporaryFileSystem=/var:ro\nBindPaths=/var/cache", "/var/flota-probe", "EROFS"},
		{"InaccessiblePaths=/var\nReadWritePaths=/var/cache", "/var/cache/flota-probe", "ENOENT"},
	} {
		t.Run(c.keys+c.path, func(t *testing.T) {
			defer os.Remove(c.path)
			bench{cmd: self(t, "mkdir", c.path), keys: "ProtectSystem=strict\n" + c.keys}.run(t).wants(t, c.want)
		})
	}
	t.Run("directories of the unit", func(t *testing.T) {
		dir := t.TempDir()
		b := bench{cmd: self(t, "mkdir", dir+"/new"), keys: "ProtectSystem=strict", ctx: func(c *Context) { c.Writable = []string{dir} }}
		b.run(t).wants(t, "ok")
	})
	t.Run("exec paths", func(t *testing.T) {
		r := bench{cmd: "/bin/true", keys: "NoExecPaths=/\nExecPaths=/usr /bin /lib /lib64"}.run(t)
		r.wants(t, "")
		bench{cmd: self(t, "ids"), keys: "NoExecPaths=/\nExecPaths=/usr /bin /lib /lib64"}.run(t).fails(t, "EXEC", 203)
	})
}

func TestPrivateNetwork(t *testing.T) {
	needRoot(t)
	r := bench{cmd: "/bin/sh -c 'tail -n +3 /proc/net/dev | cut -d: -f1'", keys: "PrivateNetwork=yes"}.run(t)
	r.wants(t, "lo")
}

func TestPrivateUsersSeesOnlyItsOwn(t *testing.T) {
	needRoot(t)
	r := bench{cmd: "/bin/sh -c 'tr -s \" \" </proc/self/uid_map; stat -c %%u /etc; id -u; grep CapEff /proc/self/status'",
		keys: "PrivateUsers=yes\nUser=65533\nNice=5\nProtectHostname=yes\nProtectSystem=strict\nPrivateTmp=yes\nLimitNOFILE=500", ctx: privateTmp(t)}.run(t)
	r.wants(t, "0 0 1\n 65533 65533 1\n0\n65533\nCapEff:\t0000000000000000")
	r = bench{cmd: self(t, "unshare"), keys: "PrivateUsers=yes"}.run(t)
	r.wants(t, "ok") // root of its own namespace
	r = bench{cmd: self(t, "clock"), keys: "PrivateUsers=yes"}.run(t)
	r.wants(t, "EPERM") // not of the host's
	bench{cmd: "/no/such", keys: "PrivateUsers=yes"}.run(t).fails(t, "EXEC", 203)
	bench{cmd: "/bin/true", keys: "PrivateUsers=yes\nReadWritePaths=/no/such"}.run(t).fails(t, "NAMESPACE", 226)
}

func TestPrivateDevicesHasThePseudoDevices(t *testing.T) {
	needRoot(t)
	r := bench{cmd: `/bin/sh -c 'echo /dev/* | grep -o "vda"; test -c /dev/null && test -d /dev/pts && test -L /dev/stdin && head -c 3 /dev/zero | wc -c'`, keys: "PrivateDevices=yes"}.run(t)
	r.wants(t, "3")
}

func TestPrivateTmpIsSharedByARunsCommands(t *testing.T) {
	needRoot(t)
	ctx := privateTmp(t)
	bench{cmd: `/bin/sh -c 'echo hello >/tmp/flota-shared'`, keys: "PrivateTmp=yes", ctx: ctx}.run(t).wants(t, "")
	bench{cmd: `/bin/cat /tmp/flota-shared`, keys: "PrivateTmp=yes\nUser=65534", ctx: ctx}.run(t).wants(t, "hello")
	if _, err := os.Stat("/tmp/flota-shared"); err == nil {
		t.Error("it is in the host's /tmp")
	}
}

func TestKilledBySystemCallFilter(t *testing.T) {
	r := bench{cmd: self(t, "unshare"), keys: "SystemCallFilter=~unshare"}.run(t)
	if !r.status.Signaled() || r.status.Signal().String() != "bad system call" {
		t.Errorf("status %v, out %q", r.status, r.out)
	}
	r = bench{cmd: self(t, "x32"), keys: "SystemCallArchitectures=native"}.run(t)
	if !r.status.Signaled() {
		t.Errorf("status %v, out %q", r.status, r.out)
	}
}

func TestPrivilegePrefixes(t *testing.T) {
	needRoot(t)
	keys := "User=65534\nProtectSystem=strict\nPrivateTmp=yes\nSystemCallFilter=~unshare:EPERM\nCapabilityBoundingSet=CAP_SYS_ADMIN CAP_CHOWN"
	for _, c := range []struct{ prefix, ids, mkdir, unshare string }{
		{"", "65534 65534 [65534]", "EROFS", "EPERM"},
		{"!", "0 0", "EROFS", "EPERM"},
		{"!!", "65534 65534 [65534]", "EROFS", "EPERM"},
		{"+", "0 0", "ok", "ok"},
	} {
		t.Run("prefix "+c.prefix, func(t *testing.T) {
			defer os.Remove("/var/flota-probe")
			for probe, want := range map[string]string{"ids": c.ids, "mkdir /var/flota-probe": c.mkdir, "unshare": c.unshare} {
				r := bench{cmd: c.prefix + self(t, probe), keys: keys, ctx: privateTmp(t)}.run(t)
				if probe == "ids" && r.err == nil && strings.HasPrefix(r.out, want) {
					continue
				}
				r.wants(t, want)
			}
		})
	}
	t.Run("PermissionsStartOnly", func(t *testing.T) {
		control := func(c *Context) { c.Start = false }
		r := bench{cmd: self(t, "ids"), keys: "User=65534\nPermissionsStartOnly=yes", ctx: control}.run(t)
		if !strings.HasPrefix(r.out, "0 0") {
			t.Errorf("control command runs as %q", r.out)
		}
		bench{cmd: self(t, "ids"), keys: "User=65534\nPermissionsStartOnly=yes"}.run(t).wants(t, "65534 65534 [65534]")
	})
}

func TestCapabilities(t *testing.T) {
	needRoot(t)
	caps := func(keys string) map[string]string {
		r := bench{cmd: "/bin/grep -E ^Cap|NoNew /proc/self/status", keys: keys}.run(t)
		if r.err != nil {
			t.Fatal(r.err)
		}
		out := map[string]string{}
		for _, line := range strings.Split(r.out, "\n") {
			name, value, _ := strings.Cut(line, ":\t")
			out[name] = strings.TrimLeft(value, "0")
		}
		return out
	}
	for _, c := range []struct{ keys, inh, prm, eff, bnd, amb, nnp string }{
		{"CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "", "400", "400", "400", "", ""},
		{"CapabilityBoundingSet=", "", "", "", "", "", ""},
		{"User=65534\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE", "", "", "", "400", "", ""},
		{"User=65534\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_KILL\nAmbientCapabilities=CAP_NET_BIND_SERVICE", "400", "400", "400", "420", "400", ""},
		{"User=65534\nCapabilityBoundingSet=\nNoNewPrivileges=yes", "", "", "", "", "", "1"},
		{"User=65534\nCapabilityBoundingSet=\nRestrictRealtime=yes", "", "", "", "", "", "1"}, // implied
		{"CapabilityBoundingSet=CAP_SYS_ADMIN\nRestrictRealtime=yes", "", "200000", "200000", "200000", "", ""},
	} {
		got := caps(c.keys)
		want := map[string]string{"CapInh": c.inh, "CapPrm": c.prm, "CapEff": c.eff, "CapBnd": c.bnd, "CapAmb": c.amb, "NoNewPrivs": c.nnp}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q:\ngot  %v\nwant %v", c.keys, got, want)
		}
	}
}

func TestIdentity(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ keys, want string }{
		{"User=daemon", "1 1 [1]"},
		{"User=daemon\nGroup=bin", "1 2 [2]"},
		{"User=daemon\nSupplementaryGroups=bin 3", "1 1 [1 2 3]"},
		{"User=4711\nGroup=4712", "4711 4712 [4712]"},
		{"Group=daemon", "0 1 "},
	} {
		r := bench{cmd: self(t, "ids"), keys: c.keys}.run(t)
		if r.err != nil || !strings.HasPrefix(r.out, c.want) {
			t.Errorf("%q: got %q, %v; want %q", c.keys, r.out, r.err, c.want)
		}
	}
	dynamic := func(user string) Identity {
		id, err := Identify(parse(t, "ExecStart=/bin/true\nDynamicUser=yes\nUser="+user), "x.service")
		if err != nil {
			t.Error(err)
		}
		return id
	}
	a, b, again := dynamic("a"), dynamic("b"), dynamic("a")
	if a.UID < dynamicFirst || a.UID > dynamicLast || a.UID == b.UID || a.UID != again.UID || a.GID != a.UID {
		t.Errorf("%+v %+v", a, b)
	}
	home := bench{cmd: "/bin/pwd", keys: "User=nobody\nWorkingDirectory=~"}
	home.ctx = func(c *Context) { c.Identity.Home = "/usr" }
	home.run(t).wants(t, "/usr")
}

// privateTmp gives commands the private directories of one run.
func privateTmp(t *testing.T) func(*Context) {
	dir, err := MakeTmp(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Context) { c.TmpDir = dir }
}

// tmpFile is a file in the host's /tmp.
func tmpFile(t *testing.T) string {
	f, err := os.CreateTemp("/tmp", "flota-probe-")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Cleanup(func() { os.Remove(f.Name()) })
	return f.Name()
}

// cgroupDir is a control group hierarchy to make a directory in.
func cgroupDir() string {
	for _, d := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if st, err := os.Stat(d); err == nil && st.IsDir() {
			return d
		}
	}
	return "/sys/fs/cgroup"
}
