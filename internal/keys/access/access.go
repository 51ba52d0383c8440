// Package access says what a caller of the applications' keys may do: it holds the cluster's tokens, followed from the store, and answers each
// request out of memory.
//
// The invariant: no request costs a read of the store, and a token that was revoked opens nothing any more within a second on every machine that
// the store reaches. A machine that is cut off from the store goes on with the tokens it knew last, as it goes on serving its copy of the keys.
// Until the tokens are known for the first time nothing is allowed.
//
// It never writes (the api makes and revokes tokens) and never sees a secret but to compare its hash. Start reading at Auth and Access.
package access

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"flota/internal/fault"
	"flota/internal/keys/token"
	"flota/internal/store"
)

// Grant is what a caller may do: see token.Grant.
type Grant = token.Grant

// Prefix is a part of the keys: see token.Prefix.
type Prefix = token.Prefix

// Auth tells what credentials open: a token as it was shown (a bearer token), or "ID:SECRET" (user and password). fault.Denied for what is no
// token, or one that was revoked or has expired; fault.Unavailable while the tokens are not known yet. Safe for concurrent use.
type Auth interface {
	Check(ctx context.Context, credentials string) (Grant, error)
}

// firstPatience is how long a request waits for the tokens of a machine that has just started. 2 s: an election of etcd.
const firstPatience = 2 * time.Second

// Access is an Auth over the store. Make one with New and have Run running. Safe for concurrent use.
type Access struct {
	st    *store.Store
	log   *slog.Logger
	known chan struct{} // closed when the tokens are known
	once  sync.Once     // closes known

	mu     sync.RWMutex     // guards the field below
	tokens map[string]entry // by ID
}

// entry is a token with what it grants, worked out once.
type entry struct {
	token.Token
	grant Grant
}

// New gives an Access over st; it allows nothing until Run has read the tokens. log nil logs nothing.
func New(st *store.Store, log *slog.Logger) *Access {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Access{st: st, log: log, known: make(chan struct{}), tokens: map[string]entry{}}
}

// Run follows the tokens until ctx ends, and returns nil then.
func (a *Access) Run(ctx context.Context) error {
	return store.Follow(ctx, a.st.KV, a.st.Tokens.Prefix(), (*follower)(a), func(err error) {
		if err != nil {
			a.log.Warn("the tokens cannot be followed; going on with those known, trying again", "err", err)
			return
		}
		a.log.Info("the tokens are followed again")
	})
}

// Check implements Auth.
func (a *Access) Check(ctx context.Context, credentials string) (Grant, error) {
	if credentials == "" {
		return Grant{}, fault.WithHint(fault.New(fault.Denied, "the keys of this cluster need a token"),
			"bring one as bearer token, or its id and secret as user and password; flota key token create makes one")
	}
	s, err := token.Parse(credentials)
	if err != nil {
		return Grant{}, err
	}
	if err := a.await(ctx); err != nil {
		return Grant{}, err
	}
	a.mu.RLock()
	e, ok := a.tokens[s.ID]
	a.mu.RUnlock()
	switch {
	case !ok || !s.Opens(e.Token):
		return Grant{}, fault.New(fault.Denied, "these credentials are no token of this cluster, or were revoked")
	case e.Expired(time.Now()):
		return Grant{}, fault.New(fault.Denied, "token %s has expired", e.ID)
	}
	return e.grant, nil
}

// await waits until the tokens are known.
func (a *Access) await(ctx context.Context) error {
	select {
	case <-a.known:
		return nil
	default:
	}
	t := time.NewTimer(firstPatience)
	defer t.Stop()
	select {
	case <-a.known:
		return nil
	case <-t.C:
		return fault.New(fault.Unavailable, "this machine has not read the cluster's tokens yet")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follower is the side of Access that the store calls.
type follower Access

// Reset implements store.Follower.
func (f *follower) Reset(items []store.Item, _ int64) {
	all := make(map[string]entry, len(items))
	for _, it := range items {
		f.read(all, it)
	}
	f.mu.Lock()
	f.tokens = all
	f.mu.Unlock()
	f.once.Do(func() { close(f.known) })
}

// Apply implements store.Follower.
func (f *follower) Apply(u store.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ev := range u.Events {
		if id, ok := f.st.Tokens.Match(ev.Key); ok && ev.Deleted {
			delete(f.tokens, id)
		} else if ok {
			f.read(f.tokens, ev.Item)
		}
	}
}

// read puts a stored token into m. One that cannot be read opens nothing.
func (f *follower) read(m map[string]entry, it store.Item) {
	e, err := f.st.Tokens.Decode(it)
	if err != nil || e.Value.ID != e.Key {
		f.log.Error("a stored token is damaged and opens nothing", "key", it.Key, "err", err)
		delete(m, e.Key)
		return
	}
	m[e.Key] = entry{Token: e.Value, grant: token.GrantOf(e.Value.Prefixes)}
}
