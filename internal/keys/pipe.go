package keys

import (
	"net"

	"google.golang.org/grpc/test/bufconn"
)

// mark is the address of who calls from within the process.
type mark string

// Network implements net.Addr.
func (mark) Network() string { return "flota" }

// String implements net.Addr.
func (m mark) String() string { return string(m) }

const (
	insideAddr  mark = "inside"  // rooms of this machine, and other machines' fronts: access was checked there
	gatewayAddr mark = "gateway" // the JSON gateway, which passes the client's credentials on
)

// pipeBytes is the buffer of a connection within the process, each way.
const pipeBytes = 64 << 10

// pipe is a listener within the process; its connections come from mark.
type pipe struct {
	*bufconn.Listener
	mark mark
}

func newPipe(m mark) pipe { return pipe{bufconn.Listen(pipeBytes), m} }

// Accept implements net.Listener.
func (p pipe) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return markedConn{c, p.mark}, nil
}

type markedConn struct {
	net.Conn
	mark mark
}

// RemoteAddr implements net.Conn.
func (c markedConn) RemoteAddr() net.Addr { return c.mark }
