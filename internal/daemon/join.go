package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"flota/internal/fault"
)

// join sees that this machine stands in the cluster's records and tells when it is part of it.
// It tries for as long as the store cannot be reached; only a refusal ends it.
func (m *machineNow) join(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for told := false; ; {
		err := m.register(ctx)
		if err == nil {
			break
		}
		if k := fault.KindOf(err); k != fault.Unavailable && k != fault.TimedOut {
			return fmt.Errorf("join the cluster: %w", err)
		}
		if !told {
			m.log().Info("waiting for the store", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
	if err := m.usesStore(); err != nil {
		return err
	}
	m.ready()
	return nil
}

// registerWithin bounds one attempt.
const registerWithin = 5 * time.Second

// register sees that this machine is a member, and makes the records of the cluster if it is this machine's to make.
func (m *machineNow) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	if m.self.Founded {
		return m.desk.Found(ctx)
	}
	_, err := m.desk.Register(ctx)
	return err
}

// ready tells whoever started this process, by sd_notify and Options.Ready.
func (m *machineNow) ready() {
	m.log().Info("machine is part of the cluster", "machine", m.Name)
	if m.Ready != nil {
		m.Ready()
	}
	if err := notify("READY=1"); err != nil {
		m.log().Warn("tell the service manager", "err", err)
	}
}

// notify sends a message to the service manager named by NOTIFY_SOCKET, if any (sd_notify(3)).
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(state))
	return errors.Join(err, c.Close())
}

// listenUnix listens on a socket that only this user may use, replacing one that a dead process left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
