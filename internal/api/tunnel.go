package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"flota/internal/fault"
)

// tunnel is a kind of connection through the API of a voter to something within it.
type tunnel struct {
	path     string
	protocol string // what the connection is upgraded to
	what     string // for people: where it leads
}

var (
	storeTunnel = tunnel{"/v1/store", "flota-store", "the store"}
	keysTunnel  = tunnel{"/v1/keyfront", "flota-keys", "the keys"}
)

// atomicOnce tells the first caller from the others. The zero value is fresh.
type atomicOnce struct{ done atomic.Bool }

func (o *atomicOnce) first() bool { return o.done.CompareAndSwap(false, true) }

// DialStore connects to the store of the voter whose API is at addr, through that API. dial makes the connection, verified on
// both sides.
// fault.Unavailable if nobody answers or the machine is no voter.
func DialStore(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error), addr string) (net.Conn, error) {
	return storeTunnel.dial(ctx, dial, addr)
}

// DialKeys connects to the applications' keys at the voter whose API is at addr, as DialStore does to the store.
func DialKeys(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error), addr string) (net.Conn, error) {
	return keysTunnel.dial(ctx, dial, addr)
}

func (t tunnel) dial(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error), addr string) (net.Conn, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connect to %s at %s", t.what, addr)
	}
	// The connection is closed if ctx ends before the upgrade is done, and belongs to the caller after that.
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	r, err := t.upgrade(c, addr)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		_ = c.Close()
		if fault.KindOf(err) == fault.Internal {
			err = fault.Wrap(fault.Unavailable, err, "connect to %s at %s", t.what, addr)
		}
		return nil, err
	}
	return &bufferedConn{Conn: c, r: r}, nil
}

// upgrade asks for the tunnel on c; the reader may hold the first bytes that came through it.
func (t tunnel) upgrade(c net.Conn, addr string) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+t.path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", t.protocol)
	if err := req.Write(c); err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, parseProblem(resp.StatusCode, b)
	}
	return r, nil
}

// bufferedConn reads what was read ahead first.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

// Read implements net.Conn.
func (c *bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// serveStore tunnels the connection to this voter's store, serveKeys to its applications' keys.
func (s *Server) serveStore(w http.ResponseWriter, r *http.Request) error {
	return s.serveTunnel(w, r, storeTunnel, s.StoreConn)
}

func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request) error {
	return s.serveTunnel(w, r, keysTunnel, s.KeysConn)
}

func (s *Server) serveTunnel(w http.ResponseWriter, r *http.Request, t tunnel, conn func(context.Context) (net.Conn, error)) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), t.protocol) {
		w.Header().Set("Upgrade", t.protocol)
		return withStatus(http.StatusUpgradeRequired, fault.New(fault.Invalid, "this path speaks only %q, after an upgrade", t.protocol))
	}
	if conn == nil { // a machine that is a voter at times gives fault.Unavailable itself
		return fault.WithHint(fault.New(fault.Unavailable, "%s holds no copy of the store", s.Name), "ask a voter")
	}
	up, err := conn(r.Context())
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "connect to %s of %s", t.what, s.Name)
	}
	defer up.Close()
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "take the connection over")
	}
	defer down.Close()
	_ = down.SetDeadline(time.Time{})
	if _, err := io.WriteString(down, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+t.protocol+"\r\n\r\n"); err != nil {
		return nil
	}
	stop := context.AfterFunc(r.Context(), func() { _, _ = up.Close(), down.Close() })
	defer stop()
	go func() { // ends when the client or the store hangs up, at the latest with the closes above
		_, _ = io.Copy(up, buf)
		hangUp(up)
	}()
	_, _ = io.Copy(down, up)
	return nil
}

// hangUp tells the other side that nothing more comes.
func hangUp(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
		return
	}
	_ = c.Close()
}
