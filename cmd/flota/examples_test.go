package main

import (
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// examples FILE runs the sh examples of a document in one shell that ends at the first command that fails. Their folder has the
// script's environment.
func examples(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: examples FILE")
	}
	b, err := os.ReadFile("../../docs/" + args[0])
	ts.Check(err)
	var sh strings.Builder
	for i, part := range strings.Split("\n"+string(b), "\n```") {
		if text, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			sh.WriteString(text + "\n")
		}
	}
	if sh.Len() == 0 {
		ts.Fatalf("%s has no examples", args[0])
	}
	ts.Check(ts.Exec("sh", "-euc", sh.String()))
}
