package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flota/internal/api"
	"flota/internal/fault"
	"flota/internal/keys"
	"flota/internal/keys/v2"
	"flota/internal/store"
	"flota/internal/voter"
)

// NoKeys as KeysAddr serves no applications' keys on this machine.
const NoKeys = "none"

// DefaultKeysAddr is where every program that looks for an etcd on its machine looks.
const DefaultKeysAddr = "127.0.0.1:2379"

// checkKeysAddr refuses what is not an address on loopback.
func checkKeysAddr(addr string) error {
	if addr == NoKeys {
		return nil
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fault.New(fault.Invalid, "--keys-addr %q: want IP:PORT, such as %s, or %q", addr, DefaultKeysAddr, NoKeys)
	}
	if !ap.Addr().IsLoopback() {
		return fault.WithHint(fault.New(fault.Invalid, "--keys-addr %s is not a loopback address", addr),
			"applications reach the keys on the machine that they run on; off loopback they are not served yet")
	}
	return nil
}

// listenKeys opens the address for applications; nil if none is wanted.
func (m *machineNow) listenKeys() error {
	if m.KeysAddr == NoKeys || m.Witness {
		return nil
	}
	if m.External != nil { // nobody would serve what connects, and an etcd of the user's may want the address
		m.log().Info("no applications' keys are served: " + m.noKeys().Error())
		return nil
	}
	l, err := net.Listen("tcp", m.KeysAddr)
	if err != nil {
		return fault.WithHint(fault.Wrap(fault.Conflict, err, "serve keys on %s", m.KeysAddr),
			"if an etcd runs there (ss -ltnp shows it), stop it and start flota up again; or serve the keys elsewhere with --keys-addr 127.0.0.1:23790, or not at all with --keys-addr %s", NoKeys)
	}
	m.keysListener = newHandoff(l)
	return nil
}

// keysAddr is where applications find the keys; empty if they do not.
func (m *machineNow) keysAddr() string {
	if m.keysListener == nil {
		return ""
	}
	return m.keysListener.Addr().String()
}

// noKeys says why there are no applications' keys with an external store: nothing confines them to a part of it yet.
func (m *machineNow) noKeys() error {
	return m.notOurs("flota serves no keys to applications", "have them use that etcd itself, with a user that may not touch flota's keys")
}

// newFront makes the front of the applications' keys for a part in the store; it serves nothing yet. nil where the keys cannot be served: on
// a store of the user's own, which has no bounds between applications and the cluster.
func (m *machineNow) newFront(r voter.Role) (*keys.Front, error) {
	if m.External != nil {
		return nil, nil
	}
	o := keys.Options{
		Limits: keys.Limits{QuotaBytes: m.KeysQuota}, Log: m.Log.With("room", "keys"),
		V2: func(c *clientv3.Client) keys.Handler {
			return v2.New(v2.Options{
				Client: c, Log: m.Log.With("room", "keys/v2"),
				Members: func(ctx context.Context) []v2.Member { return m.keysMembers(ctx, c) },
			})
		},
	}
	if m.keysListener != nil {
		o.Listen = m.keysListener.turn()
	}
	if r.Votes {
		o.Node = r.Node()
	} else {
		o.Forward = m.forwardKeys()
	}
	if m.access != nil {
		o.Auth = m.access
	}
	return keys.New(o)
}

// forwardKeys gives what connects to a voter's keys: to each in turn, so that one that does not serve is left.
func (m *machineNow) forwardKeys() func(context.Context) (net.Conn, error) {
	var turn atomic.Int64
	return func(ctx context.Context) (c net.Conn, err error) {
		voters := m.directory.Voters()
		if len(voters) == 0 {
			return nil, errNobody
		}
		first := int(turn.Add(1))
		for i := range voters {
			if c, err = m.dialKeys(ctx, voters[(first+i)%len(voters)]); err == nil || ctx.Err() != nil {
				return c, err
			}
		}
		return nil, fmt.Errorf("no machine that holds the store answers: %w", err)
	}
}

// dialKeysWait bounds one attempt, so that a machine that is switched off does not use up the time for the others.
const dialKeysWait = 1500 * time.Millisecond

func (m *machineNow) dialKeys(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialKeysWait)
	defer cancel()
	return api.DialKeys(ctx, m.dial, addr)
}

// keysMembers tells clients of etcd 2 which machines serve keys: all that do and are there.
func (m *machineNow) keysMembers(ctx context.Context, c *clientv3.Client) []v2.Member {
	list, err := c.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil
	}
	alive, _, err := m.store.Alive.List(ctx, "", store.Read{Stale: true})
	if err != nil {
		return nil
	}
	leader := m.store.KV.Health(ctx).Leader
	var out []v2.Member
	for _, e := range alive {
		p := e.Value
		if p.Keys == "" {
			continue
		}
		x := v2.Member{Name: p.Name, ClientURLs: []string{"http://" + p.Keys}, Leader: p.Name == leader, Self: p.ID == m.home.id}
		for _, s := range list.Members {
			if s.Name == p.Name {
				x.ID = s.ID
			}
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b v2.Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}
