package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/store/etcd"
	"flota/internal/trust"
)

// doors are where this machine is reached: the socket for root on it, and the port for other machines.
type doors struct {
	local net.Listener
	port  net.Listener
}

// listen opens the doors; nobody is let in before serve.
func (m *machineNow) listen() (*doors, error) {
	local, err := listenUnix(m.home.path("flota.sock"))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	port, err := net.Listen("tcp", net.JoinHostPort(m.Addr, strconv.Itoa(m.APIPort)))
	if err != nil {
		local.Close()
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return nil, fault.WithHint(fault.New(fault.Invalid, "%s is no address of this host", m.Addr), "give --addr one that ip address shows")
		}
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &doors{local: local, port: tuned{port}}, nil
}

// addr is the API's address for other machines.
func (d *doors) addr() string { return d.port.Addr().String() }

// close closes what serve has not closed.
func (d *doors) close() {
	_ = d.local.Close() // closed before, mostly
	_ = d.port.Close()
}

// serve lets callers in, each by what it proved to be, until ctx ends.
func (d *doors) serve(ctx context.Context, all *errgroup.Group, m *machineNow) {
	port := trust.Listen(d.port, trust.ListenOptions{
		Identity: m.identity, Members: m.members, Kinds: []trust.Kind{trust.Machines, trust.Join, trust.Renew, trust.Plain},
		Log: m.Log.With("room", "trust"),
	})
	all.Go(func() error { return port.Run(ctx) })
	all.Go(func() error { return m.api.Serve(ctx, d.local, api.Local) })
	all.Go(func() error { return m.api.Serve(ctx, port.Of(trust.Machines), api.Machines) })
	all.Go(func() error { return m.api.Serve(ctx, port.Of(trust.Join), api.Joiners) })
	all.Go(func() error { return m.api.Serve(ctx, port.Of(trust.Renew), api.Renewers) })
	if isLoopback(m.Addr) { // elsewhere nobody is heard without a certificate
		all.Go(func() error { return m.api.Serve(ctx, port.Of(trust.Plain), api.Plain) })
	}
}

// listenPeers opens the port on which other members of the store come in: machines of this cluster only.
func (m *machineNow) listenPeers() (net.Listener, error) {
	l, err := net.Listen("tcp", m.peerAddr())
	if err != nil {
		return nil, fmt.Errorf("listen for the store's members: %w", err)
	}
	port := trust.Listen(tuned{l}, trust.ListenOptions{
		Identity: m.identity, Members: m.members, Kinds: []trust.Kind{trust.Machines}, Log: m.Log.With("room", "trust"),
	})
	go func() { _ = port.Run(m.below) }() // ends with its Close, and returns nil
	return peerDoor{port.Of(trust.Machines), port}, nil
}

// peerDoor is the one kind of connections of a port that has no other; closing it closes the port.
type peerDoor struct {
	net.Listener
	port *trust.Listener
}

// Close implements net.Listener.
func (p peerDoor) Close() error { return p.port.Close() }

// tuned gives accepted connections the settings of those between machines: a dead one is noticed within seconds.
type tuned struct{ net.Listener }

// Accept implements net.Listener.
func (t tuned) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err == nil {
		_ = etcd.Tune(c) // one that cannot be tuned fails when it is used, or lives without
	}
	return c, err
}

// dial makes every connection to another machine's API.
func (m *machineNow) dial(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := etcd.NetDialer().DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return m.identity.Secure(ctx, raw, m.members, "", trust.HTTP1)
}
