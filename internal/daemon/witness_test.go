package daemon

import (
	"strings"
	"testing"
)

// TestDropProgram: a program whose pages were given back goes on.
func TestDropProgram(t *testing.T) {
	for range 3 {
		dropProgram()
		if got := strings.ToUpper("still here"); got != "STILL HERE" {
			t.Fatal(got)
		}
	}
}
