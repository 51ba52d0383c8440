package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/store/etcd"
)

// memory is this machine's way to the store: a member of its own, or a connection to others'.
type memory struct {
	kv    store.KV
	voter bool
	conn  func(ctx context.Context) (net.Conn, error) // to this voter's store; nil if it is none
	close func() error

	node   *etcd.Node // this machine's member; nil if it has none
	voters []string   // API addresses of the machines that have one, on a machine that has none
}

// openMemory starts the store's member on this machine, or connects to those of others. It does not wait for a quorum.
func (m *machineNow) openMemory(ctx context.Context) (*memory, error) {
	voters, err := m.knownVoters()
	if err != nil {
		return nil, err
	}
	if m.Join != "" || len(voters) > 0 {
		return m.dialMemory(ctx, voters)
	}
	peers := m.Voters
	me := net.JoinHostPort(m.Addr, strconv.Itoa(m.PeerPort))
	if len(peers) == 0 {
		peers = map[string]string{m.Name: me}
	}
	socket := m.home.path("store.sock")
	n, err := etcd.Start(ctx, etcd.Options{
		Dir: m.home.path("store"), Name: m.Name, PeerAddr: peers[m.Name], Peers: peers, Socket: socket, Log: m.Log.With("room", "store"),
		ClientAddr: m.keysAddr(),
	})
	if err != nil {
		return nil, err
	}
	return &memory{
		kv: n.KV(), voter: true, close: n.Close, node: n,
		conn: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}, nil
}

// dialMemory connects to the voters through the API of their machines.
func (m *machineNow) dialMemory(ctx context.Context, voters []string) (*memory, error) {
	patience := askPatience
	if len(voters) > 0 {
		patience = knownPatience
	}
	if fresh, err := m.askVoters(ctx, append(slices.Clone(voters), m.Join), patience); err == nil {
		voters = fresh
		if err := m.rememberVoters(voters); err != nil {
			return nil, err
		}
	} else if len(voters) == 0 {
		return nil, fault.WithHint(err, "is %s the API of a running machine?", m.Join)
	}
	kv, err := etcd.Dial(ctx, etcd.DialOptions{
		Endpoints: voters,
		Dialer:    func(ctx context.Context, addr string) (net.Conn, error) { return api.DialStore(ctx, m.Dial, addr) },
		Log:       m.Log.With("room", "store"),
	})
	if err != nil {
		return nil, err
	}
	return &memory{kv: kv, close: kv.Close, voters: voters}, nil
}

// askPatience bounds how long a joining machine looks for the cluster before it gives up with a clear error. knownPatience is for one that
// remembers the voters: its units must not wait for news of them.
const askPatience, knownPatience = 30 * time.Second, 2 * time.Second

// askVoters asks the named machines in turn, again and again, which machines hold the store.
func (m *machineNow) askVoters(ctx context.Context, addrs []string, patience time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var ends []string
	for _, a := range addrs {
		if a != "" {
			ends = append(ends, "http://"+a)
		}
	}
	client, err := api.NewClient(ends, api.ClientOptions{
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) { return m.Dial(ctx, addr) },
	})
	if err != nil {
		return nil, err
	}
	for {
		machines, err := client.Machines(ctx)
		var voters []string
		for _, x := range machines {
			if x.Voter && x.Presence != nil {
				voters = append(voters, x.Presence.API)
			}
		}
		if err == nil && len(voters) > 0 {
			return voters, nil
		}
		if err == nil {
			err = fault.New(fault.Unavailable, "no machine that holds the store is there")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("join %s: %w", m.Join, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// knownVoters reads the voters' API addresses that a machine without a store remembered; none for a first start or a voter.
func (m *machineNow) knownVoters() ([]string, error) {
	b, err := os.ReadFile(m.home.path("voters.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read voters: %w", err)
	}
	var voters []string
	if err := json.Unmarshal(b, &voters); err != nil {
		return nil, fault.WithHint(fault.Wrap(fault.Invalid, err, "read %s", m.home.path("voters.json")), "remove the file and join again with --join")
	}
	return voters, nil
}

// rememberVoters keeps the addresses for a start at which the machine to join is away.
func (m *machineNow) rememberVoters(voters []string) error {
	b, err := json.Marshal(voters)
	if err != nil {
		return err
	}
	path := m.home.path("voters.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("remember voters: %w", err)
	}
	return os.Rename(path+".new", path)
}
