package api

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"flota/internal/admit"
	"flota/internal/fault"
	"flota/internal/machine"
	"flota/internal/store"
	"flota/internal/trust"
)

// RenewRequest asks for a new certificate: POST /v1/trust/renew.
type RenewRequest struct {
	CSR []byte `json:"csr"` // DER, for the key that the machine was admitted with
}

// admitPatience bounds a join or a renewal on the answering side: 200 machines at once take turns of some milliseconds.
const admitPatience = 8 * time.Second

// join answers POST /v1/join. A machine that holds no authority's key passes the request on to a voter.
func (s *Server) join(w http.ResponseWriter, r *http.Request) error {
	var q admit.JoinRequest
	if err := body(r, &q); err != nil {
		return err
	}
	var a admit.JoinAnswer
	err := s.byVoter(r, "/v1/join", q, &a, func(ctx context.Context, d *admit.Desk) (err error) {
		a, err = d.Admit(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, a)
}

// renew answers POST /v1/trust/renew. Who asks is whom its certificate names; in a request that another machine passes on, and of this machine
// itself, whom the request for the certificate names: only that machine's key is certified.
func (s *Server) renew(w http.ResponseWriter, r *http.Request) error {
	var q RenewRequest
	if err := body(r, &q); err != nil {
		return err
	}
	c := callerOf(r)
	who, _, err := trust.ReadRequest(q.CSR)
	if err != nil {
		return err
	}
	if c.kind != Local && !(c.kind == Machines && forwarded(r)) && c.id != who.ID {
		return fault.New(fault.Denied, "machine %s asks for the certificate of %s", c.id.Short(), who.ID.Short())
	}
	var g trust.Grant
	err = s.byVoter(r, "/v1/trust/renew", q, &g, func(ctx context.Context, d *admit.Desk) (err error) {
		g, err = d.Renew(ctx, who.ID, q.CSR)
		return err
	})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, g)
}

// byVoter does something here if this machine holds the authority's key, and otherwise has a voter do it, whose answer is read into out.
func (s *Server) byVoter(r *http.Request, path string, q, out any, do func(context.Context, *admit.Desk) error) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), admitPatience)
	defer cancel()
	if d.Holds() || forwarded(r) {
		return s.ended(r.Context(), do(ctx, d))
	}
	c, err := s.machinesOnly(ctx)
	if err != nil {
		return err
	}
	return s.eachVoter(ctx, c, func(p *Client) error {
		p.root = isRoot(r)
		_, _, err := p.call(ctx, 0, http.MethodPost, path, q, out)
		return err
	})
}

// authority answers GET /v1/trust/authority, to machines that hold the store.
func (s *Server) authority(w http.ResponseWriter, r *http.Request) error {
	d, err := s.desk()
	if err != nil {
		return err
	}
	id := callerOf(r).id
	if id == "" || forwarded(r) {
		return fault.New(fault.Denied, "only a machine itself may ask for this")
	}
	ctx, cancel := context.WithTimeout(r.Context(), changePatience)
	defer cancel()
	keys, err := d.Authority(ctx, id)
	if err != nil {
		return s.ended(r.Context(), err)
	}
	return answer(w, http.StatusOK, Keys{PEM: string(keys)})
}

// Keys is the authorities with their keys: GET /v1/trust/authority.
type Keys struct {
	PEM string `json:"pem"`
}

// Authority gets the authorities with their keys, PEM, for a machine that holds the store or is to. fault.Denied for any other.
func (c *Client) Authority(ctx context.Context) ([]byte, error) {
	var k Keys
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/trust/authority", nil, &k)
	return []byte(k.PEM), err
}

// Join asks the machine at addr (host:port) to be let in; cfg is trust.JoinConfig's, so that nothing is said before the other side proved to be
// of the cluster. Refusals have the kind and the hint that the cluster gave; fault.Unavailable: nobody answers.
func Join(ctx context.Context, addr string, cfg *tls.Config, q admit.JoinRequest) (admit.JoinAnswer, error) {
	var a admit.JoinAnswer
	err := post(ctx, addr, cfg, "/v1/join", q, &a)
	return a, err
}

// RenewCertificate asks the machine at addr for a new certificate; cfg is trust.Identity.Client's with trust.RenewProtocol, for which an expired
// one is good enough.
func RenewCertificate(ctx context.Context, addr string, cfg *tls.Config, csr []byte) (trust.Grant, error) {
	var g trust.Grant
	err := post(ctx, addr, cfg, "/v1/trust/renew", RenewRequest{CSR: csr}, &g)
	return g, err
}

// Renew asks any machine for a new certificate, over a connection between machines or the own socket.
func (c *Client) Renew(ctx context.Context, csr []byte) (trust.Grant, error) {
	var g trust.Grant
	_, _, err := c.call(ctx, answerPatience, http.MethodPost, "/v1/trust/renew", RenewRequest{CSR: csr}, &g)
	return g, err
}

// post makes one request over a TLS connection of its own, and keeps the error of the handshake as it is: it says who the other side is not.
func post(ctx context.Context, addr string, cfg *tls.Config, path string, q, out any) error {
	var refused error
	c, err := NewClient([]string{"https://" + addr}, ClientOptions{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			t := tls.Client(raw, cfg)
			if err := t.HandshakeContext(ctx); err != nil {
				raw.Close()
				refused = err
				return nil, err
			}
			return t, nil
		},
	})
	if err != nil {
		return err
	}
	defer c.Close()
	_, _, err = c.call(ctx, answerPatience, http.MethodPost, path, q, out)
	if fault.Is(refused, fault.Denied) {
		return refused
	}
	var alert tls.AlertError
	if errors.As(refused, &alert) {
		return fault.WithHint(fault.Wrap(fault.Denied, refused, "%s", addr), "it does not take such connections: is it a machine of the cluster?")
	}
	return err
}

// ClusterInfo is what machines need to know of their cluster: GET /v1/cluster.
type ClusterInfo struct {
	ID     string   `json:"id"`
	Epoch  int      `json:"epoch"`
	CAHash string   `json:"caHash"` // of the authority that issues now
	Voters []string `json:"voters"` // API addresses of the machines that hold the store and are there
	Stale  bool     `json:"stale,omitempty"`
}

// getCluster answers GET /v1/cluster.
func (s *Server) getCluster(w http.ResponseWriter, r *http.Request) error {
	c, err := s.machinesOnly(r.Context())
	if err != nil {
		return err
	}
	rec, stale, err := s.record(r.Context())
	if err != nil {
		return err
	}
	info := ClusterInfo{ID: rec.ID, Epoch: rec.Epoch, Voters: []string{}, Stale: stale || c.stale}
	if hashes, err := trust.BundleHashes([]byte(rec.Trust)); err == nil {
		info.CAHash = hashes[0]
	}
	for _, m := range c.sorted() {
		if p, there := c.alive[m.ID]; there && m.Voter && p.API != "" {
			info.Voters = append(info.Voters, p.API)
		}
	}
	return answerRead(w, info.Stale, info)
}

// noRecord is the error while the first machine has not written what the cluster knows of itself.
func noRecord() error { return fault.New(fault.NotFound, "the cluster has no record of itself yet") }

// record reads what the cluster knows of itself; stale if without a quorum.
func (s *Server) record(ctx context.Context) (rec machine.Cluster, stale bool, err error) {
	stale, err = s.read(ctx, func(ctx context.Context, how store.Read) error {
		e, ok, err := s.Store.Cluster.Get(ctx, store.ThisCluster, how)
		if err == nil && !ok {
			err = noRecord()
		}
		rec = e.Value
		return err
	})
	return rec, stale, err
}

// Cluster gives what machines need to know of their cluster.
func (c *Client) Cluster(ctx context.Context) (ClusterInfo, error) {
	var i ClusterInfo
	_, _, err := c.call(ctx, answerPatience, http.MethodGet, "/v1/cluster", nil, &i)
	return i, err
}
