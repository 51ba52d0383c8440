package api

import (
	"context"
	"net"
	"net/http"

	"flota/internal/fault"
	"flota/internal/machine"
)

// forwardedHeader marks a request that another machine passed on; its value is that machine's name. Such a request is answered
// here or not at all: one hop at most.
const forwardedHeader = "Flota-Forwarded"

// forwarded says whether another machine passed the request on.
func forwarded(r *http.Request) bool { return r.Header.Get(forwardedHeader) != "" }

// peer gives a client of another machine's API.
func (s *Server) peer(addr string) (*Client, error) {
	c, err := NewClient([]string{"http://" + addr}, ClientOptions{
		Agent: "flota/" + s.Version,
		Dial:  func(ctx context.Context, _, addr string) (net.Conn, error) { return s.Dial(ctx, addr) },
	})
	if err != nil {
		return nil, err
	}
	c.forwarded = s.Name
	return c, nil
}

// peerOf gives a client of the machine's API. fault.Unavailable, naming the machine, if it is not there.
func (s *Server) peerOf(c *cluster, id machine.ID) (*Client, error) {
	p, there := c.alive[id]
	if !there || p.API == "" {
		return nil, fault.New(fault.Unavailable, "machine %s is not there", c.name(id))
	}
	return s.peer(p.API)
}

// ask passes a request without content or answer on to a machine.
func (s *Server) ask(ctx context.Context, c *cluster, id machine.ID, method, path string) error {
	p, err := s.peerOf(c, id)
	if err != nil {
		return err
	}
	defer p.Close()
	_, _, err = p.call(ctx, 0, method, path, struct{}{}, nil)
	return at(c.name(id), err)
}

// at names the machine in the error of a connection to it that failed.
func at(name string, err error) error {
	if !fault.Is(err, fault.Unavailable) {
		return err
	}
	return fault.WithHint(fault.New(fault.Unavailable, "machine %s does not answer: %s", name, err.Error()), "flota why %s says more", name)
}
