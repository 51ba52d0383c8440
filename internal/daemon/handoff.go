package daemon

import (
	"errors"
	"net"
	"sync"
	"time"
)

// handoff is a listener that outlives those who serve on it: each takes a turn, and the next goes on where it ended, so that no connection is
// refused in between. One turn is taken at a time.
type handoff struct {
	net.Listener
	conns chan net.Conn // accepted, for whoever has the turn
	quit  chan struct{} // closed by Close
	ended chan struct{} // closed when accept has returned
	once  sync.Once
}

// acceptPause is the pause after an error that may pass, such as too many open files.
const acceptPause = 50 * time.Millisecond

// newHandoff begins to accept on l; Close ends it.
func newHandoff(l net.Listener) *handoff {
	h := &handoff{Listener: l, conns: make(chan net.Conn), quit: make(chan struct{}), ended: make(chan struct{})}
	go h.accept() // until Close
	return h
}

// accept takes connections one at a time: those that nobody serves yet wait in the kernel's queue.
func (h *handoff) accept() {
	defer close(h.ended)
	for {
		c, err := h.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-time.After(acceptPause):
				continue
			case <-h.quit:
				return
			}
		}
		select {
		case h.conns <- c:
		case <-h.quit:
			c.Close()
			return
		}
	}
}

// Close ends the listener and every turn.
func (h *handoff) Close() (err error) {
	h.once.Do(func() {
		close(h.quit)
		err = h.Listener.Close()
		<-h.ended
	})
	return err
}

// turn gives a listener that serves until its Close, which ends the turn and not the handoff.
func (h *handoff) turn() net.Listener { return &turn{handoff: h, over: make(chan struct{})} }

// turn is one server's time on a handoff.
type turn struct {
	*handoff
	over chan struct{}
	once sync.Once
}

// Accept implements net.Listener.
func (t *turn) Accept() (net.Conn, error) {
	select { // a turn that is over takes nothing more, even if something waits
	case <-t.over:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-t.conns:
		return c, nil
	case <-t.over:
	case <-t.quit:
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (t *turn) Close() error {
	t.once.Do(func() { close(t.over) })
	return nil
}
