package cli

import (
	"context"

	"flota/internal/cli/fleetctl"
)

// fleetctl runs the program as fleetctl; without an endpoint it talks to the cluster that flota would talk to.
func (a *app) fleetctl(ctx context.Context, args []string) int {
	return fleetctl.Run(ctx, args, fleetctl.Env{In: a.In, Out: a.Out, Err: a.Err, Getenv: a.Getenv, Version: a.Version, Endpoints: a.endpoints})
}
