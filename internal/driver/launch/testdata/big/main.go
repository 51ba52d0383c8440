// Command big has the helper and the largest library of the product.
package main

import (
	"go.etcd.io/etcd/server/v3/embed"

	_ "flota/internal/driver/launch/child"
)

func main() { _ = embed.NewConfig }
