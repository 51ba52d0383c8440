package process_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"flota/internal/driver/proc"
	"flota/internal/unit"
)

// TestDebianUnits runs unit files of Debian packages as they are, where the packages are installed and nothing listens on their
// ports yet: they answer, reload, survive both kinds of supervisor change and stop cleanly.
func TestDebianUnits(t *testing.T) {
	tests := []struct {
		unit        unit.Name
		ask, answer string // sent to the port, and part of what comes back
		port        int
		reload      bool
	}{
		{"nginx.service", "GET / HTTP/1.0\r\n\r\n", "Server: nginx", 80, true},
		{"redis-server.service", "PING\r\n", "+PONG", 6379, false},
		{"memcached.service", "version\r\n", "VERSION", 11211, false},
		{"mosquitto.service", "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", "\x20\x02\x00\x00", 1883, true},
	}
	for _, test := range tests {
		t.Run(string(test.unit), func(t *testing.T) {
			text, err := os.ReadFile("/lib/systemd/system/" + string(test.unit))
			if err != nil || os.Getuid() != 0 {
				t.Logf("not installed here, or not root: %v", err)
				return
			}
			addr := fmt.Sprintf("127.0.0.1:%d", test.port)
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				t.Logf("port %d is taken by somebody else", test.port)
				return
			}
			b := newBench(t)
			f, _, err := unit.Parse(test.unit, text)
			b.must(err)
			b.must(b.d.Load(b.ctx, unit.Unit{Name: test.unit, Options: f.Options}))
			b.must(b.d.Start(b.ctx, test.unit, 1))
			st := b.wait(test.unit, "active or failed", func(st unit.State) bool { return st.Run == 1 && (st.Active == "active" || st.Active == "failed") })
			if st.Active != "active" {
				t.Fatalf("state %+v\n%s", st, b.printed(test.unit))
			}
			t.Logf("notes: %s; status %q", strings.Join(st.Notes, "; "), st.Status)
			b.answers(addr, test.ask, test.answer)
			if test.reload {
				b.must(b.d.Reload(b.ctx, test.unit))
				b.answers(addr, test.ask, test.answer)
			}
			b.must(b.d.ReExec(b.ctx))
			b.kill()
			if now := b.sub(test.unit, "running"); now.MainPID != st.MainPID {
				t.Errorf("before %+v, now %+v", st, now)
			}
			b.answers(addr, test.ask, test.answer)
			b.must(b.d.Stop(b.ctx, test.unit))
			end := b.wait(test.unit, "stopped", func(st unit.State) bool { return st.Active == "inactive" || st.Active == "failed" })
			if end.Active != "inactive" || end.Result != "success" {
				t.Errorf("end %+v\n%s", end, b.printed(test.unit))
			}
			if _, there := proc.Look(st.MainPID); there && proc.Alive(st.MainPID, 0) {
				t.Error("it runs on")
			}
		})
	}
}

// answers asks a port until the answer is as wanted.
func (b *bench) answers(addr, ask, want string) {
	b.Helper()
	var last string
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			last = err.Error()
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprint(c, ask)
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		c.Close()
		if last = fmt.Sprintf("%q (%v)", buf[:n], err); strings.Contains(string(buf[:n]), want) {
			return
		}
	}
	b.Errorf("%s answered %s, want %q", addr, last, want)
}
