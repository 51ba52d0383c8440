package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"flota/internal/fault"
	"flota/internal/store"
)

// Deadlines of a change. Together below 4 s, so that a client knows within 5 s that there is no quorum.
const (
	changePatience = 3 * time.Second
	countPatience  = 600 * time.Millisecond // for asking the voters who is there
)

// act is what modify does with a key.
type act int

// The acts.
const (
	keep   act = iota // leave it as it is
	put               // store the value
	remove            // delete the key
)

// modify is the only way in which the api changes the store: it reads the entry, lets change decide, and carries that out if
// nobody else changed the entry in between; otherwise it starts over. created says that there was none before. Errors of
// change come back as they are. Without a quorum the error says so, and whether something may have been changed.
func modify[T any](ctx context.Context, s *Server, t store.Table[T], key string,
	change func(old T, exists bool) (T, act, error)) (v T, created bool, err error) {
	try, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	sent := false
	for {
		var e store.Entry[T]
		var ok, done bool
		if e, ok, err = t.Get(try, key, store.Read{}); err != nil {
			break
		}
		var do act
		if v, do, err = change(e.Value, ok); err != nil || do == keep {
			return v, false, err
		}
		txn := store.Txn{If: []store.Cond{t.IfRev(key, e.Rev)}, Then: []store.Op{t.PutOp(key, v, e.Lease)}}
		if do == remove {
			txn.Then[0] = t.DeleteOp(key)
		}
		sent = true
		if _, done, err = s.Store.KV.Commit(try, txn); err != nil {
			break
		}
		if done {
			return v, !ok, nil
		}
		sent = false
		if try.Err() != nil {
			return v, false, fault.New(fault.Conflict, "others changed %s again and again; try again", key)
		}
	}
	if ctx.Err() == nil && unavailable(err) {
		outcome := "nothing was changed"
		if sent {
			outcome = "the change may have been made or not, and can safely be asked for again"
		}
		return v, false, s.noQuorum(ctx, &outcome)
	}
	return v, false, err
}

// noQuorum is the error of a request that no quorum answered; outcome says what came of a change, nil for a read.
func (s *Server) noQuorum(ctx context.Context, outcome *string) error {
	text := "the store does not answer"
	if there, all := s.countVoters(ctx); all > 0 && there <= all/2 {
		text = fmt.Sprintf("no quorum: %d of %d voters %s", there, all, plural(there, "answers", "answer"))
	} else if all > 0 {
		text = fmt.Sprintf("no quorum now, although %d of %d voters %s", there, all, plural(there, "answers", "answer"))
	}
	if outcome != nil {
		text += "; " + *outcome + "; running units are not affected"
	}
	if s.External {
		return fault.WithHint(fault.New(fault.Unavailable, "%s", text), "the store is an etcd of your own: see that a majority of its members runs and can be reached from here")
	}
	return fault.WithHint(fault.New(fault.Unavailable, "%s", text),
		"flota status shows the voters; start those that are gone, or try again in a few seconds")
}

// plural gives the word for n things.
func plural[N int | int64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// countVoters asks every voter whether it is there. 0, 0 if even the local copy cannot say who they are.
func (s *Server) countVoters(ctx context.Context) (there, all int) {
	ctx, cancel := context.WithTimeout(ctx, countPatience)
	defer cancel()
	c := newCluster()
	if s.readMachines(ctx, store.Read{Stale: true}, c) != nil {
		return 0, 0
	}
	c.sort()
	c.applyRoles()
	answers := make(chan bool, len(c.machines))
	g := errgroup.Group{}
	for id, m := range c.machines {
		if !m.Voter {
			continue
		}
		all++
		p, known := c.alive[id]
		g.Go(func() error {
			answers <- id == s.ID || known && s.answers(ctx, p.API)
			return nil
		})
	}
	_ = g.Wait()
	close(answers)
	for yes := range answers {
		if yes {
			there++
		}
	}
	return there, all
}

// answers says whether the API at addr shows a sign of life.
func (s *Server) answers(ctx context.Context, addr string) bool {
	c, err := s.peer(addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_, _, err = c.call(ctx, countPatience, http.MethodGet, "/v1/health", nil, nil)
	return err == nil
}
