package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
)

// Dial connects to a machine of this cluster over TCP and TLS; addr is host:port, want and alpn are Client's. It gives up when ctx ends or after
// handshakeWithin, whichever is first. The connection ends when the machine is removed. fault.Unavailable: the machine cannot be reached, or refuses; fault.Denied:
// it is not the one wanted or no member.
//
// That the other side refuses this machine's certificate shows only when the answer is first read, as fault.Unavailable; it also makes Run renew.
func (i *Identity) Dial(ctx context.Context, m *Members, addr string, want machine.ID, alpn ...string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeWithin)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connect to %s", addr)
	}
	return i.Secure(ctx, raw, m, want, alpn...)
}

// Secure does what Dial does over a connection that is open already, which it takes over: raw is closed if it fails.
func (i *Identity) Secure(ctx context.Context, raw net.Conn, m *Members, want machine.ID, alpn ...string) (net.Conn, error) {
	w := &wire{Conn: raw}
	c := tls.Client(w, i.Client(m, want, alpn...))
	err := c.HandshakeContext(ctx)
	if err == nil {
		p, _ := PeerOf(c)
		err = w.track(m, p)
	}
	if err != nil {
		w.Close()
		if Rejected(err) {
			i.Wake()
		}
		return nil, dialError(raw, err)
	}
	return &secured{Conn: c, i: i}, nil
}

// dialError classifies the error of a handshake.
func dialError(raw net.Conn, err error) error {
	kind := fault.Unavailable
	if fault.Is(err, fault.Denied) {
		kind = fault.Denied
	}
	return fault.Wrap(kind, err, "make a secure connection to %s", raw.RemoteAddr())
}

// Rejected says that the other side of a TLS connection ended it with an alert: it does not believe this machine's certificate, or does not take
// this kind of connection.
func Rejected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// secured is a dialled connection; it notices when the other side refuses this machine's certificate.
type secured struct {
	*tls.Conn
	i *Identity
}

// Read implements net.Conn.
func (c *secured) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && Rejected(err) {
		c.i.Wake()
		err = fault.WithHint(fault.Wrap(fault.Unavailable, err, "%s refuses this machine's certificate", c.RemoteAddr()),
			"flota machine list, on another machine, shows whether this one was removed; if not, it gets a new certificate by itself within a minute")
	}
	return n, err
}

// wire is what lies below a TLS connection, or all of a plain one: it gives back the byte that was looked at, and leaves the members when it is
// closed.
type wire struct {
	net.Conn
	head []byte // read before; used by one reader at a time, as net.Conn.Read is here

	mu      sync.Mutex // guards the fields below
	closed  bool
	release func() // from Members.Track; nil: none
}

// NetConn gives the connection below.
func (w *wire) NetConn() net.Conn { return w.Conn }

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	if len(w.head) > 0 && len(b) > 0 {
		n := copy(b, w.head)
		w.head = w.head[n:]
		return n, nil
	}
	return w.Conn.Read(b)
}

// track registers the connection with m until it is closed.
func (w *wire) track(m *Members, p Peer) error {
	if p.ID == "" {
		return fault.New(fault.Denied, "the other side proved to be nobody")
	}
	release, err := m.Track(p.ID, p.Key, w)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		release()
		return fmt.Errorf("track a connection: %w", net.ErrClosed)
	}
	w.release = release
	return nil
}

// farewell lets the other side read the alert that ended a handshake: a connection that is closed while something of it is unread is reset, and
// the alert lost with it.
func (w *wire) farewell() {
	c, ok := w.Conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil || w.Conn.SetReadDeadline(time.Now().Add(farewellWithin)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, w.Conn, farewellBytes)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.mu.Lock()
	release := w.release
	w.release, w.closed = nil, true
	w.mu.Unlock()
	if release != nil {
		release()
	}
	return w.Conn.Close()
}
