package keycmd

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
)

// kinds of the codes that fronts answer with. A code that is not here is fault.Failed.
var kinds = map[codes.Code]fault.Kind{
	codes.InvalidArgument:   fault.Invalid,
	codes.NotFound:          fault.NotFound,
	codes.PermissionDenied:  fault.Denied,
	codes.Unauthenticated:   fault.Denied,
	codes.Unavailable:       fault.Unavailable,
	codes.DeadlineExceeded:  fault.Unavailable,
	codes.ResourceExhausted: fault.Unavailable,
	codes.OutOfRange:        fault.Unavailable,
	codes.Aborted:           fault.Conflict,
}

// problem turns an error of the client into one of ours, with what may be done. nil stays nil.
func problem(ctx context.Context, err error) error {
	var ours *fault.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	code, text := status.Code(err), rpctypes.ErrorDesc(err)
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		code, text = e.Code(), e.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		code = codes.DeadlineExceeded
	}
	kind, ok := kinds[code]
	if !ok {
		kind = fault.Failed
	}
	switch code {
	case codes.ResourceExhausted:
		if strings.Contains(text, "larger than max") { // gRPC's own words
			kind = fault.Invalid
		}
	case codes.DeadlineExceeded:
		return fault.WithHint(fault.New(kind, "the keys did not answer in time; a change that was asked for may have been made or not"),
			"without a quorum of voters only get, ls, tree and export with --stale are answered; flota status shows the voters")
	case codes.Unavailable:
		return fault.WithHint(fault.New(kind, "%s", text),
			"without a quorum of voters only get, ls, tree and export with --stale are answered; flota status shows the voters")
	case codes.Unauthenticated, codes.PermissionDenied:
		return fault.WithHint(fault.New(kind, "%s", text),
			"bring a token that opens these keys with FLOTA_KEYS_TOKEN; root makes one on a machine with: flota key token create")
	}
	return fault.New(kind, "%s", text)
}
