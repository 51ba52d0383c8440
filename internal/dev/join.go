package dev

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flota/internal/admit"
	"flota/internal/api"
	"flota/internal/daemon"
	"flota/internal/fault"
)

// isNew says whether a machine is in no cluster yet.
func (c *Cluster) isNew(name string) bool {
	_, err := os.Stat(filepath.Join(c.MachineDir(name), "trust", "machine.crt"))
	return err != nil
}

// launchAll starts all machines: those of an existing cluster at once, so that they find each other; new ones when there is one to let them in.
func (c *Cluster) launchAll(ctx context.Context, o Options) error {
	var fresh, member []string
	for _, n := range c.Names() {
		if c.isNew(n) {
			fresh = append(fresh, n)
		} else {
			member = append(member, n)
		}
	}
	if len(member) == 0 {
		member, fresh = fresh[:1], fresh[1:]
	}
	for _, n := range member {
		if err := c.launch(o, n); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := c.await(ctx, member); err != nil {
		return err
	}
	join, err := c.token(ctx, member[0], len(fresh))
	if err != nil {
		return err
	}
	for i, n := range fresh {
		if len(member)+i == firstVoters { // so that the first machines vote and the others do not, whoever is quicker
			if err := c.await(ctx, fresh[:i]); err != nil {
				return err
			}
			if err := c.awaitVoters(ctx, firstVoters); err != nil {
				return err
			}
		}
		if err := c.launch(o, n, join...); err != nil {
			return err
		}
	}
	return nil
}

// firstVoters is how many machines vote from three on. Source: room quorum.
const firstVoters = 3

// joinFlags lets a machine in whose data is gone, as a new one; none for a machine that is in the cluster, or if there is none to let it in.
func (c *Cluster) joinFlags(ctx context.Context, name string) ([]string, error) {
	if !c.isNew(name) {
		return nil, nil
	}
	for _, n := range c.Names() {
		if _, running := c.agentPid(n); running && !c.isNew(n) {
			return c.token(ctx, n, 1)
		}
	}
	for _, n := range c.Names() {
		if !c.isNew(n) {
			return nil, fault.WithHint(fault.New(fault.Unavailable, "%s is new and has to be let into the cluster, and no machine of it runs", name),
				"start %s first: flota dev start %s", n, n)
		}
	}
	return nil, nil
}

// tokenFor is how long a token lets new machines in: they ask within seconds.
const tokenFor = 10 * time.Minute

// token gives the flags with which n new machines join, made by a machine that is in the cluster.
func (c *Cluster) token(ctx context.Context, member string, n int) ([]string, error) {
	cl, err := api.NewClient([]string{"unix://" + c.Socket(member)}, api.ClientOptions{})
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	t, err := cl.CreateToken(ctx, admit.NewToken{TTL: tokenFor, Uses: n})
	if err != nil {
		return nil, fmt.Errorf("make a join token: %w", err)
	}
	return []string{"--join", strings.Join(t.Join, ","), "--token", t.Text, "--ca-hash", t.CAHash}, nil
}

// awaitVoters waits until as many machines hold the store as are to when there are n of them, so that killing one is survived from the first moment on. With a store of the
// user's own nobody votes; all hold the key of the cluster's authority instead.
func (c *Cluster) awaitVoters(ctx context.Context, n int) error {
	voters, learners, count := 1, 0, c.countVoters
	switch {
	case daemon.UsesExternal(c.MachineDir("m1")):
		voters, count = n, c.countKeys
	case n == 2:
		learners = 1
	case n >= 7:
		voters = 5
	case n >= 3:
		voters = 3
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		v, l, err := count(ctx)
		if err == nil && v >= voters && l >= learners {
			tick.Stop()
			return nil
		}
		if err == nil {
			err = fault.New(fault.Unavailable, "%d of %d machines vote, or hold the authority's key", v, voters)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fault.WithHint(fault.Wrap(fault.TimedOut, err, "the store has not spread over the machines"),
				"see %s", filepath.Join(c.Dir, "m*", "agent.log"))
		case <-tick.C:
		}
	}
}

// countVoters asks the cluster how many machines hold the store.
func (c *Cluster) countVoters(ctx context.Context) (voters, learners int, err error) {
	cl, err := api.NewClient(c.Endpoints(), api.ClientOptions{})
	if err != nil {
		return 0, 0, err
	}
	defer cl.Close()
	all, err := cl.Machines(ctx)
	for _, m := range all {
		switch {
		case m.Voter:
			voters++
		case m.Learner:
			learners++
		}
	}
	return voters, learners, err
}

// countKeys asks the cluster how many machines hold the key of its authority; there are no learners.
func (c *Cluster) countKeys(ctx context.Context) (holders, none int, err error) {
	cl, err := api.NewClient(c.Endpoints(), api.ClientOptions{})
	if err != nil {
		return 0, 0, err
	}
	defer cl.Close()
	all, err := cl.Machines(ctx)
	for _, m := range all {
		if len(m.Standing.Holds) > 0 {
			holders++
		}
	}
	return holders, 0, err
}
