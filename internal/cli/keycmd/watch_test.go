package keycmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/fault"
)

// started is a command that runs beside the test.
type started struct {
	out, errs buffer
	end       context.CancelFunc
	err       chan error
}

// start starts a command.
func start(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &started{end: cancel, err: make(chan error, 1)}
	go func() { s.err <- run(ctx, "", &s.out, &s.errs, args...) }()
	t.Cleanup(cancel)
	return s
}

// ended gives the error that the command ended with.
func (s *started) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.err:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("it does not end: %s%s", s.out.String(), s.errs.String())
		return nil
	}
}

func TestWatch(t *testing.T) {
	fresh(t)
	r, err := etcd(t).Put(t.Context(), "/w/there", "0")
	if err != nil {
		t.Fatal(err)
	}
	began := r.Header.Revision
	ok(t, "", "put", "/w", "self")
	w := start(t, "watch", "--prefix", "--initial", "--count", "7", "/w")
	await(t, "the first", func() bool { return strings.Contains(w.out.String(), "/w/there") })
	ok(t, "", "put", "/w/a", "1")
	ok(t, "", "put", "/wx", "not below")
	ok(t, "", "put", "/w/a", "2")
	ok(t, "", "del", "/w/a")
	await(t, "the range", func() bool { return strings.Contains(w.out.String(), "delete") })
	ok(t, "", "put", "/w", "new")
	await(t, "the key itself", func() bool { return strings.Contains(w.out.String(), "change /w: new") })
	ok(t, "", "put", "/w/b", "x\ny")
	if err := w.ended(t); err != nil {
		t.Fatal(err)
	}
	want := "create /w: self\ncreate /w/there: 0\ncreate /w/a: 1\nchange /w/a: 2\ndelete /w/a\nchange /w: new\ncreate /w/b: \"x\\ny\"\n"
	if w.out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", w.out.String(), want)
	}
	line := ok(t, "", "--json", "watch", "--revision", itoa(began), "--count", "1", "/w/a")
	if !strings.Contains(line, `{"action":"create","key":"/w/a","value":"1"`) || strings.Count(line, "\n") != 1 {
		t.Error(line)
	}
}

// A watch that asks for changes that are no longer kept goes on with what is there.
func TestWatchCompacted(t *testing.T) {
	c := fresh(t)
	ok(t, "", "put", "/old/same", "1")
	r, err := c.Put(t.Context(), "/old/a", "1")
	if err != nil {
		t.Fatal(err)
	}
	since := r.Header.Revision + 1
	for _, v := range []string{"2", "3", "4"} {
		ok(t, "", "put", "/old/a", v)
		ok(t, "", "put", "/old/b", v)
	}
	if r, err = c.Put(t.Context(), "/old/last", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	w := start(t, "watch", "--prefix", "--revision", itoa(since), "--count", "4", "/old")
	await(t, "what is there", func() bool { return strings.Contains(w.out.String(), "/old/last") })
	await(t, "what comes", func() bool { ok(t, "", "put", "/old/new", "1"); return strings.Contains(w.out.String(), "/old/new") })
	if err := w.ended(t); err != nil {
		t.Fatal(err)
	}
	if want := "change /old/a: 4\ncreate /old/b: 4\ncreate /old/last: 1\n"; !strings.HasPrefix(w.out.String(), want) || !strings.Contains(w.errs.String(), "no longer kept") {
		t.Errorf("%s%s", w.out.String(), w.errs.String())
	}
}

// A slow command sees the newest value of each key last, and one run at a time.
func TestRunnerCoalesces(t *testing.T) {
	var out buffer
	dir := t.TempDir()
	r := newRunner(&keys{Env: Env{Out: &out, Err: &out, Exit: func(code int) error { return exited(code) }}},
		`mkdir `+dir+`/one && echo "$FLOTA_ACTION $FLOTA_KEY $FLOTA_VALUE $FLOTA_REVISION $(cat)"; while [ ! -e `+dir+`/gate ]; do sleep 0.02; done
		rmdir `+dir+`/one; [ "$FLOTA_VALUE" != last ] || exit 3`, 4)
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	go r.run(ctx, end)
	rev := int64(0)
	take := func(action, key, value string) {
		rev++
		_ = r.take(event{Action: action, Item: Item{Key: key, Revision: rev}, raw: []byte(value)})
	}
	take(created, "/a", "1")
	await(t, "the first run", func() bool { return out.String() != "" })
	for _, v := range []string{"2", "3", "4"} {
		take(changed, "/a", v)
		take(changed, "/b", v)
	}
	take(deleted, "/b", "")
	take(created, "/c", "last")
	if err := os.WriteFile(filepath.Join(dir, "gate"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.wait()
	if want := "create /a 1 1 1\nchange /a 4 6 4\ndelete /b  8 \ncreate /c last 9 last\n"; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if cause := context.Cause(ctx); cause != exited(3) {
		t.Errorf("ended with %v", cause)
	}
}

func TestWatchExec(t *testing.T) {
	fresh(t)
	ok(t, "", "put", "/x/a", strings.Repeat("x", maxEnv+1))
	w := start(t, "watch", "--prefix", "--initial", "--count", "1", "--exec", `echo "${FLOTA_VALUE-none}"; wc -c; exit 7`, "/x")
	if err := w.ended(t); !errors.Is(err, exited(7)) || !strings.HasPrefix(w.out.String(), "none\n65537") {
		t.Errorf("%v: %q", err, w.out.String())
	}
	// A command that fails does not end the watch; the end of the watch ends the command and what it started.
	gone := filepath.Join(t.TempDir(), "pid")
	w = start(t, "watch", "--initial", "--exec", `echo ran; [ "$FLOTA_VALUE" = stay ] || exit 1; sleep 100 & echo $! >`+gone+`; wait`, "/y")
	await(t, "the watch", func() bool {
		ok(t, "", "put", "/y", "1")
		return strings.Contains(w.errs.String(), "/y: the command: exit status 1")
	})
	ok(t, "", "put", "/y", "stay")
	read := func() string { b, _ := os.ReadFile(gone); return strings.TrimSpace(string(b)) }
	await(t, "the command", func() bool { return read() != "" })
	w.end()
	if err := w.ended(t); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	await(t, "the end of what it started", func() bool {
		b, err := os.ReadFile("/proc/" + read() + "/cmdline")
		return err != nil || len(b) == 0
	})
}

func TestLock(t *testing.T) {
	fresh(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	command := `[ -n "$FLOTA_LOCK_KEY" ] && [ "$FLOTA_LOCK_REVISION" -gt 0 ] || exit 9; echo in >>` + log + `; sleep 0.05; echo out >>` + log
	var all []*started
	for range 5 {
		all = append(all, start(t, "lock", "/lock/a", "--", "sh", "-c", command))
	}
	for _, s := range all {
		if err := s.ended(t); err != nil {
			t.Error(err, s.errs.String())
		}
	}
	b, _ := os.ReadFile(log)
	if string(b) != strings.Repeat("in\nout\n", 5) {
		t.Errorf("%q", b)
	}
	var code exited
	if err := start(t, "lock", "/lock/a", "--", "sh", "-c", "exit 42").ended(t); !errors.As(err, &code) || code != 42 {
		t.Error(err)
	}
	if err := start(t, "lock", "/lock/a", "--", "/no/such/program").ended(t); !errors.As(err, &code) || code != 127 {
		t.Error(err)
	}
	fails(t, fault.Invalid, "", "lock", "/lock/a", "true")
	fails(t, fault.NotFound, "", "ls", "/lock/a") // it is free again, at once

	// Held: others give up when told to. Lost: the command is ended.
	h := start(t, "lock", "/lock/b", "--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done")
	c := etcd(t)
	var held Item
	await(t, "the lock", func() bool { return run(t.Context(), "", &buffer{}, &buffer{}, "ls", "/lock/b") == nil })
	fails(t, fault.TimedOut, "", "lock", "--wait", "100ms", "/lock/b", "--", "true")
	r, err := c.Get(t.Context(), strings.TrimSpace(ok(t, "", "ls", "/lock/b")))
	if err != nil || len(r.Kvs) != 1 {
		t.Fatal(err)
	}
	held = itemOf(r.Kvs[0])
	if _, err := c.Revoke(t.Context(), leaseOf(held)); err != nil {
		t.Fatal(err)
	}
	if err := h.ended(t); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "lost") {
		t.Error(err)
	}
}

func TestNoFront(t *testing.T) {
	fresh(t)
	fails(t, fault.Unavailable, "", "--keys-endpoint", "127.0.0.1:1", "get", "/a")
	fails(t, fault.Invalid, "", "--keys-endpoint", "nonsense", "get", "/a")
	ok(t, "", "--keys-endpoint", "127.0.0.1:1,http://"+front, "put", "/front/a", "1")
}
