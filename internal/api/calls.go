package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"flota/internal/driver"
	"flota/internal/machine"
)

// StaleHeader marks an answer that was read without a quorum and may be old.
const StaleHeader = "Flota-Stale"

// List is several things. Stale: read without a quorum, may be old.
type List[T any] struct {
	Items []T  `json:"items"`
	Stale bool `json:"stale,omitempty"`
}

// RebalanceRequest asks for a plan that spreads the units anew: POST /v1/rebalance.
type RebalanceRequest struct {
	Apply bool `json:"apply,omitempty"` // carry it out
}

// PatchMachine changes labels: PATCH /v1/machines/<machine>.
type PatchMachine struct {
	Labels map[string]*string `json:"labels"` // null removes
}

// Release says what runs: GET /v1/version.
type Release struct {
	Version string `json:"version"`
	Machine string `json:"machine"` // name of the one that answers
}

// Health is a sign of life: GET /v1/health.
type Health struct {
	ID   machine.ID `json:"id"`
	Name string     `json:"name"`
	Time time.Time  `json:"time"` // by its clock
}

// unitPath is the path of a unit.
func unitPath(name, rest string) string { return "/v1/units/" + url.PathEscape(name) + rest }

// machinePath is the path of a machine.
func machinePath(name, rest string) string { return "/v1/machines/" + url.PathEscape(name) + rest }

// Status gives the cluster at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Version gives the version of the machine that answers.
func (c *Client) Version(ctx context.Context) (string, error) {
	var r Release
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/version", nil, &r)
	return r.Version, err
}

// Units gives the units whose names match one of the patterns (path.Match), sorted by name; all without a pattern.
func (c *Client) Units(ctx context.Context, patterns ...string) (List[Unit], error) {
	path := "/v1/units"
	if len(patterns) > 0 {
		path += "?" + url.Values{"match": patterns}.Encode()
	}
	var l List[Unit]
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, path, nil, &l)
	return l, err
}

// Unit gives one unit. fault.NotFound if there is none.
func (c *Client) Unit(ctx context.Context, name string) (Unit, error) {
	var u Unit
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, unitPath(name, ""), nil, &u)
	return u, err
}

// PutUnit creates or changes a unit. fault.Conflict if it exists with another content and p.Replace is not set, fault.Invalid
// for a unit file that cannot be.
func (c *Client) PutUnit(ctx context.Context, name string, p PutUnit) (u Unit, created bool, err error) {
	status, _, err := c.call(ctx, answerPatience, http.MethodPut, unitPath(name, ""), p, &u)
	return u, status == http.StatusCreated, err
}

// SetTarget wants a state of a unit.
func (c *Client) SetTarget(ctx context.Context, name string, t SetTarget) (Unit, error) {
	var u Unit
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, unitPath(name, "/target"), t, &u)
	return u, err
}

// Reload has a unit reload its configuration on every machine that it is on, and waits for the end of it.
func (c *Client) Reload(ctx context.Context, name string) error {
	_, _, err := c.call(ctx, 0, http.MethodPost, unitPath(name, "/reload"), struct{}{}, nil)
	return err
}

// ResetFailed forgets a failure of a unit and its start limit counter.
func (c *Client) ResetFailed(ctx context.Context, name string) error {
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, unitPath(name, "/reset-failed"), struct{}{}, nil)
	return err
}

// Destroy removes a unit; it is stopped where it runs. fault.NotFound if there is none.
func (c *Client) Destroy(ctx context.Context, name string) error {
	_, _, err := c.call(ctx, answerPatience, http.MethodDelete, unitPath(name, ""), nil, nil)
	return err
}

// Machines gives all machines, sorted by name.
func (c *Client) Machines(ctx context.Context) ([]Machine, error) {
	var l List[Machine]
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/machines", nil, &l)
	return l.Items, err
}

// Machine gives one machine by its name, its id or the first digits of its id.
func (c *Client) Machine(ctx context.Context, nameOrID string) (Machine, error) {
	var m Machine
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, machinePath(nameOrID, ""), nil, &m)
	return m, err
}

// Label sets labels of a machine; nil removes one.
func (c *Client) Label(ctx context.Context, machine string, set map[string]*string) (Machine, error) {
	var m Machine
	_, _, err := c.call(ctx, answerPatience, http.MethodPatch, machinePath(machine, ""), PatchMachine{Labels: set}, &m)
	return m, err
}

// Drain takes all units off a machine and gives it no others.
func (c *Client) Drain(ctx context.Context, machine string) (Machine, error) {
	var m Machine
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, machinePath(machine, "/drain"), struct{}{}, &m)
	return m, err
}

// Resume ends Drain.
func (c *Client) Resume(ctx context.Context, machine string) (Machine, error) {
	var m Machine
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, machinePath(machine, "/resume"), struct{}{}, &m)
	return m, err
}

// WhyUnit says why a unit is where and how it is.
func (c *Client) WhyUnit(ctx context.Context, name string) (Why, error) {
	var w Why
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, unitPath(name, "/why"), nil, &w)
	return w, err
}

// WhyMachine says why a machine is how it is.
func (c *Client) WhyMachine(ctx context.Context, name string) (Why, error) {
	var w Why
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, machinePath(name, "/why"), nil, &w)
	return w, err
}

// Plan says what would happen; nothing is changed.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (Plan, error) {
	var p Plan
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, "/v1/plan", r, &p)
	return p, err
}

// Rebalance says which units would move to spread them evenly, and with apply moves them.
func (c *Client) Rebalance(ctx context.Context, apply bool) (Plan, error) {
	var p Plan
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, "/v1/rebalance", RebalanceRequest{Apply: apply}, &p)
	return p, err
}

// Halt shuts the machine that answers down cleanly; only its local socket takes this.
func (c *Client) Halt(ctx context.Context) error {
	_, _, err := c.call(ctx, 0, http.MethodPost, "/v1/halt", struct{}{}, nil)
	return err
}

// Logs gives what a unit printed, on the named machine or ("") wherever it is, oldest first. It ends when f gives an error (which is
// returned), when ctx ends, or at the last line unless o.Follow is set.
func (c *Client) Logs(ctx context.Context, name, machine string, o driver.LogOptions, f func(LogLine) error) error {
	q := url.Values{"lines": {strconv.Itoa(o.Lines)}}
	if o.Follow {
		q.Set("follow", "true")
	}
	if machine != "" {
		q.Set("machine", machine)
	}
	return stream(ctx, c, unitPath(name, "/logs")+"?"+q.Encode(), func(_ string, l LogLine) error { return f(l) })
}

// Events gives the last so many events (negative: all that are kept), oldest first, and with follow those that come.
func (c *Client) Events(ctx context.Context, follow bool, lines int, f func(Event) error) error {
	q := url.Values{"lines": {strconv.Itoa(lines)}}
	if follow {
		q.Set("follow", "true")
	}
	return stream(ctx, c, "/v1/events?"+q.Encode(), func(_ string, e Event) error { return f(e) })
}

// Watch gives all units once, then each that changes, until f gives an error or ctx ends. Several changes of one unit may come
// as one; the last never is left out. A deleted unit has only its name.
func (c *Client) Watch(ctx context.Context, f func(u Unit, deleted bool) error) error {
	return stream(ctx, c, "/v1/watch", func(kind string, u Unit) error { return f(u, kind == eventDeleted) })
}
