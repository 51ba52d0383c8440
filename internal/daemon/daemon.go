// Package daemon builds every hand and face of one machine from one Options struct and runs them: `flota up`.
//
// The invariant: what runs units (the supervisor) and what they need is up before the store is asked for anything, and nothing that ends here, in
// whatever order, ends a unit. Clean ends go from the hands to the store: first the agent says farewell, then the
// leader resigns, then the API closes, then the store.
//
// It decides nothing. Start reading at Run.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/agent"
	"flota/internal/api"
	"flota/internal/driver/process"
	"flota/internal/keys"
	"flota/internal/keys/access"
	"flota/internal/leader"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/view"
)

// haltGrace bounds the clean shutdown of the supervisor at the end of a halt: units have had their stop time-outs in it.
const haltGrace = 2 * time.Minute

// machineNow is one running machine.
type machineNow struct {
	Options
	home   *home
	driver *process.Driver
	memory *memory
	store  *store.Store
	view   *view.View // nil on machines that hold no store
	agent  *agent.Agent
	api    *api.Server
	leads  *leader.Desk
	halted chan struct{} // closed when a halt has ended

	keysListener net.Listener   // for applications; nil: none
	front        *keys.Front    // the applications' keys
	access       *access.Access // who may use them; nil: everybody
}

// Run runs this machine until ctx ends or it is halted through the API. Units go on running when it returns, except after a halt.
// Errors: fault.Invalid for options that cannot work, fault.Conflict when another flota runs on the data directory.
func Run(ctx context.Context, o Options) (err error) {
	if o, err = o.fill(); err != nil {
		return err
	}
	m := &machineNow{Options: o, halted: make(chan struct{})}
	if m.home, err = openHome(o.DataDir); err != nil {
		return err
	}
	defer m.home.close()
	listeners, err := m.listen()
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	if m.keysListener, err = m.listenKeys(); err != nil {
		return err
	}
	if m.keysListener != nil {
		defer m.keysListener.Close()
	}
	m.driver, err = process.Open(ctx, process.Options{
		DataDir: m.home.dir, Strict: o.Strict, Log: o.Log.With("room", "process"),
		Env: []string{"FLOTA_MACHINE=" + o.Name, "FLOTA_ADDR=" + o.Addr, "FLOTA_KEYS=" + m.keysAddr()},
	})
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	if m.memory, err = m.openMemory(ctx); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer m.memory.close()
	if err := m.build(listeners); err != nil {
		return err
	}
	return m.run(ctx, listeners)
}

// build makes the rooms; nothing runs yet.
func (m *machineNow) build(listeners []net.Listener) error {
	m.store = store.New(m.memory.kv)
	if err := m.buildKeys(); err != nil {
		return err
	}
	if m.memory.voter {
		m.view = view.New(view.Options{Store: m.store, Log: m.Log.With("room", "view")})
		m.leads = leader.NewDesk()
	}
	presence := machine.Presence{
		ID: m.home.id, Name: m.Name, Addr: m.Addr, API: listeners[1].Addr().String(), Keys: m.keysAddr(), Labels: m.Labels,
		Size: m.Size, Version: m.Version, BootID: bootID(), Started: time.Now().UTC(),
	}
	m.agent = agent.New(agent.Options{
		ID: m.home.id, Presence: presence, Store: m.store, Driver: m.driver, DataDir: m.home.dir,
		TTL: m.Lease, Renew: m.Renew, Log: m.Log.With("room", "agent"),
	})
	o := api.Options{
		ID: m.home.id, Name: m.Name, Version: m.Version, Store: m.store, View: m.view, Driver: m.driver,
		Dial: m.Dial, Halt: m.halt, Log: m.Log.With("room", "api"), Warnings: m.front.Warnings,
	}
	if m.memory.voter {
		o.StoreConn = m.memory.conn
		o.KeysConn = m.front.Conn
		o.Rebalance = m.leads.Rebalance
	}
	m.api = api.New(o)
	return nil
}

// run runs everything until ctx ends, a halt ends, or something fails.
func (m *machineNow) run(ctx context.Context, listeners []net.Listener) error {
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx)) // API and view outlive the hands
	defer stopBelow()
	hands, stopHands := context.WithCancel(ctx)
	defer stopHands()

	low, below := errgroup.WithContext(below)
	low.Go(func() error { return m.api.Serve(below, listeners[0], true) })
	low.Go(func() error { return m.api.Serve(below, listeners[1], false) })
	low.Go(func() error { return m.front.Run(below) })
	if m.access != nil {
		low.Go(func() error { return m.access.Run(below) })
	}
	if m.view != nil {
		low.Go(func() error { return m.view.Run(below) })
	}
	low.Go(func() error {
		<-below.Done()
		stopHands()
		return nil
	})

	high, hands := errgroup.WithContext(hands)
	high.Go(func() error { return m.join(hands) })
	high.Go(func() error { return m.agent.Run(hands) })
	if m.view != nil {
		high.Go(func() error {
			return leader.Run(hands, leader.Options{
				ID: m.home.id, Store: m.store, View: m.view, TTL: m.Lease, Lease: m.Lease, Desk: m.leads, Log: m.Log.With("room", "leader"),
			})
		})
	}
	high.Go(func() error {
		select {
		case <-m.halted:
			stopHands()
		case <-hands.Done():
		}
		return nil
	})
	m.Log.Info("machine started", "machine", m.Name, "id", m.home.id, "api", listeners[1].Addr().String(), "voter", m.memory.voter, "version", m.Version)
	err := high.Wait()
	stopBelow()
	if lowErr := low.Wait(); lowErr != nil {
		err = lowErr
	}
	m.Log.Info("machine ended", "machine", m.Name, "err", err)
	return err
}

// halt shuts the machine down cleanly: units start elsewhere first, then stop here with the supervisor, then Run returns.
func (m *machineNow) halt(ctx context.Context) error {
	if err := m.agent.Halt(ctx); err != nil {
		return err
	}
	// From here on nothing needs this machine; ending must not depend on the caller's patience.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltGrace)
	defer cancel()
	err := m.driver.Shutdown(end)
	select {
	case <-m.halted:
	default:
		close(m.halted)
	}
	return err
}

// listen opens the socket for root on this machine and the address for others, in this order.
func (m *machineNow) listen() ([]net.Listener, error) {
	local, err := listenUnix(m.home.path("flota.sock"))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	other, err := net.Listen("tcp", net.JoinHostPort(m.Addr, strconv.Itoa(m.APIPort)))
	if err != nil {
		local.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return []net.Listener{local, other}, nil
}

// closeAll closes what run has not closed.
func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close() // closed before, mostly
	}
}

// log is the daemon's own logger.
func (m *machineNow) log() *slog.Logger { return m.Log.With("room", "daemon") }
