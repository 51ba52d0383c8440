// Package setup is what a unit finds when a run of it begins: what unit files may say of this machine, the directories that it asked for,
// and its environment.
//
// The invariant: making directories and reading environment files again changes nothing that a running command has. Without root,
// everything is below the data directory.
// It starts no process and knows nothing of a unit's state.
//
// Start reading at Run and LookHost.
package setup

import (
	"flota/internal/driver/launch"
	"flota/internal/service"
)

// Run is one run of a unit: its settings, the machine and whom it runs as.
type Run struct {
	Svc  *service.Service
	Host *service.Host
	Who  launch.Identity
}
