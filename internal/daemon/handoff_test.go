package daemon

import (
	"errors"
	"net"
	"testing"
)

// TestHandoffLosesNoConnection: what comes between two turns is served by the next one.
func TestHandoffLosesNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHandoff(l)
	defer h.Close()
	first := h.turn()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	serve := func(l net.Listener, client net.Conn) {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("served %s, want %s", c.RemoteAddr(), client.LocalAddr())
		}
	}
	serve(first, dial())
	first.Close()
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a turn that is over accepts: %v", err)
	}
	between := dial()
	second := h.turn()
	serve(second, between)
	h.Close()
	if _, err := second.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed handoff accepts: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("somebody still listens")
	}
}
