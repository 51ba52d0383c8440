package api

import (
	"context"
	"net/http"
	"net/url"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/trust/token"
)

// desk gives what lets machines in and out. fault.Unavailable where there is none.
func (s *Server) desk() (*admit.Desk, error) {
	if s.Desk == nil {
		return nil, fault.New(fault.Unavailable, "machines neither join nor leave here")
	}
	return s.Desk, nil
}

// ended is the error of a change by the desk, which may be the store's.
func (s *Server) ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil && context.Cause(ctx) == context.Canceled || !unavailable(err) || fault.Hint(err) != "" {
		return err
	}
	outcome := "the change may have been made or not, and can safely be asked for again"
	return s.noQuorum(context.WithoutCancel(ctx), &outcome)
}

// makeToken answers POST /v1/tokens.
func (s *Server) makeToken(w http.ResponseWriter, r *http.Request) error {
	var ask admit.NewToken
	if err := body(r, &ask); err != nil {
		return err
	}
	d, err := s.desk()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), changePatience)
	defer cancel()
	made, err := d.CreateToken(ctx, ask)
	if err != nil {
		return s.ended(r.Context(), err)
	}
	return answer(w, http.StatusCreated, made)
}

// listTokens answers GET /v1/tokens. It is never read without a quorum: who asks wants to know what still lets machines in.
func (s *Server) listTokens(w http.ResponseWriter, r *http.Request) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), changePatience)
	defer cancel()
	all, err := d.Tokens(ctx)
	if err != nil {
		if unavailable(err) {
			return s.noQuorum(r.Context(), nil)
		}
		return err
	}
	return answer(w, http.StatusOK, List[token.Token]{Items: all})
}

// revokeToken answers DELETE /v1/tokens/{id}.
func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), changePatience)
	defer cancel()
	if err := d.Revoke(ctx, r.PathValue("id")); err != nil {
		return s.ended(r.Context(), err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// CreateToken makes a join token and the command line that uses it. Only a machine's own socket takes this: fault.Denied elsewhere.
func (c *Client) CreateToken(ctx context.Context, n admit.NewToken) (admit.Created, error) {
	var made admit.Created
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, "/v1/tokens", n, &made)
	return made, err
}

// Tokens gives all join tokens, the oldest first; without their hashes.
func (c *Client) Tokens(ctx context.Context) ([]token.Token, error) {
	var l List[token.Token]
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/tokens", nil, &l)
	return l.Items, err
}

// RevokeToken ends a join token; machines that joined with it stay. fault.NotFound if there is none with the id.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, _, err := c.call(ctx, answerPatience, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil, nil)
	return err
}
