package v2

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain finds goroutines left behind. Those of idle HTTP connections are left to their timeouts.
func TestMain(m *testing.M) {
	_ = flag.Set("rapid.nofailfile", "true")
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	)
}
