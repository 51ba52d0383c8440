// Command bare has the helper and nothing else.
package main

import _ "flota/internal/driver/launch/child"

func main() {}
