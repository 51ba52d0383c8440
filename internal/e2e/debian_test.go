package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flota/internal/api"
)

// debianUnit is a unit file of a Debian package, run as it is.
type debianUnit struct {
	name    string
	tcp     []string // host:port that are taken while it runs
	reloads bool     // it has an ExecReload= that it survives
	answers func(d *debian) error
}

// debianUnits in the order in which they are started: haproxy asks for /dev/log, which rsyslog makes where no journald runs. nginx and
// apache2 want the same port and come one after the other. The ExecReload= of prometheus-node-exporter sends it SIGHUP, which
// ends it, under systemd too: it is not asked to reload.
var debianUnits = []debianUnit{
	{name: "rsyslog", answers: (*debian).rsyslog},
	{name: "nginx", tcp: []string{":80"}, reloads: true, answers: func(*debian) error { return get("http://127.0.0.1:80/", "nginx") }},
	{name: "redis-server", tcp: []string{"127.0.0.1:6379"}, answers: func(*debian) error {
		return talk("127.0.0.1:6379", "PING\r\n", "+PONG\r\n")
	}},
	{name: "memcached", tcp: []string{"127.0.0.1:11211"}, answers: func(*debian) error {
		return talk("127.0.0.1:11211", "version\r\n", "VERSION ")
	}},
	{name: "haproxy", tcp: []string{haproxyAddr}, reloads: true, answers: func(*debian) error { return get("http://"+haproxyAddr+"/", haproxyText) }},
	{name: "prometheus-node-exporter", tcp: []string{":9100"}, answers: func(*debian) error {
		return get("http://127.0.0.1:9100/metrics", "node_uname_info")
	}},
	{name: "chrony", answers: func(*debian) error {
		out, err := exec.Command("chronyc", "-n", "tracking").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("Reference ID")) {
			return fmt.Errorf("chronyc: %w: %s", err, out)
		}
		return nil
	}},
	{name: "mosquitto", tcp: []string{"127.0.0.1:1883"}, reloads: true, answers: func(*debian) error {
		return talk("127.0.0.1:1883", "\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03e2e", "\x20\x02\x00\x00") // CONNECT, CONNACK
	}},
	{name: "apache2", tcp: []string{":80"}, reloads: true, answers: func(*debian) error { return get("http://127.0.0.1:80/", "Apache") }},
}

// haproxyAddr is where the frontend listens that the test gives haproxy; Debian's configuration has none.
const haproxyAddr, haproxyText = "127.0.0.1:18404", "haproxy answers"

// debian is a test of Debian's units on a cluster.
type debian struct {
	*bed
	t     *testing.T
	lines int // written to the system log so far
}

// TestDebianUnits runs unit files of Debian's packages as they are: each answers, reloads, answers again after the power
// of its machine was cut, and stops cleanly.
func TestDebianUnits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("these units need root: run make test (scripts/setup) as root")
	}
	d := &debian{bed: borrow(t), t: t}
	d.prepare()
	var first []debianUnit
	for _, u := range debianUnits {
		if u.name != "apache2" {
			first = append(first, u)
		}
	}
	d.live(first)
	d.live(debianUnits[len(debianUnits)-1:])
}

// live takes units through a whole life.
func (d *debian) live(units []debianUnit) {
	for _, u := range units {
		for _, addr := range u.tcp {
			if err := isFree(addr); err != nil {
				d.t.Fatalf("a service runs on this host already: %v", err)
			}
		}
		d.flota(d.t, "start", unitFile(u.name))
	}
	d.answer(units)
	for _, u := range units {
		if u.reloads {
			pid := d.now(u).MainPID
			d.flota(d.t, "reload", u.name)
			wait(d.t, u.name+" after its reload", func() error {
				if now := d.now(u); now.Active != "active" || now.MainPID != pid {
					return fmt.Errorf("it was process %d and is %+v", pid, now)
				}
				return nil
			})
		}
	}
	d.answer(units)
	for _, machine := range []string{"m1", "m2", "m3"} {
		d.cut(machine, units)
	}
	d.stop(units)
}

// answer waits until all units answer on their ports.
func (d *debian) answer(units []debianUnit) {
	d.t.Helper()
	for _, u := range units {
		wait(d.t, u.name+" answers", func() error { return u.answers(d) })
	}
}

// now is what the machine of a unit reports of it. One that has just come back may still report it too.
func (d *debian) now(u debianUnit) api.State {
	d.t.Helper()
	all := d.unit(d.t, u.name+".service")
	for _, s := range all.States {
		if len(all.Places) == 1 && s.Machine == all.Places[0].Machine {
			return s
		}
	}
	d.t.Fatalf("%s is on %+v, reported as %+v", u.name, all.Places, all.States)
	return api.State{}
}

// cut cuts a machine's power: its units answer from elsewhere, the others are not touched. Then it comes back.
func (d *debian) cut(machine string, units []debianUnit) {
	d.t.Helper()
	before := map[string]api.State{}
	for _, u := range units {
		before[u.name] = d.now(u)
	}
	d.flota(d.t, "dev", "kill", machine)
	for _, u := range units {
		old := before[u.name]
		wait(d.t, u.name+" after the end of "+machine, func() error {
			st := d.unit(d.t, u.name+".service").States
			if len(st) != 1 || st[0].Active != "active" || st[0].Name == machine {
				return fmt.Errorf("it is %+v", st)
			}
			if old.Name != machine && (st[0].MainPID != old.MainPID || st[0].Name != old.Name) {
				return fmt.Errorf("it was process %d on %s and is %d on %s", old.MainPID, old.Name, st[0].MainPID, st[0].Name)
			}
			return nil
		})
	}
	d.answer(units)
	d.flota(d.t, "dev", "start", machine)
}

// stop stops the units; each ends well and leaves neither a process nor a port.
func (d *debian) stop(units []debianUnit) {
	d.t.Helper()
	for _, u := range slices.Backward(units) {
		pid := d.now(u).MainPID
		d.flota(d.t, "stop", u.name)
		if st := d.now(u); st.Active != "inactive" || st.Result != "success" || st.MainPID != 0 {
			d.t.Errorf("%s has stopped as %+v", u.name, st)
		}
		if syscall.Kill(pid, 0) == nil {
			d.t.Errorf("main process %d of %s is there after its stop", pid, u.name)
		}
		if left := d.members(u.name + ".service"); len(left) > 0 {
			d.t.Errorf("processes of %s are left: %v", u.name, left)
		}
		for _, addr := range u.tcp {
			if err := isFree(addr); err != nil {
				d.t.Errorf("%s after its stop: %v", u.name, err)
			}
		}
	}
}

// members are the processes in a unit's control groups, on all machines and in all hierarchies.
func (d *debian) members(unit string) (pids []string) {
	for _, k := range d.keys {
		files, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", "flota", k, unit, "cgroup.procs"))
		more, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", "flota", k, unit, "cgroup.procs"))
		for _, f := range append(files, more...) {
			text, _ := os.ReadFile(f) // gone meanwhile
			pids = append(pids, strings.Fields(string(text))...)
		}
	}
	return pids
}

// unitFile is the unit file of a package.
func unitFile(name string) string { return "/lib/systemd/system/" + name + ".service" }

// isFree says whether an address can be listened on.
func isFree(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// get wants words in the answer to an HTTP request, with any status: in its body or in the Server header.
func get(url, words string) error {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	body = append(body, resp.Header.Get("Server")...)
	if err == nil && !bytes.Contains(body, []byte(words)) {
		err = fmt.Errorf("%s answers %s without %q: %.200s", url, resp.Status, words, body)
	}
	return err
}

// talk sends words to a port and wants an answer that begins with others.
func talk(addr, say, hear string) error {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, say); err != nil {
		return err
	}
	got := make([]byte, len(hear))
	if _, err := io.ReadFull(bufio.NewReader(c), got); err != nil {
		return err
	}
	if string(got) != hear {
		return fmt.Errorf("%s answers %q, want %q", addr, got, hear)
	}
	return nil
}

// rsyslog writes a line to the system log and finds it in the file that Debian's configuration names.
func (d *debian) rsyslog() error {
	d.lines++
	line := fmt.Sprintf("flota-e2e: line %d of process %d", d.lines, os.Getpid())
	c, err := net.Dial("unixgram", "/dev/log")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "<14>"+line); err != nil {
		return err
	}
	if !until(5*time.Second, func() bool {
		text, _ := os.ReadFile(syslogFile) // not there yet
		return bytes.Contains(text, []byte(line))
	}) {
		return fmt.Errorf("%q is not in %s", line, syslogFile)
	}
	return nil
}

// syslogFile is where rsyslog.conf of Debian puts all lines.
const syslogFile = "/var/log/syslog"

// prepare does what Debian's boot and an administrator would have done, and undoes it after the test.
func (d *debian) prepare() {
	d.t.Helper()
	for _, u := range debianUnits {
		if _, err := os.Stat(unitFile(u.name)); err != nil {
			d.t.Fatalf("package missing: %v; run make test (scripts/setup)", err)
		}
	}
	for _, path := range []string{"/dev/log", "/var/lib/haproxy/dev", syslogFile, "/var/log/auth.log", "/var/log/cron.log", "/var/log/kern.log",
		"/var/log/mail.log", "/var/log/user.log", "/var/log/haproxy.log", "/run/chrony", "/run/redis", "/run/mosquitto", "/run/apache2", "/run/nginx.pid",
		"/run/haproxy.pid", "/run/haproxy-master.sock"} {
		d.forget(path)
	}
	for dir, owner := range map[string]string{"/run/haproxy": "haproxy", "/run/memcached": "memcache"} { // systemd-tmpfiles, at boot
		d.forget(dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			d.t.Fatal(err)
		}
		if err := own(dir, owner); err != nil {
			d.t.Fatal(err)
		}
	}
	extra := filepath.Join(d.root, "frontend.cfg")
	d.write(extra, "frontend e2e\n\tbind "+haproxyAddr+"\n\thttp-request return status 200 content-type text/plain string \""+haproxyText+"\"\n")
	// $CONFIG stands unquoted in ExecStart=, so several words are several arguments.
	d.write("/etc/default/haproxy", "CONFIG=\"/etc/haproxy/haproxy.cfg -f "+extra+"\"\n")
	d.write("/etc/default/chrony", "DAEMON_OPTS=\"-F 1 -x\"\n") // -x: the host's clock is none of this test's business
}

// forget removes a path after the test if it is not there now.
func (d *debian) forget(path string) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		d.t.Cleanup(func() {
			if err := os.RemoveAll(path); err != nil {
				d.t.Error(err)
			}
		})
	}
}

// write writes a file and puts back what was there after the test.
func (d *debian) write(path, text string) {
	d.t.Helper()
	d.forget(path)
	if old, err := os.ReadFile(path); err == nil {
		d.t.Cleanup(func() {
			if err := os.WriteFile(path, old, 0o644); err != nil {
				d.t.Error(err)
			}
		})
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// own gives a folder to a user of a package.
func own(dir, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return errors.Join(err1, err2, os.Chown(dir, uid, gid))
}
