package trust

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// TestEverythingAtOnce: machines connect and talk while certificates are renewed, the authority is changed and machines come and go; no
// connection of a member fails.
func TestEverythingAtOnce(t *testing.T) {
	m1 := found(t, Options{})
	m2, m3 := join(t, m1, "m2", Options{}), join(t, m1, "m3", Options{})
	server, client := members(t, m1, m2, m3), members(t, m1, m2, m3)
	l, addr := open(t, true, ListenOptions{Identity: m1, Members: server})
	echo(t, l, Machines, "x")
	ctx, cancel := context.WithCancel(t.Context())
	var handshakes sync.RWMutex // none may last from before a step of a change to after it: steps are seconds apart, handshakes are not
	var callers, changers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for n := range 15 {
				handshakes.RLock()
				c, err := m2.Dial(ctx, client, addr, m1.ID(), HTTP1)
				if err == nil {
					got, bad := talk(c)
					if err = bad; got != "x:hello" && err == nil {
						t.Errorf("call %d: %q", n, got)
					}
					c.Close()
				}
				handshakes.RUnlock()
				if err != nil {
					t.Errorf("call %d: %v", n, err)
				}
			}
		})
	}
	changers.Go(func() { // m3 comes and goes
		for ctx.Err() == nil {
			_ = server.Live(table(m1, m2), nil)
			_ = server.Live(table(m1, m2, m3), nil)
			_, _ = ask(addr, m3.Client(client, ""))
		}
	})
	changers.Go(func() {
		for ctx.Err() == nil {
			for _, i := range []*Identity{m1, m2} {
				if err := i.Renew(ctx, func(_ context.Context, csr []byte) (Grant, error) { return tryGrant(m1, csr) }); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				i.Wake()
				_ = fmt.Sprint(i.Expires(), i.CAHash(), i.Standing(), i.Epoch())
			}
		}
	})
	changers.Go(func() { // change after change of the authority
		for ctx.Err() == nil {
			old := m1.CAHash()
			next, err := m1.Successor()
			if err != nil {
				t.Error(err)
				return
			}
			for _, order := range [][]string{{old, next.Hash()}, {next.Hash(), old}, {next.Hash()}} {
				text, err := Arrange(append(next.Certificate(), m1.Bundle()...), order, nil)
				if len(order) == 1 || order[0] == next.Hash() {
					text, err = Arrange(m1.Bundle(), order, nil)
				}
				if err != nil {
					t.Error(err)
					return
				}
				func() { handshakes.Lock(); defer handshakes.Unlock() }() // waits for those that began before
				for _, i := range []*Identity{m1, m2} {
					if err := i.SetBundle(text); err != nil {
						t.Error(err)
					}
					if order[0] == next.Hash() && len(order) == 2 {
						if err := i.Renew(ctx, func(_ context.Context, csr []byte) (Grant, error) { return tryGrant(m1, csr) }); err != nil && ctx.Err() == nil {
							t.Error(err)
							return
						}
					}
				}
			}
		}
	})
	callers.Wait()
	cancel()
	changers.Wait()
}
