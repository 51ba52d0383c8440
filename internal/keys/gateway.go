package keys

import (
	"context"
	"math"
	"net"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	etcdgw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"flota/internal/fault"
)

// gateway makes etcd's JSON gateway. It speaks to our own gRPC server, so that it is confined like everybody.
func gateway(p pipe) (http.Handler, *grpc.ClientConn, error) {
	cc, err := within(p)
	if err != nil {
		return nil, nil, err
	}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}}),
		runtime.WithOutgoingHeaderMatcher(func(key string) (string, bool) {
			if key == StaleHeader {
				return key, true
			}
			return runtime.MetadataHeaderPrefix + key, true
		}),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		etcdgw.RegisterKVHandler, etcdgw.RegisterWatchHandler, etcdgw.RegisterLeaseHandler, etcdgw.RegisterClusterHandler,
		etcdgw.RegisterMaintenanceHandler, etcdgw.RegisterAuthHandler, lockgw.RegisterLockHandler, electiongw.RegisterElectionHandler,
	} {
		if err := register(context.Background(), mux, cc); err != nil {
			cc.Close()
			return nil, nil, fault.Wrap(fault.Internal, err, "make the JSON gateway of the keys")
		}
	}
	return oldPaths(mux), cc, nil
}

// within connects to a pipe.
func within(p pipe) (*grpc.ClientConn, error) {
	cc, err := grpc.NewClient("passthrough:///within",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "connect to the keys from within")
	}
	return cc, nil
}

// oldPaths lets clients of etcd 3.3 in, which say /v3beta/.
func oldPaths(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
			r = r.Clone(r.Context())
			r.URL.Path = "/v3/" + rest
		}
		h.ServeHTTP(w, r)
	})
}
