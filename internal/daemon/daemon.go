// Package daemon builds every hand and face of one machine from one Options struct and runs them: `flota up`.
//
// The invariant: what runs units (the supervisor) and what they need is up before the store is asked for anything, and nothing that ends here, in
// whatever order, ends a unit. Clean ends go from the hands to the store: first the agent says farewell, then the
// leader resigns, then the API closes, then the store. A machine that changes its part in the store (part.go) changes nothing else.
//
// It decides nothing. Start reading at Run, then identity.go (who this machine is) and part.go (what it is to the store).
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/admit"
	"flota/internal/agent"
	"flota/internal/api"
	"flota/internal/backup"
	"flota/internal/driver"
	"flota/internal/driver/idle"
	"flota/internal/driver/process"
	"flota/internal/keys/access"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/store/relay"
	"flota/internal/trust"
	"flota/internal/voter"
)

// haltGrace bounds the clean shutdown of the supervisor at the end of a halt: units have had their stop time-outs in it.
const haltGrace = 2 * time.Minute

// proxies are the variables that name a proxy for HTTP; nothing that a machine calls is behind one.
var proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}

// machineNow is one running machine.
type machineNow struct {
	Options
	self        self
	home        *home
	doors       *doors
	supervisor  *process.Driver // nil on a witness
	driver      driver.Driver
	identity    *trust.Identity
	members     *trust.Members
	firstVoters []string // as the cluster named them when this machine joined; nil later
	directory   *directory
	relay       *relay.Relay
	external    store.KV // the user's etcd, once it was reached; with Options.External only
	store       *store.Store
	part        atomic.Pointer[part]
	local       *voter.Local // nil with an external store
	steward     *voter.Steward
	desk        *admit.Desk
	copies      *backup.Keeper // of the store, on this machine's disk
	agent       *agent.Agent
	api         *api.Server
	access      *access.Access // who may use the applications' keys; nil: everybody

	keysListener *handoff        // for applications; nil: none
	below, hands context.Context // of what outlives the hands, and of the hands
	ending       atomic.Bool     // the machine ends; nothing is built any more
	halted       chan struct{}   // closed when a halt has ended
	evicted      chan machine.Gone
}

// Run runs this machine until ctx ends, it is halted through the API, or the cluster removes it. Units go on running when it returns, except after a
// halt and a removal. Errors: fault.Invalid for options that cannot work, fault.Conflict when another flota runs on the data directory,
// fault.Denied when the cluster refuses or has removed this machine.
func Run(ctx context.Context, o Options) (err error) {
	m := &machineNow{halted: make(chan struct{}), evicted: make(chan machine.Gone, 1)}
	if o, m.self, err = o.recall(); err != nil {
		return err
	}
	if m.Options, err = o.fill(); err != nil {
		return err
	}
	if m.Witness {
		debug.SetGCPercent(witnessGC)
	}
	for _, name := range proxies {
		os.Unsetenv(name) // the store's engine would call its members through it
	}
	if m.home, err = openHome(m.DataDir); err != nil {
		return err
	}
	defer m.home.close()
	if m.doors, err = m.listen(); err != nil {
		return err
	}
	defer m.doors.close()
	if err := m.listenKeys(); err != nil {
		return err
	}
	if m.keysListener != nil {
		defer m.keysListener.Close()
	}
	// A machine of a cluster has units to run, whatever becomes of its identity; one that joins has none, and nothing is left of it if it is refused.
	first, then := m.openDriver, m.identify
	if m.isNew() {
		first, then = then, first
	}
	if err := first(ctx); err != nil {
		return err
	}
	if err := then(ctx); err != nil {
		return err
	}
	var stopBelow, stopHands context.CancelFunc
	m.below, stopBelow = context.WithCancel(context.WithoutCancel(ctx)) // API and store outlive the hands
	defer stopBelow()
	m.hands, stopHands = context.WithCancel(ctx)
	defer stopHands()
	defer m.close()
	if err := m.open(ctx); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := m.build(); err != nil {
		return err
	}
	return m.run(stopBelow, stopHands)
}

// openDriver starts what runs units, or finds it running.
func (m *machineNow) openDriver(ctx context.Context) (err error) {
	if m.Witness {
		m.driver = idle.Driver{}
		return nil
	}
	env := []string{"FLOTA_MACHINE=" + m.Name, "FLOTA_ADDR=" + m.Addr, "FLOTA_KEYS=" + m.keysAddr()}
	m.supervisor, err = process.Open(ctx, process.Options{DataDir: m.home.dir, Strict: m.Strict, Log: m.Log.With("room", "process"), Env: env})
	m.driver = m.supervisor
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	return nil
}

// isNew says whether this machine has been in no cluster yet.
func (m *machineNow) isNew() bool {
	_, err := os.Stat(m.home.path("trust/machine.crt"))
	return errors.Is(err, fs.ErrNotExist)
}

// open makes the way to the store. It does not wait for a quorum.
func (m *machineNow) open(ctx context.Context) (err error) {
	m.directory = openDirectory(m.home.path("voters.json"), m.home.id, m.log(), m.moved)
	m.directory.Learn(m.firstVoters)
	m.relay = relay.New(m.Log.With("room", "store"))
	m.store = store.New(m.relay)
	if m.KeysAuth {
		m.access = access.New(m.store, m.Log.With("room", "keys/access"))
	}
	m.desk = admit.New(admit.Options{
		Store: m.store, Identity: m.identity, ID: m.home.id, Name: m.Name, Witness: m.Witness, External: m.External != nil, Addrs: m.joinAddrs,
		Life: m.CertLife, Keys: m.askKeys, Log: m.Log.With("room", "admit"),
	})
	if m.External != nil {
		return nil // takeStore does the rest
	}
	if err := m.openVoter(ctx); err != nil {
		return err
	}
	if m.part.Load() == nil {
		return m.change(ctx, voter.Role{})
	}
	return nil
}

// build makes the rooms; nothing runs yet but this machine's part in the store.
func (m *machineNow) build() (err error) {
	presence := machine.Presence{
		ID: m.home.id, Name: m.Name, Addr: m.Addr, API: m.doors.addr(), Peer: m.peerAddr(), Keys: m.keysAddr(), Labels: m.Labels,
		Size: m.Size, Version: m.Version, BootID: bootID(), Started: time.Now().UTC(),
	}
	m.agent = agent.New(agent.Options{
		ID: m.home.id, Presence: presence, Store: m.store, Driver: m.driver, DataDir: m.home.dir,
		TTL: m.Lease, Renew: m.Renew, Log: m.Log.With("room", "agent"),
	})
	m.api = api.New(m.apiOptions())
	m.copies, err = m.keeper()
	return err
}

// run runs everything until ctx ends, a halt ends, the cluster removes this machine, or something fails.
func (m *machineNow) run(stopBelow, stopHands context.CancelFunc) error {
	low, below := errgroup.WithContext(m.below)
	m.doors.serve(below, low, m)
	low.Go(func() error { return m.directory.Run(below, m.store) })
	low.Go(func() error { return m.watchRemoval(below) })
	low.Go(func() error { return m.members.Run(below, m.store) })
	low.Go(func() error { return m.identity.Run(below, m.identity.OrSelf(m.renew)) })
	if m.access != nil {
		low.Go(func() error { return m.access.Run(below) })
	}
	context.AfterFunc(below, stopHands)

	high, hands := errgroup.WithContext(m.hands)
	context.AfterFunc(hands, stopHands) // one that fails ends them all, and the leader in its part
	high.Go(func() error { return m.join(hands) })
	high.Go(func() error { return m.agent.Run(hands) })
	high.Go(func() error { return m.desk.Run(hands) })
	high.Go(func() error { return m.copies.Run(hands) })
	if m.External != nil {
		high.Go(func() error { return m.takeStore(hands) })
	}
	if m.Witness {
		high.Go(func() error { return giveBack(hands) })
	}
	if m.local != nil {
		high.Go(func() error { return m.local.Run(hands) })
		high.Go(func() error { return m.steward.Run(hands) })
	}
	high.Go(func() error { return m.awaitEnd(hands, stopHands) })
	m.Log.Info("machine started", "machine", m.Name, "id", m.home.id, "api", m.doors.addr(), "cluster", m.identity.Cluster(), "version", m.Version)
	err := high.Wait()
	if p := m.part.Load(); p != nil {
		p.leader()
		p.leading.Wait() // it resigns while the store still answers
	}
	if errors.Is(err, errGone) {
		err = nil
	}
	stopBelow()
	if lowErr := low.Wait(); lowErr != nil {
		err = errors.Join(err, lowErr)
	}
	m.Log.Info("machine ended", "machine", m.Name, "err", err)
	return err
}

// close ends this machine's part in the store.
func (m *machineNow) close() {
	m.ending.Store(true)
	if m.local != nil {
		if err := m.local.Close(); err != nil {
			m.log().Warn("close the store", "err", err)
		}
	}
	_ = m.change(context.Background(), voter.Role{}) // ends the part; there is nobody left to tell
	if m.external != nil {
		_ = m.external.Close()
	}
}

// awaitEnd ends the hands after a halt or a removal.
func (m *machineNow) awaitEnd(ctx context.Context, stop context.CancelFunc) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.halted:
		stop()
		return nil
	case g := <-m.evicted:
		return m.leave(ctx, g)
	}
}

// halt shuts the machine down cleanly: units start elsewhere first, then stop here with the supervisor, then Run returns.
func (m *machineNow) halt(ctx context.Context) error {
	if err := m.agent.Halt(ctx); err != nil {
		return err
	}
	// From here on nothing needs this machine; ending must not depend on the caller's patience.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltGrace)
	defer cancel()
	err := m.shutdown(end)
	select {
	case <-m.halted:
	default:
		close(m.halted)
	}
	return err
}

// shutdown ends the units and the supervisor.
func (m *machineNow) shutdown(ctx context.Context) error {
	if m.supervisor == nil {
		return nil
	}
	return m.supervisor.Shutdown(ctx)
}

// peerAddr is where this machine's member of the store listens, or would.
func (m *machineNow) peerAddr() string { return net.JoinHostPort(m.Addr, fmt.Sprint(m.PeerPort)) }

// log is the daemon's own logger.
func (m *machineNow) log() *slog.Logger { return m.Log.With("room", "daemon") }
