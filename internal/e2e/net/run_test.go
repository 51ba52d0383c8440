package netbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// result is what a command has printed and its exit code; -1 is one that did not end in time.
type result struct {
	args     []string
	out, err string
	code     int
}

// String is for messages.
func (r result) String() string {
	return fmt.Sprintf("%s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.out, r.err)
}

// errNoPower is what is wrong with a machine that was killed.
var errNoPower = errors.New("the machine has no power")

// launched is a program that runs on a machine until it ends itself or is killed.
type launched struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
}

// environ is the environment on a machine: it says what a machine of its own knows without being told, because namespaces share the name of
// the host and its folders. What the caller has set for another cluster is left out.
func (b *bed) environ(m *box) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "FLOTA_") && !strings.HasPrefix(e, "FLEETCTL_") && !strings.HasPrefix(e, "PATH=") {
			env = append(env, e)
		}
	}
	return append(env, bedVar+"="+b.root, "PATH="+filepath.Join(top, "bin")+":"+os.Getenv("PATH"),
		"FLOTA_DATA_DIR="+m.dir, "FLOTA_NAME="+m.name, "FLOTA_ADDR="+m.addr,
		"FLOTA_ENDPOINT=unix://"+b.socket(m.i), "FLOTA_CONFIG="+filepath.Join(b.root, "contexts.json"))
}

// socket is where a machine's API listens for root.
func (b *bed) socket(i int) string { return filepath.Join(b.at(i).dir, "flota.sock") }

// command prepares a program on a machine; start runs it there.
func (b *bed) command(ctx context.Context, i int, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	if !strings.Contains(program, "/") {
		cmd.Path, cmd.Err = filepath.Join(top, "bin", program), nil
	}
	cmd.Env, cmd.Dir = b.environ(b.at(i)), b.root
	cmd.WaitDelay = 5 * time.Second // what it has started may keep its output open
	return cmd
}

// exec runs a program on a machine to its end, for d at most.
func (b *bed) exec(i int, d time.Duration, program string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	cmd := b.command(ctx, i, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	r := result{args: append([]string{b.at(i).name + "$", filepath.Base(program)}, args...)}
	err := errNoPower
	if ns := b.space(i); ns != nil {
		err = ns.do(cmd.Start)
	}
	if err == nil {
		err = cmd.Wait()
	}
	r.out, r.err = out.String(), errs.String()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		r.code, r.err = -1, r.err+err.Error()
	}
	return r
}

// run runs flota on a machine, for two minutes at most.
func (b *bed) run(i int, args ...string) result { return b.exec(i, 2*time.Minute, "flota", args...) }

// must runs flota on a machine, which must succeed, and gives what it printed.
func (b *bed) must(t *testing.T, i int, args ...string) string {
	t.Helper()
	r := b.run(i, args...)
	if r.code != 0 {
		t.Fatal(r)
	}
	return r.out
}

// decode runs flota with --json on a machine and reads what it prints into v.
func (b *bed) decode(i int, v any, args ...string) error {
	r := b.exec(i, 20*time.Second, "flota", append(args, "--json")...)
	if r.code != 0 {
		return errors.New(r.String())
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		return fmt.Errorf("%w: %v", err, r)
	}
	return nil
}

// launch starts a program on a machine with its output to the machine's log. It has a session of its own.
func (b *bed) launch(t *testing.T, i int, program string, args ...string) *launched {
	t.Helper()
	if b.space(i) == nil {
		if err := b.attach(b.at(i)); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.OpenFile(b.log(i), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	l := &launched{cmd: b.command(context.Background(), i, program, args...), ended: make(chan struct{})}
	l.cmd.Stdout, l.cmd.Stderr = log, log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := b.space(i).do(l.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = l.cmd.Wait() // its ProcessState tells
		close(l.ended)
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs[i] = l
	return l
}

// dial opens a connection from a machine.
func (b *bed) dial(ctx context.Context, i int, network, addr string) (conn net.Conn, err error) {
	ns := b.space(i)
	if ns == nil {
		return nil, errNoPower
	}
	err = ns.do(func() error {
		conn, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// listen opens a listener on a machine.
func (b *bed) listen(i int, addr string) (l net.Listener, err error) {
	err = b.space(i).do(func() error {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}
