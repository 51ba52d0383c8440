package etcd

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flota/internal/fault"
)

// A connection between machines finds out within about 4 s that the other one is dead or cut off, whether it is idle (keepalive: asked after 2 s of
// silence, then each second, three times) or has sent something (user timeout: 4 s without an acknowledgement). 4 s, so that it is below the 6 s
// lease of a machine's presence; three lost packets in a row do not break it.
const (
	deadAfter      = 4 * time.Second
	aliveIdle      = 2 * time.Second
	aliveInterval  = time.Second
	aliveCount     = 3
	connectTimeout = deadAfter
)

var aliveConfig = net.KeepAliveConfig{Enable: true, Idle: aliveIdle, Interval: aliveInterval, Count: aliveCount}

// NetDialer gives the dialer that every connection between machines is made with. The caller may change what it got.
func NetDialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: aliveConfig,
		Control:         func(_, _ string, c syscall.RawConn) error { return userTimeout(c) },
	}
}

// Tune gives an accepted connection the settings of NetDialer; connections that wrap a TCP connection and show it (NetConn) count as that. It does
// nothing to what is no TCP connection.
func Tune(c net.Conn) error {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := tcp.SetKeepAliveConfig(aliveConfig); err != nil {
		return fault.Wrap(fault.Unavailable, err, "set up a connection")
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = userTimeout(raw)
	}
	return fault.Wrap(fault.Unavailable, err, "set up a connection")
}

// userTimeout sets TCP_USER_TIMEOUT; sockets that are not TCP's have none.
func userTimeout(c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	if set == unix.EOPNOTSUPP || set == unix.ENOPROTOOPT {
		set = nil
	}
	if err != nil {
		return err
	}
	return set
}
