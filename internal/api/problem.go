package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"flota/internal/fault"
)

// statuses is the one table between kinds of error and HTTP status. A kind is sent with the first status in its row; a
// status without a readable problem body is taken for the first kind that names it.
var statuses = []struct {
	status int
	kind   fault.Kind
}{
	{http.StatusInternalServerError, fault.Internal},
	{http.StatusBadRequest, fault.Invalid},
	{http.StatusNotFound, fault.NotFound},
	{http.StatusConflict, fault.Conflict},
	{http.StatusConflict, fault.Exists},
	{http.StatusForbidden, fault.Denied},
	{http.StatusServiceUnavailable, fault.Unavailable},
	{http.StatusGatewayTimeout, fault.TimedOut},
	{http.StatusUnprocessableEntity, fault.Failed},
	// What only the HTTP side itself answers.
	{http.StatusMethodNotAllowed, fault.Invalid},
	{http.StatusRequestEntityTooLarge, fault.Invalid},
	{http.StatusUnsupportedMediaType, fault.Invalid},
	{http.StatusRequestHeaderFieldsTooLarge, fault.Invalid},
	{http.StatusUpgradeRequired, fault.Invalid},
	{http.StatusUnauthorized, fault.Denied},
	{http.StatusBadGateway, fault.Unavailable},
	{http.StatusTooManyRequests, fault.Unavailable},
}

// StatusOf gives the HTTP status that an error of the kind is sent with.
func StatusOf(kind fault.Kind) int {
	for _, row := range statuses {
		if row.kind == kind {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

// KindOfStatus gives the kind that a bare HTTP status means; fault.Internal for one that is not in the table.
func KindOfStatus(status int) fault.Kind {
	for _, row := range statuses {
		if row.status == status {
			return row.kind
		}
	}
	return fault.Internal
}

// internalKind is how fault.Internal, the empty kind, is spelt on the wire.
const internalKind = "internal"

// httpError is an error that is sent with a status of its own instead of its kind's.
type httpError struct {
	status int
	error
}

// Unwrap gives the error that has the kind.
func (e httpError) Unwrap() error { return e.error }

// withStatus makes err be sent with status.
func withStatus(status int, err error) error { return httpError{status: status, error: err} }

// ProblemOf is err as it is sent. The details of an internal error stay in the log of the machine named self.
func ProblemOf(err error, self string) Problem {
	kind := fault.KindOf(err)
	p := Problem{Type: "about:blank", Status: StatusOf(kind), Kind: string(kind), Detail: err.Error(), Hint: fault.Hint(err)}
	var h httpError
	if errors.As(err, &h) {
		p.Status = h.status
	}
	if kind == fault.Internal {
		p.Kind, p.Detail, p.Hint = internalKind, "internal error on "+self, "the log of "+self+" says more"
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// Err gives the error that the problem tells of, its kind and hint included.
func (p Problem) Err() error {
	kind := fault.Kind(p.Kind)
	switch p.Kind {
	case internalKind:
		kind = fault.Internal
	case "":
		kind = KindOfStatus(p.Status)
	}
	err := fault.New(kind, "%s", p.Detail)
	if p.Hint != "" {
		err = fault.WithHint(err, "%s", p.Hint)
	}
	return err
}

// parseProblem reads the body of an answer with an error status; a body that is no problem is quoted.
func parseProblem(status int, body []byte) error {
	var p Problem
	if json.Unmarshal(body, &p) == nil && p.Detail != "" {
		if p.Status == 0 {
			p.Status = status
		}
		return p.Err()
	}
	text := strings.TrimSpace(string(body))
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	if text == "" {
		text = http.StatusText(status)
	}
	return fault.New(KindOfStatus(status), "HTTP %d: %s", status, text)
}
