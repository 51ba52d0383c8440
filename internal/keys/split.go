package keys

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Patience with connections.
const (
	helloWait   = 10 * time.Second       // for the first bytes of a connection; programs that open one speak at once
	acceptAgain = 50 * time.Millisecond  // until the next try when the system has no more files to open
	goodbyeWait = 500 * time.Millisecond // for a client that is turned away to say what it speaks and to read why
)

// probes find half-open connections: silent for 15 s, then 3 questions 5 s apart: gone within 30 s.
var probes = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// goneWait is how long what was sent may stay unacknowledged: while it does, nothing is probed, and the kernel by itself would try for a quarter of an hour.
var goneWait = 30 * time.Second

// tcpUserTimeout is the option for it. Source: tcp(7), TCP_USER_TIMEOUT.
const tcpUserTimeout = 0x12

// watchOver has the kernel end the connection when the other side is gone without a word. Where it cannot, reading will show it.
func watchOver(t *net.TCPConn) {
	_ = t.SetKeepAliveConfig(probes)
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(goneWait.Milliseconds()))
		})
	}
}

// split shares one listener between gRPC, which is HTTP/2 and says so in its first bytes, and everything else, which is HTTP/1.
// At most max connections are open; more are told so and closed.
type split struct {
	l          net.Listener
	max        int64
	open       atomic.Int64
	grpc, http *queue
	all        sync.WaitGroup // connections being looked at
}

func newSplit(l net.Listener, maxConns int) *split {
	return &split{l: l, max: int64(maxConns), grpc: newQueue(l.Addr()), http: newQueue(l.Addr())}
}

// run accepts until ctx ends, and then closes the listener and waits for what it began.
func (s *split) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.l.Close()
		s.grpc.Close()
		s.http.Close()
	})
	defer s.all.Wait()
	defer stop()
	for {
		c, err := s.l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			pause(ctx, acceptAgain)
			continue
		}
		if t, ok := c.(*net.TCPConn); ok {
			watchOver(t)
		}
		if s.open.Add(1) > s.max+spare {
			s.open.Add(-1)
			c.Close()
			continue
		}
		s.all.Go(func() { s.route(ctx, &counted{Conn: c, open: &s.open}) })
	}
}

// spare is how many connections above the maximum are told that they are too many; beyond, they are only closed.
const spare = 1024

// route looks at the first bytes.
func (s *split) route(ctx context.Context, c *counted) {
	tooMany := s.open.Load() > s.max
	stop := context.AfterFunc(ctx, func() { c.Close() })
	wait := helloWait
	if tooMany {
		wait = goodbyeWait
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	r := bufio.NewReaderSize(c, 16)
	hello, err := r.Peek(4)
	if !stop() || err != nil {
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	isGRPC := string(hello) == "PRI "
	if tooMany {
		turnAway(c, isGRPC)
		return
	}
	q := s.http
	if isGRPC {
		q = s.grpc
	}
	q.put(&peeked{Conn: c, first: io.LimitReader(r, int64(r.Buffered()))})
}

// turnAway says in the client's own protocol that there are too many connections.
func turnAway(c net.Conn, isGRPC bool) {
	defer c.Close()
	const text = "too many connections to the keys of this machine"
	_ = c.SetDeadline(time.Now().Add(goodbyeWait))
	if !isGRPC {
		_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"+text+"\n")
	} else { // an empty SETTINGS frame, then GOAWAY with stream 0 and ENHANCE_YOUR_CALM (RFC 9113, 6.5, 6.8, 7)
		goaway := append([]byte{0, 0, byte(8 + len(text)), 7, 0, 0, 0, 0, 0 /**/, 0, 0, 0, 0, 0, 0, 0, 0xb}, text...)
		_, _ = c.Write(append([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}, goaway...))
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 64<<10)) // what it has sent, so that closing does not reset what it has not read
}

// counted is a connection that counts as open until it is closed.
type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// peeked is a connection of which the first bytes were read already.
type peeked struct {
	net.Conn
	first io.Reader // nil: all of them were given
}

// Read implements net.Conn.
func (c *peeked) Read(b []byte) (int, error) {
	if c.first != nil {
		n, err := c.first.Read(b)
		if n > 0 || len(b) == 0 {
			return n, nil
		}
		c.first = nil
		if err != io.EOF {
			return n, err
		}
	}
	return c.Conn.Read(b)
}

// queue is a listener whose connections are put into it.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put gives a connection to whoever accepts, or closes it when the queue is closed.
func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }
