package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"flota/internal/fault"
	"flota/internal/trust"
)

// Limits of a listener.
const (
	maxHeader       = 64 << 10         // bytes of a request's header
	headerPatience  = 5 * time.Second  // for the header
	idlePatience    = 60 * time.Second // of a connection between requests
	maxConns        = 1024             // at once; more wait to be accepted
	shutdownTimeout = 2 * time.Second  // for requests under way when ctx ends
)

// Serve answers callers of kind k on l until ctx ends, and then closes it. For the kinds that a certificate proves, l gives connections of a
// trust.Listener. Requests under way get 2 s to end; streams end at once.
func (s *Server) Serve(ctx context.Context, l net.Listener, k Kind) error {
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(k),
		ReadHeaderTimeout: headerPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       trust.ConnContext,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() { // ends with ctx, or with Serve
		defer close(done)
		<-base.Done()
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer stop()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	}()
	err := srv.Serve(&limited{Listener: l, free: make(chan struct{}, maxConns)})
	cancel()
	<-done
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return fault.Wrap(fault.Internal, err, "serve the API on %s", l.Addr())
}

// limited is a listener with at most cap(free) connections open.
type limited struct {
	net.Listener
	free chan struct{}
}

// Accept implements net.Listener. It waits while too many connections are open; a listener that is closed meanwhile is seen when one ends.
func (l *limited) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, free: l.free}, nil
}

// limitedConn gives its turn back once when it is closed.
type limitedConn struct {
	net.Conn
	free   chan struct{}
	closed atomicOnce
}

// NetConn gives the connection below, which knows who is at its other end.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	if c.closed.first() {
		<-c.free
	}
	return err
}
