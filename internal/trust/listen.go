package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"flota/internal/fault"
)

// Limits of a listener.
const (
	handshakeWithin  = 5 * time.Second        // from the connection's first moment to its verified end
	handshakesAtOnce = 256                    // more wait in the kernel's queue; a handshake takes 1 ms of a core
	shareOfOne       = 4                      // one address off this host may have a quarter of them; what it opens beyond is closed
	queued           = 256                    // verified connections of a kind that nobody has accepted yet; more are closed
	farewellWithin   = 500 * time.Millisecond // for a refused client to read why
	farewellBytes    = 64 << 10               // of it that are read and dropped meanwhile
	acceptPauseMin   = 5 * time.Millisecond
	acceptPauseMax   = time.Second
)

// handshakeByte is the first byte of every TLS connection: the record type "handshake". Source: RFC 8446, 5.1.
const handshakeByte = 0x16

// ListenOptions say what a Listener takes.
type ListenOptions struct {
	Identity *Identity
	Members  *Members
	// Kinds are taken; others are refused. Plain works on a loopback address only, whatever stands here.
	Kinds []Kind
	// Handshakes is how many may be under way at once; 0: 256.
	Handshakes int
	// Patience is how long one may take; 0: 5 s.
	Patience time.Duration
	Log      *slog.Logger // nil logs nothing
}

// Listener takes the connections of one port and sorts them by kind. Handshakes are made beside each other, each with a deadline, so that nobody
// holds up anybody else; strangers are cut off without an answer. Make one with Listen, then call Run.
type Listener struct {
	o        ListenOptions
	l        net.Listener
	config   *tls.Config
	plain    bool // loopback, and Plain is wanted
	sorted   map[Kind]*sub
	free     chan struct{} // a place per handshake under way
	handling sync.WaitGroup

	mu   sync.Mutex // guards the field below
	from map[netip.Addr]int
}

// Listen makes a Listener of l, which it takes over; nothing is accepted before Run.
func Listen(l net.Listener, o ListenOptions) *Listener {
	if o.Handshakes == 0 {
		o.Handshakes = handshakesAtOnce
	}
	if o.Patience == 0 {
		o.Patience = handshakeWithin
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Listener{o: o, l: l, config: o.Identity.Server(o.Members, o.Kinds...), sorted: map[Kind]*sub{},
		free: make(chan struct{}, o.Handshakes), from: map[netip.Addr]int{}}
	s.plain = slices.Contains(o.Kinds, Plain) && loopback(l.Addr())
	for _, k := range []Kind{Machines, Join, Renew, Plain} {
		s.sorted[k] = &sub{addr: l.Addr(), conns: make(chan net.Conn, queued), done: make(chan struct{})}
		if !slices.Contains(o.Kinds, k) || k == Plain && !s.plain {
			s.sorted[k].Close()
		}
	}
	return s
}

// Of gives the connections of one kind: *tls.Conn whose handshake is over, so that package net/http serves them as its own; Plain ones are
// not. It never accepts where the kind is not taken. Closing it refuses that kind from then on, and nothing else.
func (s *Listener) Of(k Kind) net.Listener { return s.sorted[k] }

// Addr is the address listened on.
func (s *Listener) Addr() net.Addr { return s.l.Addr() }

// Close stops listening, and ends Run.
func (s *Listener) Close() error {
	for _, k := range s.sorted {
		k.Close()
	}
	return s.l.Close()
}

// Run takes connections until ctx ends or Close is called, and returns nil then; handshakes under way are broken off, connections that were
// accepted go on.
func (s *Listener) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.handling.Wait()
	defer cancel()
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	pause := acceptPauseMin
	for {
		select {
		case s.free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := s.l.Accept()
		if err == nil {
			pause = acceptPauseMin
			s.handling.Go(func() { s.handle(ctx, c) }) // ends within Patience, or with ctx
			continue
		}
		<-s.free
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		s.o.Log.Warn("accept a connection", "addr", s.l.Addr(), "err", err, "retry", pause)
		select {
		case <-time.After(pause):
			pause = min(2*pause, acceptPauseMax)
		case <-ctx.Done():
		}
	}
}

// handle finds out what a connection is and hands it on, or closes it.
func (s *Listener) handle(ctx context.Context, raw net.Conn) {
	w := &wire{Conn: raw}
	from := remote(raw)
	k, c, err := Plain, net.Conn(nil), error(nil)
	if s.enter(from) {
		k, c, err = s.sort(ctx, w)
		s.leave(from)
	} else {
		err = errors.New("too many connections of this address are unproven")
	}
	<-s.free
	if err == nil {
		err = s.sorted[k].give(c)
	}
	if err != nil {
		w.Close()
		s.o.Log.Debug("connection refused", "addr", s.l.Addr(), "from", raw.RemoteAddr(), "err", err)
	}
}

// sort makes the handshake.
func (s *Listener) sort(ctx context.Context, w *wire) (Kind, net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { w.Close() }) // wakes whoever reads from it
	first := make([]byte, 1)
	if _, err := w.Conn.Read(first); err != nil {
		stop()
		return 0, nil, err
	}
	w.head = first
	if first[0] != handshakeByte {
		if !s.plain || !loopback(w.RemoteAddr()) {
			stop()
			return 0, nil, errors.New("it is not TLS")
		}
		return Plain, w, broken(stop)
	}
	c := tls.Server(w, s.config)
	err := c.HandshakeContext(ctx)
	if err != nil {
		w.farewell()
	}
	if err := errors.Join(err, broken(stop)); err != nil {
		return 0, nil, err
	}
	k, _ := kindOf([]string{c.ConnectionState().NegotiatedProtocol})
	if k != Machines {
		return k, c, nil
	}
	p, _ := PeerOf(c)
	return k, c, w.track(s.o.Members, p) // which looks at the members again: they may have changed since the handshake did
}

// broken stops a deadline, and says if it had been reached.
func broken(stop func() bool) error {
	if !stop() {
		return context.DeadlineExceeded
	}
	return nil
}

// enter counts a connection of an address; false: it has too many.
func (s *Listener) enter(from netip.Addr) bool {
	if !from.IsValid() || from.IsLoopback() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[from] >= max(1, s.o.Handshakes/shareOfOne) {
		return false
	}
	s.from[from]++
	return true
}

// leave counts it out.
func (s *Listener) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[from]--; s.from[from] <= 0 {
		delete(s.from, from)
	}
}

// remote is the address at the other end; invalid for what is no IP connection.
func remote(c net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// loopback says whether an address is this host's own, for itself.
func loopback(a net.Addr) bool {
	p, err := netip.ParseAddrPort(a.String())
	return err == nil && p.Addr().Unmap().IsLoopback()
}

// sub is the listener of one kind.
type sub struct {
	addr  net.Addr
	conns chan net.Conn

	once sync.Once
	done chan struct{}
}

// Accept implements net.Listener.
func (l *sub) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	default:
		select {
		case c := <-l.conns:
			return c, nil
		case <-l.done:
		}
	}
	return nil, fmt.Errorf("accept on %s: %w", l.addr, net.ErrClosed)
}

// Close implements net.Listener: connections that nobody accepted are closed.
func (l *sub) Close() error {
	l.once.Do(func() { close(l.done) })
	l.drain()
	return nil
}

// Addr implements net.Listener.
func (l *sub) Addr() net.Addr { return l.addr }

// give hands a connection to whoever accepts; it never waits. On an error the caller closes c.
func (l *sub) give(c net.Conn) error {
	select {
	case <-l.done:
		return fault.New(fault.Unavailable, "nobody takes such connections here")
	default:
	}
	select {
	case l.conns <- c:
	default:
		return fault.New(fault.Unavailable, "%d such connections wait already", queued)
	}
	select {
	case <-l.done: // closed meanwhile
		l.drain()
	default:
	}
	return nil
}

// drain closes what waits.
func (l *sub) drain() {
	for {
		select {
		case c := <-l.conns:
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn() // without TLS's goodbye, which may take 5 s
			}
			c.Close()
		default:
			return
		}
	}
}

// connKey is where ConnContext leaves a connection.
type connKey struct{}

// ConnContext is for http.Server.ConnContext: with it PeerOfRequest works behind wrapped listeners too.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
