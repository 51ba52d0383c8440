package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"flota/internal/fault"
)

// How long the client waits.
const (
	// dialPatience is for a connection. A machine on the same network takes it within milliseconds; a dead one never answers.
	dialPatience = 700 * time.Millisecond
	// handshakePatience is for TLS, on top of it.
	handshakePatience = 3 * time.Second
	// probePatience is for a sign of life of one of several endpoints, so that a machine that hangs costs less than 1 s.
	probePatience = 700 * time.Millisecond
	// slowPatience is for a sign of life when no endpoint gave one in probePatience: all may be busy.
	slowPatience = 5 * time.Second
	// answerPatience is for an answer that is no stream. A server answers within 4 s even without a quorum.
	answerPatience = 15 * time.Second
)

// maxAnswer bounds an answer that is read into memory. Source: 100,000 units of 1 KB and their states are about 200 MB.
const maxAnswer = 512 << 20

// ClientOptions are a client's settings. The zero value is fine.
type ClientOptions struct {
	// Dial makes the connection; network is "unix" or "tcp". nil dials directly. For an endpoint "https://…" without TLS it makes the
	// handshake too, as trust.Identity.Dial does, and the connection is used as it is.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is for endpoints "https://host:port".
	TLS *tls.Config
	// Agent is sent as User-Agent; "" is "flota".
	Agent string
}

// Client speaks to a cluster through any of its machines. Make one with NewClient. Safe for concurrent use.
// Every error has the kind and the hint that the server gave it; fault.Unavailable if no machine answers.
type Client struct {
	agent     string
	root      bool   // the request that is passed on came from root
	forwarded string // the machine that passes a request on with this client; "" for none
	ends      []*endpoint

	mu    sync.Mutex // guards the field below
	stuck *endpoint  // the one that answered last; nil for none yet
}

// endpoint is one address of the API.
type endpoint struct {
	name string // as given
	base string // what a path is put behind
	http *http.Client
}

// NewClient makes a client of endpoints of the forms "unix:///path/flota.sock", "http://host:port" and "https://host:port". They are tried in
// order until one answers, and the client stays with that one until it fails. fault.Invalid for another form. Nothing is
// dialled yet.
func NewClient(endpoints []string, o ClientOptions) (*Client, error) {
	if len(endpoints) == 0 {
		return nil, fault.New(fault.Invalid, "no endpoint given")
	}
	c := &Client{agent: o.Agent}
	if c.agent == "" {
		c.agent = "flota"
	}
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	for _, s := range endpoints {
		e, err := newEndpoint(s, dial, o)
		if err != nil {
			return nil, err
		}
		c.ends = append(c.ends, e)
	}
	return c, nil
}

// newEndpoint reads one endpoint.
func newEndpoint(s string, dial func(context.Context, string, string) (net.Conn, error), o ClientOptions) (*endpoint, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "endpoint %q", s)
	}
	network, addr := "tcp", u.Host
	e := &endpoint{name: s, base: "http://" + u.Host}
	switch {
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		network, addr, e.base = "unix", u.Path, "http://flota"
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "":
		if u.Port() == "" {
			return nil, fault.New(fault.Invalid, "endpoint %q has no port", s)
		}
		if u.Scheme == "https" && o.TLS != nil {
			e.base = "https://" + u.Host
		} else if u.Scheme == "https" && o.Dial == nil {
			return nil, fault.WithHint(fault.New(fault.Invalid, "endpoint %q: machines talk TLS to each other only", s),
				"ask a machine by its own socket flota.sock")
		}
	default:
		return nil, fault.New(fault.Invalid, "endpoint %q: want unix:///path/to/flota.sock, http://host:port or https://host:port", s)
	}
	e.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialPatience)
				defer cancel()
				return dial(ctx, network, addr)
			},
			TLSClientConfig:        o.TLS,
			TLSHandshakeTimeout:    handshakePatience,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// Close lets go of idle connections. The client may be used again.
func (c *Client) Close() {
	for _, e := range c.ends {
		e.http.CloseIdleConnections()
	}
}

// Endpoint gives the endpoint that answered last, or "" if none has yet.
func (c *Client) Endpoint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck == nil {
		return ""
	}
	return c.stuck.name
}

// pick gives the endpoint to ask: the one that answered last, the only one there is, or the first that shows a sign of life.
func (c *Client) pick(ctx context.Context) (*endpoint, error) {
	c.mu.Lock()
	stuck := c.stuck
	c.mu.Unlock()
	if stuck != nil {
		return stuck, nil
	}
	if len(c.ends) == 1 {
		return c.ends[0], nil
	}
	var why []string
	for _, patience := range []time.Duration{probePatience, slowPatience} {
		why = why[:0]
		slow := false
		for _, e := range c.ends {
			err := e.probe(ctx, patience)
			if err == nil {
				c.stick(e)
				return e, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			slow = slow || errors.Is(err, context.DeadlineExceeded)
			why = append(why, e.name+": "+plain(err))
		}
		if !slow {
			break
		}
	}
	return nil, unreachable(why)
}

// unreachable is the error of a client that no endpoint answers.
func unreachable(why []string) error {
	return fault.WithHint(fault.New(fault.Unavailable, "no machine answers: %s", strings.Join(why, "; ")),
		"is flota up running there? see its log; another endpoint can be given with --endpoint")
}

// probe asks for a sign of life.
func (e *endpoint) probe(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+"/v1/health", nil)
	if err != nil {
		return err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return resp.Body.Close()
}

// stick remembers the endpoint that answers; nil forgets it.
func (c *Client) stick(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = e
}

// send makes a request and gives the answer, whose status is 2xx; the caller closes its body. A request that may not have
// been sent, or that only reads, is tried once more at another endpoint.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "send %s", path)
		}
	}
	for again := false; ; again = true {
		e, err := c.pick(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := c.try(ctx, e, method, path, raw)
		if err == nil {
			c.stick(e)
			return resp, answerError(resp)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c.stick(nil)
		if again || len(c.ends) == 1 || !(method == http.MethodGet || notSent(err)) {
			return nil, unreachable([]string{e.name + ": " + plain(err)})
		}
	}
}

// try makes one attempt.
func (c *Client) try(ctx context.Context, e *endpoint, method, path string, raw []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.agent)
	if c.forwarded != "" {
		req.Header.Set(forwardedHeader, c.forwarded)
		if c.root {
			req.Header.Set(rootHeader, "true")
		}
	}
	if method != http.MethodGet && method != http.MethodDelete {
		req.Header.Set("Content-Type", "application/json")
	}
	return e.http.Do(req)
}

// answerError gives the error that an answer carries, and then closes it; nil for a 2xx.
func answerError(resp *http.Response) error {
	if resp.StatusCode < 300 {
		return nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return parseProblem(resp.StatusCode, b)
}

// call makes a request and reads the JSON answer into out (nil: whatever it is). patience 0 waits as long as ctx allows.
// It gives the status and headers of the answer.
func (c *Client) call(ctx context.Context, patience time.Duration, method, path string, body, out any) (int, http.Header, error) {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, fault.New(fault.TimedOut, "no answer within %s", patience))
		defer cancel()
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, context.Cause(ctx)
		}
		return 0, nil, fault.Wrap(fault.Unavailable, err, "read the answer")
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			return 0, nil, fault.Wrap(fault.Internal, err, "read the answer to %s %s", method, path)
		}
	}
	return resp.StatusCode, resp.Header, nil
}

// notSent reports whether err says that no connection was made, so that the server cannot have seen the request.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// plain is err without the method and address that package http puts before it.
func plain(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return err.Error()
}
