package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/store"
	"flota/internal/store/etcd"
	"flota/internal/voter"
)

// external is the etcd of the user's own that this machine's cluster is kept in, as machine.json remembers it, so that a later `flota up` without flags
// means the same. A password is not written down.
type external struct {
	Endpoints []string `json:"endpoints"`
	Cert      string   `json:"cert,omitempty"` // absolute paths
	Key       string   `json:"key,omitempty"`
	CA        string   `json:"ca,omitempty"`
	User      string   `json:"user,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
	// Used: this machine has found its cluster in there, or made it. One without a cluster is refused then: it lost its data, or is the wrong one.
	Used bool `json:"used,omitempty"`
}

// UsesExternal says whether the machine with the data directory keeps its cluster in an etcd of the user's own.
func UsesExternal(dataDir string) bool {
	var s self
	b, err := os.ReadFile(filepath.Join(dataDir, selfFile))
	return err == nil && json.Unmarshal(b, &s) == nil && s.Store != nil
}

// recallStore fills in the store that was remembered. fault.Conflict when a machine is to move from its cluster's own store to another one, which would
// look empty to it; fault.Invalid when a password is missing.
func (o Options) recallStore(s self) (Options, error) {
	was := s.Store
	switch {
	case o.External != nil && was == nil && s.Founded:
		return o, fault.WithHint(fault.New(fault.Conflict, "this machine's cluster keeps its own store and cannot move to --store %s", strings.Join(o.External.Endpoints, ",")),
			"leave --store out; for a new cluster in that etcd use an empty --data-dir")
	case o.External != nil || was == nil:
		return o, nil
	case was.User != "":
		return o, fault.WithHint(fault.New(fault.Invalid, "the password of user %q of the store is not remembered", was.User),
			"give --store, --store-user and --store-password again at each start, or FLOTA_STORE and so on in the environment")
	}
	o.External = &etcd.ExternalOptions{Endpoints: was.Endpoints, Cert: was.Cert, Key: was.Key, CA: was.CA, Prefix: was.Prefix}
	return o, nil
}

// describeStore is what is to be remembered of the store; nil for the cluster's own.
func (m *machineNow) describeStore() *external {
	o := m.External
	if o == nil {
		return nil
	}
	e := &external{Endpoints: slices.Clone(o.Endpoints), Cert: absolute(o.Cert), Key: absolute(o.Key), CA: absolute(o.CA), User: o.User, Prefix: o.Prefix}
	e.Used = m.self.Store != nil && m.self.Store.Used
	return e
}

// absolute is the path as it is found from any folder; "" stays.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil && path != "" {
		return full
	}
	return path
}

// dialExternal connects to the user's etcd.
func (m *machineNow) dialExternal(ctx context.Context) (store.KV, error) {
	o := *m.External
	o.Log = m.Log.With("room", "store")
	return etcd.External(ctx, o)
}

// mayFound sees that a cluster may be made: not in an etcd that holds one under the prefix. It waits for an answer as long as a machine that joins does.
// fault.Exists.
func (m *machineNow) mayFound(ctx context.Context) error {
	if m.External == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	return m.insist(ctx, func(ctx context.Context) error {
		kv, err := m.dialExternal(ctx)
		if err != nil {
			return err
		}
		defer kv.Close()
		c, there, err := store.New(kv).Cluster.Get(ctx, store.ThisCluster, store.Read{})
		if err == nil && there {
			err = fault.WithHint(fault.New(fault.Exists, "the store at %s holds cluster %.8s already", m.storeName(), c.Value.ID),
				"to join it: flota token create, on one of its machines; for a second cluster in one etcd choose another --store-prefix")
		}
		return err
	})
}

// takeStore waits until the user's etcd answers and sees that this machine's cluster is in it; only then it is used: to the agent an empty store, or another
// cluster's, would mean that nothing is to run here. Only an answer that refuses ends it with an error.
func (m *machineNow) takeStore(ctx context.Context) error {
	err := m.insist(ctx, func(ctx context.Context) (err error) {
		if m.external == nil {
			if m.external, err = m.dialExternal(ctx); err != nil {
				return err
			}
		}
		return m.checkStore(ctx)
	})
	if errors.Is(err, errGone) {
		<-ctx.Done() // awaitEnd sees to it
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "open the store")
	}
	return m.change(ctx, voter.Role{})
}

// checkStore refuses a store that is not this machine's cluster's: fault.Conflict. A machine that was removed is told so here, since the store's
// credentials would still let it write: errGone.
func (m *machineNow) checkStore(ctx context.Context) error {
	st := store.New(m.external)
	c, there, err := st.Cluster.Get(ctx, store.ThisCluster, store.Read{})
	if err != nil {
		return err
	}
	gone, was, err := st.Removed.Get(ctx, string(m.home.id), store.Read{})
	if err != nil {
		return err
	}
	const hint = "give the --store and --store-prefix that the cluster's other machines have; if that etcd has lost its data, restore it from a snapshot"
	mine := m.identity.Cluster()
	switch {
	case there && c.Value.ID == mine && was:
		m.evict(gone.Value)
		return errGone
	case there && c.Value.ID == mine:
		return m.usesStore()
	case there:
		return fault.WithHint(fault.New(fault.Conflict, "the store at %s holds cluster %.8s, this machine belongs to cluster %.8s", m.storeName(), c.Value.ID, mine), hint)
	case m.self.Founded && !m.self.Store.Used:
		return nil // it is to be made
	}
	return fault.WithHint(fault.New(fault.Conflict, "the store at %s holds no cluster, this machine belongs to cluster %.8s", m.storeName(), mine), hint)
}

// usesStore remembers that the store holds this machine's cluster.
func (m *machineNow) usesStore() error {
	if m.External == nil || m.self.Store.Used {
		return nil
	}
	m.self.Store.Used = true
	return m.rememberSelf()
}

// storeName is the user's etcd for people.
func (m *machineNow) storeName() string {
	name := strings.Join(m.External.Endpoints, ",")
	if m.External.Prefix != "" {
		name += " under " + m.External.Prefix
	}
	return name
}

// insist tries until there is an answer, good or bad; while the store is away it goes on, until ctx ends.
func (m *machineNow) insist(ctx context.Context, try func(context.Context) error) error {
	pause := 100 * time.Millisecond
	for told := false; ; {
		one, cancel := context.WithTimeout(ctx, registerWithin)
		err := try(one)
		cancel()
		if k := fault.KindOf(err); err == nil || k != fault.Unavailable && k != fault.TimedOut {
			return err
		}
		if !told {
			m.log().Info("waiting for the store", "store", m.storeName(), "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, err, "the store at %s does not answer", m.storeName())
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// joinAddrs are where new machines may join: here, and with an external store, where no voters are there to be named, at any other machine.
func (m *machineNow) joinAddrs() []string {
	if m.External == nil {
		return []string{m.doors.addr()}
	}
	return append([]string{m.doors.addr()}, m.directory.All()...)
}

// notOurs answers requests about what a store of the user's own has no part in.
func (m *machineNow) notOurs(what, hint string) error {
	return fault.WithHint(fault.New(fault.Unavailable, "%s: the store is an etcd of your own, at %s", what, m.storeName()), "%s", hint)
}
