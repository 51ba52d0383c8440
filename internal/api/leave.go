package api

import (
	"context"
	"net/http"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
)

// Remove takes a machine out of the cluster: POST /v1/machines/<name>/remove, and this one: POST /v1/leave.
type Remove struct {
	// Force waits neither for its units, nor long for its vote, and removes it even if that breaks the quorum.
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"` // for the record
}

// Recover makes a cluster of one voter out of this machine's copy of the store: POST /v1/recover. There is nothing to choose: it is refused while the
// voters have a quorum.
type Recover struct{}

// maxReason is the longest reason for a removal, in bytes.
const maxReason = 500

// check refuses what is no removal.
func (q Remove) check() error {
	if len(q.Reason) > maxReason {
		return fault.New(fault.Invalid, "a reason of %d bytes, at most %d", len(q.Reason), maxReason)
	}
	return nil
}

// removeMachine answers POST /v1/machines/{name}/remove with the steps.
func (s *Server) removeMachine(w http.ResponseWriter, r *http.Request) error {
	var q Remove
	if err := body(r, &q); err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	_, m, err := s.pathMachine(r)
	if err != nil {
		return err
	}
	if m.ID == s.ID {
		return s.goAway(w, r, q)
	}
	d, err := s.desk()
	if err != nil {
		return err
	}
	return s.steps(w, r, func(ctx context.Context, tell func(string)) error {
		return s.ended(ctx, d.Remove(ctx, string(m.ID), admit.RemoveOptions{Force: q.Force, Reason: q.Reason, Tell: tell}))
	})
}

// leave answers POST /v1/leave with the steps.
func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	var q Remove
	if err := body(r, &q); err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	return s.goAway(w, r, q)
}

// goAway takes this machine out of the cluster.
func (s *Server) goAway(w http.ResponseWriter, r *http.Request, q Remove) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	leave := d.Leave
	if s.Leave != nil {
		leave = s.Leave
	}
	return s.steps(w, r, func(ctx context.Context, tell func(string)) error {
		return s.ended(ctx, leave(ctx, admit.RemoveOptions{Force: q.Force, Reason: q.Reason, Tell: tell}))
	})
}

// RemoveMachine takes a machine out of the cluster: its units move first, then its vote, then its certificate stops working. It tells each step
// (tell may be nil) and returns when all is done; interrupted, it may be called again. fault.Conflict if that would break the quorum.
func (c *Client) RemoveMachine(ctx context.Context, machine string, q Remove, tell func(string)) error {
	return c.steps(ctx, machinePath(machine, "/remove"), q, tell)
}

// Leave takes the machine that answers out of the cluster, as RemoveMachine does; only its own socket takes this.
func (c *Client) Leave(ctx context.Context, q Remove, tell func(string)) error {
	return c.steps(ctx, "/v1/leave", q, tell)
}

// recover answers POST /v1/recover with the steps.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) error {
	var q Recover
	if err := body(r, &q); err != nil {
		return err
	}
	if s.Recover == nil {
		return fault.WithHint(fault.New(fault.Unavailable, "%s holds no copy of the store", s.Name), "recover on a machine that was a voter or a learner")
	}
	return s.steps(w, r, func(ctx context.Context, tell func(string)) error {
		return s.Recover(context.WithoutCancel(ctx), q, tell) // half of it would be worse than all
	})
}

// Recover makes a cluster of one voter out of the copy of the store that the answering machine has; only its own socket takes this.
func (c *Client) Recover(ctx context.Context, q Recover, tell func(string)) error {
	return c.steps(ctx, "/v1/recover", q, tell)
}

// Trust is the cluster's authority, and the answering machine's certificate: GET /v1/trust.
type Trust struct {
	admit.Trust
	Certificate *Certificate `json:"certificate,omitempty"` // absent in an answer to POST /v1/trust/rotate
}

// Certificate is a machine's own; the machine renews it by itself when half of its life is over.
type Certificate struct {
	Machine string    `json:"machine"` // its name
	Made    time.Time `json:"made"`
	Ends    time.Time `json:"ends"`
}

// getTrust answers GET /v1/trust.
func (s *Server) getTrust(w http.ResponseWriter, r *http.Request) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), changePatience)
	defer cancel()
	t, err := d.Trust(ctx)
	if err != nil {
		return s.ended(r.Context(), err)
	}
	all := Trust{Trust: t}
	if s.Certificate != nil {
		made, ends := s.Certificate()
		all.Certificate = &Certificate{Machine: s.Name, Made: made.UTC(), Ends: ends.UTC()}
	}
	return answer(w, http.StatusOK, all)
}

// rotate answers POST /v1/trust/rotate; a machine without the authority's key has a voter do it.
func (s *Server) rotate(w http.ResponseWriter, r *http.Request) error {
	var t admit.Trust
	err := s.byVoter(r, "/v1/trust/rotate", struct{}{}, &t, func(ctx context.Context, d *admit.Desk) (err error) {
		if err = d.Rotate(ctx); err == nil {
			t, err = d.Trust(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, t)
}

// Trust tells of the cluster's authority, how far a change of it is, and of the answering machine's certificate; only a machine's own socket takes this.
func (c *Client) Trust(ctx context.Context) (Trust, error) {
	var t Trust
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/trust", nil, &t)
	return t, err
}

// RotateTrust begins a change of the cluster's authority; Trust tells how far it is. fault.Conflict if one is under way.
func (c *Client) RotateTrust(ctx context.Context) (admit.Trust, error) {
	var t admit.Trust
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, "/v1/trust/rotate", struct{}{}, &t)
	return t, err
}
