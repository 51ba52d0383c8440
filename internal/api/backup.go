package api

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
)

// backup answers GET /v1/backup with a copy of the store. A machine that cannot make one has a voter do it, and passes its answer through. An answer
// that breaks off is none: the connection is cut then.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) error {
	out := &lazy{w: w, ctl: http.NewResponseController(w)}
	err := s.copyStore(r, out)
	if err == nil || !out.begun {
		return err
	}
	s.Log.Warn("a backup broke off", "err", err)
	panic(http.ErrAbortHandler)
}

// copyStore writes a copy of the store to out, its own or a voter's. A machine that is no voter finds that out when it is to make one: it has no copy
// (fault.Unavailable), or not even the authority's key (fault.NotFound).
func (s *Server) copyStore(r *http.Request, out *lazy) error {
	err := fault.New(fault.Unavailable, "%s cannot copy the store", s.Name)
	if s.Backup != nil {
		err = s.Backup(r.Context(), out)
	}
	if err == nil || out.begun || s.External || forwarded(r) || r.Context().Err() != nil || !unavailable(err) && !fault.Is(err, fault.NotFound) {
		return err
	}
	c, err := s.machinesOnly(r.Context())
	if err != nil {
		return err
	}
	var broken error
	err = s.eachVoter(r.Context(), c, func(p *Client) error {
		p.root = isRoot(r)
		err := p.Backup(r.Context(), out)
		if out.begun { // another voter's copy cannot go on where this one ended
			broken = err
			return nil
		}
		return err
	})
	switch {
	case broken != nil:
		return broken
	case unavailable(err) && fault.Hint(err) == "":
		return fault.WithHint(err, "flota status shows the voters; one that is there is enough")
	}
	return err
}

// lazy sends the header with the first byte, and gives each write its time.
type lazy struct {
	w     http.ResponseWriter
	ctl   *http.ResponseController
	begun bool
}

// Write implements io.Writer.
func (l *lazy) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/octet-stream")
		l.w.Header().Set("Cache-Control", "no-store")
	}
	_ = l.ctl.SetWriteDeadline(time.Now().Add(writePatience))
	return l.w.Write(b)
}

// Backup writes a copy of the store to w; only a machine's own socket gives it. After an error what was written is worth nothing.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	resp, err := c.send(ctx, http.MethodGet, "/v1/backup", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return fault.Wrap(fault.Unavailable, err, "read the backup")
}

// The bounds of a schedule.
const (
	minEvery      = time.Minute // room backup looks at the schedule once a minute
	maxKeep       = 1000
	maxRecipients = 20      // with maxRecipient 80 KB, which every machine reads with the cluster's record
	maxRecipient  = 4 << 10 // bytes: age's post-quantum recipients have about 2,000
)

// checkSchedule refuses what cannot be a schedule: fault.Invalid. Of recipients it looks at the form alone; whether age takes one shows when a copy is
// made, as a warning of each voter, and the command line checks it before. What a recipient says is not repeated: it may be a secret key by mistake.
func checkSchedule(b machine.Backup) error {
	switch {
	case b.Every > 0 && b.Every < minEvery:
		return fault.WithHint(fault.New(fault.Invalid, "a copy every %s is too often, at most one in %s", b.Every, minEvery), "a negative time keeps none")
	case b.Keep < 0 || b.Keep > maxKeep:
		return fault.New(fault.Invalid, "keep %d copies: want 1 to %d, or 0 for the default", b.Keep, maxKeep)
	case len(b.Recipients) > maxRecipients:
		return fault.New(fault.Invalid, "%d recipients, at most %d", len(b.Recipients), maxRecipients)
	}
	for i, x := range b.Recipients {
		if len(x) > maxRecipient || !strings.HasPrefix(x, "age1") || strings.ContainsFunc(x, notRecipient) {
			return fault.WithHint(fault.New(fault.Invalid, "recipient %d of %d is no age recipient", i+1, len(b.Recipients)), "age-keygen -y FILE prints the one of a key, age1…")
		}
	}
	return nil
}

// notRecipient says whether r never is in a recipient, which is Bech32 in lower case.
func notRecipient(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }

// scheduled refuses schedules where no machine holds the store: fault.Unavailable.
func (s *Server) scheduled() error {
	if !s.External {
		return nil
	}
	return fault.WithHint(fault.New(fault.Unavailable, "the store is an etcd of your own: no machine keeps copies of it"), "keep copies there, such as with etcdctl snapshot save")
}

// getSchedule answers GET /v1/backup/schedule.
func (s *Server) getSchedule(w http.ResponseWriter, r *http.Request) error {
	if err := s.scheduled(); err != nil {
		return err
	}
	rec, stale, err := s.record(r.Context())
	if err != nil {
		return err
	}
	return answerRead(w, stale, rec.Backup)
}

// putSchedule answers PUT /v1/backup/schedule.
func (s *Server) putSchedule(w http.ResponseWriter, r *http.Request) error {
	var b machine.Backup
	if err := body(r, &b); err != nil {
		return err
	}
	if err := checkSchedule(b); err != nil {
		return err
	}
	if err := s.scheduled(); err != nil {
		return err
	}
	rec, _, err := modify(r.Context(), s, s.Store.Cluster, store.ThisCluster, func(rec machine.Cluster, exists bool) (machine.Cluster, act, error) {
		if !exists {
			return rec, keep, noRecord()
		}
		old := rec.Backup
		rec.Backup = b
		if old.Every == b.Every && old.Keep == b.Keep && slices.Equal(old.Recipients, b.Recipients) {
			return rec, keep, nil
		}
		return rec, put, nil
	})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, rec.Backup)
}

// BackupSchedule gives how voters keep copies of the store, as it was set: zero fields have their defaults. Only a machine's own socket tells it.
func (c *Client) BackupSchedule(ctx context.Context) (machine.Backup, error) {
	var b machine.Backup
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/backup/schedule", nil, &b)
	return b, err
}

// SetBackupSchedule sets how voters keep copies of the store; zero fields have their defaults. Voters heed it within a minute. Only a machine's own
// socket takes this. fault.Invalid for a schedule that cannot be.
func (c *Client) SetBackupSchedule(ctx context.Context, b machine.Backup) (machine.Backup, error) {
	var set machine.Backup
	_, _, err := c.call(ctx, answerPatience, http.MethodPut, "/v1/backup/schedule", b, &set)
	return set, err
}
