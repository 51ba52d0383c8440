package daemon

import (
	"context"
	"net"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/store/etcd"
	"flota/internal/voter"
)

// dialVoters makes a client of the store through the API of the machines that hold it. It follows the directory, and answers
// fault.Unavailable while nobody is known.
func (m *machineNow) dialVoters() (*etcd.Client, error) {
	return etcd.Dial(m.below, etcd.DialOptions{
		Endpoints: m.directory.Voters(),
		Dialer:    func(ctx context.Context, addr string) (net.Conn, error) { return api.DialStore(ctx, m.dial, addr) },
		Log:       m.Log.With("room", "store"),
	})
}

// moved is told when other machines hold the store than before.
func (m *machineNow) moved(d *directory) {
	if p := m.part.Load(); p != nil && p.client != nil {
		p.client.SetEndpoints(d.Voters())
	}
}

// startMember starts this machine's member of the store with what the daemon knows: addresses, certificates, sockets.
func (m *machineNow) startMember(ctx context.Context, how voter.Start) (voter.Member, error) {
	l, err := m.listenPeers()
	if err != nil {
		return nil, err
	}
	cert, key, ca := m.identity.Files()
	o := etcd.Options{
		Dir: how.Dir, Name: how.Name, PeerAddr: m.peerAddr(), Peers: how.Peers, Existing: how.Existing, Force: how.Force,
		Socket: m.home.path("store.sock"), Log: m.Log.With("room", "store"), ClientAddr: m.keysAddr(),
		PeerTLS: &etcd.PeerTLS{Cert: cert, Key: key, CA: ca, Listener: l},
	}
	n, err := etcd.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// noVoter says that another machine has to be asked, or that there is none to be asked.
func (m *machineNow) noVoter() error {
	if m.External != nil {
		return m.notOurs("no machine holds the store", "ask it there, such as with etcdctl")
	}
	return fault.WithHint(fault.New(fault.Unavailable, "%s holds no copy of the store", m.Name), "ask a voter")
}
