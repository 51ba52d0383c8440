// Package fault gives every error of Flota a kind that survives being wrapped, sent over the wire
// and printed, and an optional hint that tells a person what to do next.
//
// The invariant: a kind is chosen once, where the error is made; wrapping with %w keeps it.
// This package never logs and never formats for a particular face: the HTTP status of a kind stands
// in room api, the exit code in room cli.
//
// Start reading at Kind and New.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The zero value is Internal, so that an error
// nobody classified is never mistaken for the caller's fault. Values cross the wire: never rename.
type Kind string

// The kinds of error.
const (
	Internal    Kind = ""            // a bug or a broken machine; details go to the log
	Invalid     Kind = "invalid"     // the request or file is wrong and will stay wrong
	NotFound    Kind = "not-found"   // the named thing does not exist
	Exists      Kind = "exists"      // the thing exists already
	Conflict    Kind = "conflict"    // somebody else changed it, or it is in the wrong state
	Denied      Kind = "denied"      // the caller may not do this
	Unavailable Kind = "unavailable" // the store, quorum or machine cannot be reached now; try again
	TimedOut    Kind = "timed-out"   // the work did not end within the caller's patience
	Failed      Kind = "failed"      // the request was carried out and its work failed (a unit that crashes)
)

// Error is an error with a kind and a hint. Make one with New or Wrap.
type Error struct {
	Kind Kind
	Hint string // what the person may do next; empty for none
	msg  string
	err  error
}

// Error gives the message without the hint.
func (e *Error) Error() string { return e.msg }

// Unwrap gives the wrapped error, or nil.
func (e *Error) Unwrap() error { return e.err }

// New makes an error of the given kind. Like fmt.Errorf, %w wraps.
func New(kind Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Hint: Hint(err), msg: err.Error(), err: errors.Unwrap(err)}
}

// Wrap says what was being done when err happened and sets its kind anew. It returns nil for a nil err.
func Wrap(kind Kind, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Hint: Hint(err), msg: fmt.Sprintf(format, args...) + ": " + err.Error(), err: err}
}

// WithHint adds what the person may do next; the kind stays. It returns nil for a nil err.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Hint: fmt.Sprintf(format, args...), msg: err.Error(), err: err}
}

// KindOf gives the kind of the outermost classified error in err's chain. A bare context deadline is
// TimedOut; anything else unclassified is Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return TimedOut
	}
	return Internal
}

// Is reports whether err is of kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Hint gives the outermost hint in err's chain, or "".
func Hint(err error) string {
	for err != nil {
		if e, ok := err.(*Error); ok && e.Hint != "" {
			return e.Hint
		}
		err = errors.Unwrap(err)
	}
	return ""
}
