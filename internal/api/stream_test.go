package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flota/internal/driver"
	"flota/internal/driver/fake"
	"flota/internal/fault"
	"flota/internal/unit"
)

// launch stores a unit and starts it.
func launch(t *testing.T, c *Client, name, text string) {
	t.Helper()
	if _, _, err := c.PutUnit(t.Context(), name, PutUnit{Text: text}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetTarget(t.Context(), name, SetTarget{Target: unit.Launched}); err != nil {
		t.Fatal(err)
	}
}

// active waits until the unit has so many active states.
func active(t *testing.T, c *Client, name string, n int) Unit {
	t.Helper()
	var u Unit
	until(t, name+" is active", func() bool {
		u, _ = c.Unit(t.Context(), name)
		up := 0
		for _, st := range u.States {
			if st.Active == "active" {
				up++
			}
		}
		return up == n
	})
	return u
}

func TestLogsOfAnotherMachine(t *testing.T) {
	r := newRig(t, 4)
	for _, b := range r.boxes {
		b.driver.Script("talk.service", fake.Behaviour{Lines: 5})
		b.driver.Script("all.service", fake.Behaviour{Lines: 3})
	}
	r.hands()
	c := r.client(1)
	launch(t, c, "talk.service", hello+"[X-Fleet]\nMachineMetadata=n=2\n")
	active(t, c, "talk.service", 1)
	logs := func(c *Client, name, machine string, lines int) (texts []string, err error) {
		err = c.Logs(t.Context(), name, machine, driver.LogOptions{Lines: lines}, func(l LogLine) error {
			texts = append(texts, l.Machine+" "+l.Text)
			return nil
		})
		return texts, err
	}
	for n := 1; n <= 4; n++ {
		got, err := logs(r.client(n), "talk.service", "", -1)
		if err != nil || !strings.Contains(strings.Join(got, "\n"), "m2 line 5") {
			t.Errorf("asked of m%d: %q, %v", n, got, err)
		}
	}
	if got, err := logs(c, "talk.service", "m2", 1); err != nil || len(got) != 1 {
		t.Errorf("one line: %q, %v", got, err)
	}
	if got, err := logs(c, "talk.service", "m3", -1); err != nil || len(got) != 0 {
		t.Errorf("of a machine where it never was: %q, %v", got, err)
	}
	launch(t, c, "all.service", hello+"[X-Fleet]\nGlobal=true\n")
	active(t, c, "all.service", 4)
	got, err := logs(c, "all.service", "", -1)
	if all := strings.Join(got, "\n"); err != nil || strings.Count(all, "line 3") != 4 {
		t.Errorf("global: %q, %v", got, err)
	}
	if _, _, err := c.PutUnit(t.Context(), "never.service", PutUnit{Text: hello}); err != nil {
		t.Fatal(err)
	}
	if got, err := logs(c, "never.service", "", -1); err != nil || len(got) != 1 || !strings.Contains(got[0], "never started") {
		t.Errorf("never started: %q, %v", got, err)
	}
	if _, err := logs(c, "nothing.service", "", -1); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown unit: %v", err)
	}
	r.boxes[1].kill()
	until(t, "m2 does not answer", func() bool {
		_, err := logs(c, "talk.service", "", -1)
		return fault.Is(err, fault.Unavailable) && strings.Contains(err.Error(), "m2")
	})
	if _, err := r.st.Alive.Delete(t.Context(), string(idOf(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := logs(c, "talk.service", "m2", -1); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "m2") {
		t.Errorf("dead machine: %v", err)
	}
}

func TestLogsFollow(t *testing.T) {
	r := newRig(t, 2)
	r.boxes[1].driver.Script("talk.service", fake.Behaviour{Lines: 2})
	r.hands()
	c := r.client(1)
	launch(t, c, "talk.service", hello+"[X-Fleet]\nMachineMetadata=n=2\n")
	active(t, c, "talk.service", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen := 0
	enough := fmt.Errorf("enough")
	err := c.Logs(ctx, "talk.service", "", driver.LogOptions{Lines: -1, Follow: true}, func(l LogLine) error {
		if l.Text == "line 2" {
			seen++
			if seen == 1 {
				go r.boxes[1].driver.Crash("talk.service")
				_, _ = c.SetTarget(ctx, "talk.service", SetTarget{Target: unit.Launched, Anew: "always"})
				return nil
			}
			return enough
		}
		return nil
	})
	if err != enough {
		t.Errorf("follow ended with %v after %d", err, seen)
	}
}

func TestOneHop(t *testing.T) {
	r := newRig(t, 2)
	w := ask(r.boxes[0].srv.Handler(Machines), "GET", "/v1/units/x.service/logs", "", forwardedHeader, "m2")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "event: end") {
		t.Errorf("a forwarded request is answered here: %d %s", w.Code, w.Body)
	}
	if w = ask(r.boxes[0].srv.Handler(Machines), "POST", "/v1/units/x.service/reload", "{}", forwardedHeader, "m2"); w.Code != 404 {
		t.Errorf("reload of a unit that is not loaded here: %d %s", w.Code, w.Body)
	}
}

func TestReload(t *testing.T) {
	r := newRig(t, 3)
	does := []string{"ok", "fail", ""}
	for i, b := range r.boxes {
		b.driver.Script(unit.Name(fmt.Sprintf("a%d.service", i+1)), fake.Behaviour{Reload: does[i]})
	}
	r.hands()
	c := r.client(3)
	for i, want := range []fault.Kind{"", fault.Failed, fault.Conflict} {
		name := fmt.Sprintf("a%d.service", i+1)
		launch(t, c, name, hello+fmt.Sprintf("[X-Fleet]\nMachineMetadata=n=%d\n", i+1))
		active(t, c, name, 1)
		err := c.Reload(t.Context(), name)
		if want == "" && err != nil || want != "" && (!fault.Is(err, want) || !strings.Contains(err.Error(), r.boxes[i].name)) {
			t.Errorf("reload on m%d: %v, want %q", i+1, err, want)
		}
		if err := c.ResetFailed(t.Context(), name); err != nil {
			t.Errorf("reset failed on m%d: %v", i+1, err)
		}
	}
	if err := c.Reload(t.Context(), "nothing.service"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown unit: %v", err)
	}
}

func TestWatch(t *testing.T) {
	r := newRig(t, 2)
	r.hands()
	c := r.client(2)
	if _, _, err := c.PutUnit(t.Context(), "old.service", PutUnit{Text: hello}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var steps []string
	done := fmt.Errorf("done")
	err := c.Watch(ctx, func(u Unit, deleted bool) error {
		switch {
		case u.Name == "old.service" && !deleted:
			steps = append(steps, "old")
			go func() {
				_, _, _ = c.PutUnit(ctx, "new.service", PutUnit{Text: hello + "[X-Fleet]\nMachineMetadata=n=9\n"})
				_, _ = c.SetTarget(ctx, "new.service", SetTarget{Target: unit.Launched})
			}()
		case u.Waiting != "":
			steps = append(steps, "waits")
			go func() { _ = c.Destroy(ctx, "new.service") }()
		case u.Name == "new.service" && deleted:
			steps = append(steps, "gone")
			return done
		}
		return nil
	})
	if err != done || strings.Join(steps, " ") != "old waits gone" {
		t.Errorf("saw %q, ended with %v", steps, err)
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t, 4)
	c := r.client(4) // which is no voter and asks one
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := fmt.Errorf("done")
	go func() { _, _ = c.Drain(ctx, "m2") }()
	err := c.Events(ctx, true, -1, func(e Event) error {
		if e.Machine == "m2" && strings.Contains(e.Text, "drained") {
			return done
		}
		return nil
	})
	if err != done {
		t.Errorf("ended with %v", err)
	}
	n := 0
	if err := c.Events(ctx, false, 1, func(Event) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("the last event: %d of them, %v", n, err)
	}
}

// A stream that breaks off must not look like one that ended.
func TestBrokenStream(t *testing.T) {
	var end error
	alive := func() {}
	f := func(string, []byte) error { return nil }
	for text, want := range map[string]error{
		"event: line\ndata: {}\n\nevent: end\ndata: {}\n\n": nil,
		"event: line\ndata: {}\n\n":                         io.ErrUnexpectedEOF,
		":\n\n":                                             io.ErrUnexpectedEOF,
		"event: end\ndata: {}\n":                            io.ErrUnexpectedEOF,
	} {
		if end = readEvents(strings.NewReader(text), alive, f); end != want {
			t.Errorf("%q: %v, want %v", text, end, want)
		}
	}
}

func TestBigBody(t *testing.T) {
	r := newRig(t, 1)
	_, _, err := r.client(1).PutUnit(t.Context(), "big.service", PutUnit{Text: hello + strings.Repeat("# x\n", 10<<20/4)})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "2097152 bytes (2.0 MiB)") || fault.Hint(err) == "" {
		t.Errorf("10 MB: %v", err)
	}
	_, _, err = r.client(1).PutUnit(t.Context(), "big.service", PutUnit{Text: hello + strings.Repeat("# x\n", 3<<17)})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "big.service") {
		t.Errorf("above a unit's limit: %v", err)
	}
	for _, target := range []string{"/v1/units/a.service", "/fleet/v1/units/a.service"} {
		// Without a Content-Length.
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://"+r.boxes[0].addr+target, io.MultiReader(bytes.NewReader(make([]byte, 5<<20))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 413 || err != nil || !bytes.Contains(b, []byte("5242880 bytes")) {
			t.Errorf("%s: %d %s %v", target, resp.StatusCode, b, err)
		}
	}
	// A client that asks first, as curl does, is told without having to send it all.
	tr := &http.Transport{ExpectContinueTimeout: 5 * time.Second}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://"+r.boxes[0].addr+"/v1/units/a.service", bytes.NewReader(make([]byte, 200<<20)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if p := decode[Problem](t, resp.Body); resp.StatusCode != 413 || !strings.Contains(p.Detail, "200.0 MiB") {
		t.Errorf("asked first: %d %+v", resp.StatusCode, p)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestHeaderTooLarge(t *testing.T) {
	r := newRig(t, 1)
	c, err := net.Dial("tcp", r.boxes[0].addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		_, _ = fmt.Fprintf(c, "GET /v1/units HTTP/1.1\r\nHost: 127.0.0.1\r\nX: %s\r\n\r\n", strings.Repeat("x", 100<<10))
	}()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("%q, %v", line, err)
	}
}

func TestStoreTunnel(t *testing.T) {
	r := newRig(t, 1)
	inside, outside := net.Pipe()
	defer inside.Close()
	s := r.boxes[0].srv
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	if _, err := DialStore(t.Context(), dial, r.boxes[0].addr); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "m1") {
		t.Errorf("a machine without a store: %v", err)
	}
	s.StoreConn = func(context.Context) (net.Conn, error) { return outside, nil }
	c, err := DialStore(t.Context(), dial, r.boxes[0].addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(inside, inside) }() // an echo
	for _, text := range []string{"hello", strings.Repeat("x", 1<<16)} {
		go func() { _, _ = io.WriteString(c, text) }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("echo of %d bytes: %v", len(text), err)
		}
	}
	_ = inside.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the store hung up and the tunnel stays open")
	}
	_ = c.Close()
}

func TestClientPicksWhatAnswers(t *testing.T) {
	r := newRig(t, 2)
	hangs, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	c, err := NewClient([]string{"unix://" + filepath.Join(t.TempDir(), "missing"), "unix://" + hangs.Addr().String(),
		"http://" + r.boxes[0].addr, "http://" + r.boxes[1].addr}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	if _, err := c.Version(t.Context()); err != nil || time.Since(start) > time.Second {
		t.Fatalf("after %s: %v", time.Since(start), err)
	}
	start = time.Now()
	if _, err := c.Version(t.Context()); err != nil || time.Since(start) > 200*time.Millisecond {
		t.Errorf("it does not stick: %s, %v", time.Since(start), err)
	}
	r.boxes[0].kill()
	until(t, "it goes on with m2", func() bool {
		st, err := c.Status(t.Context())
		return err == nil && st.Answered == "m2"
	})
	for _, bad := range []string{"", "unix://x", "http://host", "https://h:1", "ftp://x:1", "http://h:1/path", ":"} {
		if _, err := NewClient([]string{bad}, ClientOptions{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	dead, err := NewClient([]string{"unix:///nowhere/flota.sock"}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Status(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "/nowhere/flota.sock") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestServeEndsWithStreamsOpen(t *testing.T) {
	r := newRig(t, 1)
	b := r.boxes[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.srv.Serve(ctx, l, Plain) }()
	c, err := NewClient([]string{"http://" + l.Addr().String()}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.PutUnit(t.Context(), "a.service", PutUnit{Text: hello}); err != nil {
		t.Fatal(err)
	}
	err = c.Watch(t.Context(), func(Unit, bool) error { cancel(); return nil })
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("the stream ended with %v", err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Serve does not end")
	}
}
