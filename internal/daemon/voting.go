package daemon

import (
	"context"
	"errors"
	"net"
	"time"

	"flota/internal/api"
	"flota/internal/machine"
	"flota/internal/quorum"
	"flota/internal/voter"
)

// openVoter starts this machine's member of the store, if it has one, and makes what keeps the members as they should be.
func (m *machineNow) openVoter(ctx context.Context) (err error) {
	m.local, err = voter.Open(ctx, voter.LocalOptions{
		ID: m.home.id, Name: m.Name, Dir: m.home.path("store"), Store: m.store, Found: m.self.Founded,
		Start: m.startMember, Changed: m.change,
		Authority: m.fetchAuthority, DropAuthority: m.identity.DropAuthority,
		Epoch: m.identity.Epoch, SetEpoch: m.identity.SetEpoch, Highest: m.highestEpoch,
		Log: m.Log.With("room", "voter"),
	})
	if err != nil {
		return err
	}
	m.steward = voter.NewSteward(voter.StewardOptions{
		ID: m.home.id, Store: m.store, Engine: m.local.Engine, Settings: quorum.Settings{Replace: m.ReplaceAfter},
		Removing: func(x machine.Machine) bool { return x.Leaving },
		Log:      m.Log.With("room", "voter"),
	})
	return nil
}

// fetchAuthority gets the key of the cluster's authority from a voter, before this machine becomes one.
func (m *machineNow) fetchAuthority(ctx context.Context) error {
	if m.desk.Holds() {
		return nil
	}
	keys, err := m.askKeys(ctx)
	if err != nil {
		return err
	}
	return m.identity.KeepAuthority(keys)
}

// askKeys asks the machines that should have them for the keys of the cluster's authorities: voters, or any with an external store.
func (m *machineNow) askKeys(ctx context.Context) ([]byte, error) {
	var silent []error
	holders := m.directory.Voters()
	if m.External != nil {
		holders = m.directory.All()
	}
	for _, addr := range holders {
		keys, err := askOf(m, addr, func(c *api.Client) ([]byte, error) { return c.Authority(ctx) })
		if err == nil {
			return keys, nil
		}
		silent = append(silent, err)
	}
	if len(silent) == 0 {
		return nil, errNobody
	}
	return nil, errors.Join(silent...)
}

// askWithin bounds one machine's answer, so that one that is switched off does not use up the time for the others.
const askWithin = 1500 * time.Millisecond

// highestEpoch asks the machines that are known for the cluster's epoch.
func (m *machineNow) highestEpoch(ctx context.Context) (int, error) {
	highest, answered := 0, false
	var silent []error
	for _, addr := range m.knownAPIs() {
		one, cancel := context.WithTimeout(ctx, askWithin)
		epoch, err := askOf(m, addr, func(c *api.Client) (int, error) {
			info, err := c.Cluster(one)
			m.directory.Learn(info.Voters)
			return info.Epoch, err
		})
		cancel()
		if err != nil {
			silent = append(silent, err)
			continue
		}
		highest, answered = max(highest, epoch), true
	}
	switch {
	case answered:
		return highest, nil
	case len(silent) == 0:
		return 0, errNobody
	}
	return 0, errors.Join(silent...)
}

// askOf asks one machine's API.
func askOf[T any](m *machineNow, addr string, ask func(*api.Client) (T, error)) (out T, err error) {
	c, err := api.NewClient([]string{"https://" + addr}, api.ClientOptions{
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) { return m.dial(ctx, addr) },
	})
	if err != nil {
		return out, err
	}
	defer c.Close()
	return ask(c)
}
