// Flota turns Linux machines into one cluster. This file only starts internal/cli; called by the name
// fleetctl, the binary speaks fleetctl's words.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"flota/internal/cli"
	"flota/internal/daemon"
)

// version is set by the linker: see the Makefile.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args, cli.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version, Daemon: daemon.Run,
	})
	stop()
	os.Exit(code)
}
