package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flota/internal/fault"
	"flota/internal/store"
)

// problem gives etcd's errors our kinds. op says what was being done.
func problem(op string, err error) error {
	var known *fault.Error
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, store.ErrCompacted):
		return err
	case errors.Is(err, rpctypes.ErrCompacted):
		return store.ErrCompacted
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fault.Wrap(fault.NotFound, err, "%s: the lease has ended", op)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fault.WithHint(fault.Wrap(fault.Unavailable, err, "%s: the store has used up its disk quota and refuses writes", op),
			"delete keys, then compact, defragment and disarm the alarm NOSPACE")
	case errors.Is(err, rpctypes.ErrRequestTooLarge): // our own members take whatever store.Txn allows
		return fault.WithHint(fault.Wrap(fault.Invalid, err, "%s", op), "start the external etcd with --max-request-bytes=%d", 2<<20)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Unavailable, err, "%s: no quorum: no answer in time", op)
	case errors.Is(err, context.Canceled), errors.Is(err, clientv3.ErrNoAvailableEndpoints):
		return fault.Wrap(fault.Unavailable, err, "%s", op)
	case notNow(err), errors.Is(err, rpctypes.ErrTimeout), errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail),
		errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost), errors.Is(err, rpctypes.ErrLeaderChanged):
		return fault.Wrap(fault.Unavailable, err, "%s: no quorum", op)
	}
	code := codes.Unknown
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		code = etcd.Code()
	} else if s, ok := status.FromError(err); ok {
		code = s.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return fault.Wrap(fault.Invalid, err, "%s", op)
	case codes.Unavailable, codes.DeadlineExceeded:
		return fault.Wrap(fault.Unavailable, err, "%s: no quorum", op)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fault.Wrap(fault.Denied, err, "%s", op)
	case codes.Canceled, codes.ResourceExhausted, codes.FailedPrecondition:
		return fault.Wrap(fault.Unavailable, err, "%s", op)
	}
	return fault.Wrap(fault.Internal, err, "%s", op)
}
