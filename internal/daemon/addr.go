package daemon

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// loopback is the address of a machine that has no other.
const loopback = "127.0.0.1"

// ownAddr finds the address that other machines reach this one by: the one that packets to the machine to join leave from; else the one
// of the default route; else the first address of an interface that leads off this host; else loopback.
func ownAddr(join []string) string {
	for _, j := range join {
		if a := source(j); a != "" {
			return a
		}
	}
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // addresses kept for documentation: nothing is sent
		if a := source(far); a != "" && !isLoopback(a) {
			return a
		}
	}
	if a := firstAddr(); a != "" {
		return a
	}
	return loopback
}

// source is the address that packets to addr leave this host from; "" if there is no way. A UDP socket that is connected sends nothing.
func source(addr string) string {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok || a.IP.IsUnspecified() {
		return ""
	}
	return a.AddrPort().Addr().Unmap().WithZone("").String()
}

func isLoopback(addr string) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && a.IsLoopback()
}

// inward are beginnings of names of interfaces that lead to containers and virtual machines on this host.
var inward = []string{"docker", "br-", "virbr", "cni", "flannel", "podman", "lxc", "lxd", "vnet"}

// firstAddr gives the first address of an interface that is up and leads off this host, IPv4 before IPv6; "" if there is none.
func firstAddr() string {
	var six string
	for _, a := range ownAddrs() {
		ip, err := netip.ParseAddr(a)
		switch {
		case err != nil:
		case ip.Is4():
			return a
		case six == "":
			six = a
		}
	}
	return six
}

// ownAddrs are the addresses of interfaces that are up and lead off this host, in the kernel's order.
func ownAddrs() []string {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []string
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 ||
			slices.ContainsFunc(inward, func(p string) bool { return strings.HasPrefix(i.Name, p) }) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				out = append(out, p.Addr().String())
			}
		}
	}
	return out
}
