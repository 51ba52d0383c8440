// Package fleetctl only names the real client of fleet, so that its modules are pinned in this folder's go.mod and go.sum.
package fleetctl

import _ "github.com/coreos/fleet/fleetctl"
