package trust

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flota/internal/machine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// idOf gives a machine ID that ends with a name.
func idOf(name string) machine.ID {
	b := [16]byte{}
	copy(b[16-len(name):], name)
	return machine.ID(hex.EncodeToString(b[:]))
}

// local is an address that certificates of tests carry.
var local = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

// subject names a machine.
func subject(name string) Subject { return Subject{ID: idOf(name), Name: name, IPs: local} }

// found makes a cluster in a new directory.
func found(t *testing.T, o Options) *Identity {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "trust")
	}
	i, err := Found(o, subject("m1"))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// grant lets by's authority answer a request, as room admit does.
func grant(t testing.TB, by *Identity, csr []byte) Grant {
	t.Helper()
	g, err := tryGrant(by, csr)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// tryGrant does it.
func tryGrant(by *Identity, csr []byte) (Grant, error) {
	s, _, err := ReadRequest(csr)
	if err != nil {
		return Grant{}, err
	}
	s.Cluster = by.Cluster()
	a, err := by.Authority()
	if err != nil {
		return Grant{}, err
	}
	cert, err := a.Issue(csr, s, by.o.Life, by.o.Now())
	return Grant{Certificate: cert, Bundle: by.Bundle(), Cluster: by.Cluster(), Epoch: by.Epoch()}, err
}

// join makes a machine of by's cluster in a new directory.
func join(t *testing.T, by *Identity, name string, o Options) *Identity {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "trust")
	}
	csr, err := Request(o, subject(name))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Install(o, grant(t, by, csr))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// members gives a table in which the given machines stand, followed.
func members(t *testing.T, of ...*Identity) *Members {
	t.Helper()
	m := NewMembers(Options{Dir: t.TempDir()})
	if err := m.Live(table(of...), nil); err != nil {
		t.Fatal(err)
	}
	return m
}

// table is a machine table.
func table(of ...*Identity) map[machine.ID]string {
	out := map[machine.ID]string{}
	for _, i := range of {
		out[i.ID()] = i.KeyHash()
	}
	return out
}

// elsewhere is a listener that says it is not on loopback.
type elsewhere struct{ net.Listener }

func (elsewhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7700} }

// open listens on loopback (off says otherwise) until the test ends, and runs.
func open(t *testing.T, off bool, o ListenOptions) (l *Listener, addr string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = tcp.Addr().String()
	if off {
		tcp = elsewhere{tcp}
	}
	if o.Kinds == nil {
		o.Kinds = []Kind{Machines, Join, Renew, Plain}
	}
	l = Listen(tcp, o)
	run(t, l.Run)
	return l, addr
}

// run runs f until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("it does not end")
		}
	})
}

// echo answers every connection of a kind with "kind:" and what it sent, until the listener ends.
func echo(t *testing.T, l *Listener, k Kind, says string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Of(k).Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					if _, err := c.Write(append([]byte(says+":"), b[:n]...)); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Of(k).Close(); <-done })
}

// talk sends hello and gives the answer; it closes nothing.
func talk(c net.Conn) (string, error) {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	_, werr := c.Write([]byte("hello"))
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err == nil {
		err = werr
	}
	return string(b[:n]), err
}

// ask dials with a configuration, talks and closes.
func ask(addr string, cfg *tls.Config) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	t := tls.Client(c, cfg)
	defer t.Close()
	if err := t.Handshake(); err != nil {
		return "", err
	}
	return talk(t)
}

// errCrash is a process that died.
var errCrash = errors.New("crash")

// crashAt gives a fault that dies at the nth step; steps counts them.
func crashAt(n int, steps *int) func(string, string) error {
	*steps = 0
	return func(string, string) error {
		*steps++
		if *steps == n {
			return errCrash
		}
		return nil
	}
}

// copyDir copies a directory of files.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "trust")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}
