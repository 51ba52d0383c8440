package keycmd

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"flota/internal/fault"
)

// probePatience is for a connection to a front. On the same network it stands within milliseconds; a dead machine never answers.
const probePatience = 700 * time.Millisecond

// The client asks whether the front is there after 5 s of silence and gives it 3 s. The front takes no more than one such question in 5 s.
const (
	pingAfter = 5 * time.Second
	pingWait  = 3 * time.Second
)

// maxMessage is the largest request and answer. 64 MiB: far above a value of 1 MB; listings come in pages.
const maxMessage = 64 << 20

// connect gives a client of the fronts. fault.Unavailable if none of them takes a connection.
func (k *keys) connect(ctx context.Context) (*clientv3.Client, error) {
	ends, err := k.fronts(ctx)
	if err != nil {
		return nil, err
	}
	if err := probe(ctx, ends); err != nil {
		return nil, err
	}
	token := k.token
	if token == "" {
		token = k.Getenv("FLOTA_KEYS_TOKEN")
	}
	cfg := clientv3.Config{
		Endpoints: ends, DialKeepAliveTime: pingAfter, DialKeepAliveTimeout: pingWait, Logger: zap.NewNop(),
		MaxCallSendMsgSize: maxMessage, MaxCallRecvMsgSize: maxMessage,
	}
	if token != "" {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithPerRPCCredentials(bearer(token)))
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "connect to the keys at %s", strings.Join(ends, ", "))
	}
	return c, nil
}

// bearer brings a token with each request.
type bearer string

var _ credentials.PerRPCCredentials = bearer("")

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Fronts are on loopback.
func (b bearer) RequireTransportSecurity() bool { return false }

// fronts finds where the keys are served: --keys-endpoint, FLOTA_KEYS, or what the machines of the cluster say, the one that answers first.
func (k *keys) fronts(ctx context.Context) ([]string, error) {
	given := k.endpoints
	if env := k.Getenv("FLOTA_KEYS"); len(given) == 0 && env != "" {
		given = strings.Split(env, ",")
	}
	if len(given) > 0 {
		return addresses(given)
	}
	c, err := k.API()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return nil, fault.WithHint(err, "the cluster is asked where the keys are; --keys-endpoint HOST:PORT or FLOTA_KEYS says it without asking")
	}
	var ends []string
	for _, m := range st.Machines {
		switch {
		case m.Presence == nil || m.Presence.Keys == "" || slices.Contains(ends, m.Presence.Keys):
		case m.Name == st.Answered:
			ends = append([]string{m.Presence.Keys}, ends...)
		default:
			ends = append(ends, m.Presence.Keys)
		}
	}
	if len(ends) == 0 {
		return nil, fault.WithHint(fault.New(fault.Unavailable, "no machine of the cluster serves keys"),
			"was flota up started with --keys-addr none? --keys-endpoint HOST:PORT names another place")
	}
	return ends, nil
}

// addresses reads endpoints as HOST:PORT or http://HOST:PORT, the forms that etcdctl takes.
func addresses(given []string) ([]string, error) {
	var out []string
	for _, s := range given {
		addr := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "http://"), "/")
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fault.New(fault.Invalid, "keys endpoint %q: want HOST:PORT, such as 127.0.0.1:2379", s)
		}
		out = append(out, addr)
	}
	return out, nil
}

// probe wants one of the fronts to take a connection; otherwise a client would wait for all its patience to learn that none does.
func probe(ctx context.Context, ends []string) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	results := make(chan error, len(ends))
	for _, e := range ends {
		go func() { // ends with the dial, which the patience bounds
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", e)
			if err == nil {
				_ = c.Close()
			}
			results <- err
		}()
	}
	var why []string
	for range ends {
		err := <-results
		if err == nil {
			return nil
		}
		why = append(why, err.Error())
	}
	return fault.WithHint(fault.New(fault.Unavailable, "the keys cannot be reached: %s", strings.Join(why, "; ")),
		"is flota up running there? --keys-endpoint HOST:PORT names another machine")
}
