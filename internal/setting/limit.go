package setting

import (
	"math"
	"strings"
	"time"

	"flota/internal/fault"
)

// LimitInfinity is the value of a resource limit that does not limit. Source: RLIM_INFINITY of Linux.
const LimitInfinity uint64 = math.MaxUint64

// Limit is a resource limit in the kernel's unit: bytes, seconds, microseconds (RTTIME) or a count.
type Limit struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// limitKinds gives each resource its number for setrlimit(2) and the language of its values.
// Source: asm-generic/resource.h; systemd.exec(5), Process Properties.
var limitKinds = map[string]struct {
	number int
	read   func(string) (uint64, error)
}{
	"CPU": {0, limitSeconds}, "FSIZE": {1, limitBytes}, "DATA": {2, limitBytes}, "STACK": {3, limitBytes},
	"CORE": {4, limitBytes}, "RSS": {5, limitBytes}, "NPROC": {6, limitCount}, "NOFILE": {7, limitCount},
	"MEMLOCK": {8, limitBytes}, "AS": {9, limitBytes}, "LOCKS": {10, limitCount}, "SIGPENDING": {11, limitCount},
	"MSGQUEUE": {12, limitBytes}, "NICE": {13, limitNice}, "RTPRIO": {14, limitCount}, "RTTIME": {15, limitMicros},
}

// LimitNumber gives the number of a resource (NOFILE is 7) for setrlimit(2); ok is false for an unknown name.
func LimitNumber(resource string) (n int, ok bool) {
	k, ok := limitKinds[resource]
	return k.number, ok
}

// ParseLimit reads the value of Limit<resource>=: "v" or "soft:hard", each may be "infinity". A soft limit above
// the hard one, a bad value and an unknown resource are fault.Invalid.
func ParseLimit(resource, s string) (Limit, error) {
	kind, ok := limitKinds[resource]
	if !ok {
		return Limit{}, fault.New(fault.Invalid, "%q is not a resource", resource)
	}
	read := func(v string) (uint64, error) {
		if v == "infinity" && resource != "NICE" {
			return LimitInfinity, nil
		}
		return kind.read(v)
	}
	soft, hard, both := strings.Cut(s, ":")
	var l Limit
	var err error
	if l.Soft, err = read(soft); err != nil {
		return Limit{}, err
	}
	l.Hard = l.Soft
	if both {
		if l.Hard, err = read(hard); err != nil {
			return Limit{}, err
		}
	}
	if l.Soft > l.Hard {
		return Limit{}, fault.New(fault.Invalid, "the soft limit of %q is above the hard one", s)
	}
	return l, nil
}

func limitBytes(s string) (uint64, error) {
	n, err := Size(s)
	if n == Unlimited {
		return LimitInfinity, err
	}
	return uint64(n), err
}

func limitCount(s string) (uint64, error) {
	n, err := Uint(s)
	if err == nil && n == LimitInfinity {
		return 0, fault.New(fault.Invalid, "%q is out of range", s)
	}
	return n, err
}

// limitSeconds rounds up to whole seconds, which is what the kernel counts.
func limitSeconds(s string) (uint64, error) {
	d, err := Span(s)
	if err != nil || d == Infinity {
		return LimitInfinity, err
	}
	return uint64((d-1)/time.Second) + b2u(d > 0), nil
}

func limitMicros(s string) (uint64, error) {
	d, err := SpanIn(s, time.Microsecond)
	if err != nil || d == Infinity {
		return LimitInfinity, err
	}
	return uint64(d / time.Microsecond), nil
}

// limitNice reads a nice level with its sign (+19 to -20) or the kernel's own number (1 to 40, 20 minus the level).
func limitNice(s string) (uint64, error) {
	n, err := Int(s)
	if err != nil {
		return 0, err
	}
	if s[0] == '+' || s[0] == '-' {
		if n < -20 || n > 19 {
			return 0, fault.New(fault.Invalid, "nice level %q is not in -20 to 19", s)
		}
		return uint64(20 - n), nil
	}
	if n > 40 {
		return 0, fault.New(fault.Invalid, "nice limit %q is above 40", s)
	}
	return uint64(n), nil
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
