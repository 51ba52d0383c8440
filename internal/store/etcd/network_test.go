package etcd

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// options reads what a TCP connection is set to: the user timeout in ms, keepalive's idle and interval in s and count.
func options(t *testing.T, c net.Conn) (got [4]int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for i, o := range []int{unix.TCP_USER_TIMEOUT, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
			got[i], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, o)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestNetDialer: both ends of a connection between machines notice within seconds that the other one is dead.
func TestNetDialer(t *testing.T) {
	want := [4]int{4000, 2, 1, 3}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := NetDialer().DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := options(t, c); got != want {
		t.Errorf("dialled: %v, want %v", got, want)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := Tune(tls.Server(s, &tls.Config{})); err != nil {
		t.Error(err)
	}
	if got := options(t, s); got != want {
		t.Errorf("accepted: %v, want %v", got, want)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := Tune(a); err != nil {
		t.Errorf("a pipe: %v", err)
	}
}
