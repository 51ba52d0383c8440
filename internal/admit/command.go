package admit

import (
	"context"
	"net/netip"
	"slices"

	"flota/internal/machine"
	"flota/internal/store"
)

// maxAddrs is how many addresses a command line names: as many as there can be voters.
const maxAddrs = 5

// addrs gives the addresses that a new machine may join at, and what a person must know of them. If the store cannot say who the voters are, this
// machine's own address is right too.
func (d *Desk) addrs(ctx context.Context) (join []string, note string) {
	own := d.o.Addrs()
	voters, _ := d.Voters(ctx) // errors leave this machine
	all := slices.Concat(own, voters)
	off := slices.DeleteFunc(slices.Clone(all), onLoopback)
	addrs := off
	if len(off) == 0 {
		addrs = all
		note = "the machines of this cluster listen on loopback only, so this works on this host alone; " +
			"for machines elsewhere start one with flota up --addr ADDRESS first"
	}
	addrs = unique(addrs)
	return addrs[:min(len(addrs), maxAddrs)], note
}

// onLoopback says whether host:port is an address that only this host reaches.
func onLoopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().IsLoopback()
}

// unique drops repeated addresses, keeping the first of each.
func unique(all []string) []string {
	var out []string
	for _, a := range all {
		if a != "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// Voters gives the API addresses of the machines that hold the store and are there, sorted.
func (d *Desk) Voters(ctx context.Context) ([]string, error) {
	votes, _, err := d.o.Store.Voters.List(ctx, "", store.Read{})
	if err != nil {
		return nil, err
	}
	alive, _, err := d.o.Store.Alive.List(ctx, "", store.Read{})
	if err != nil {
		return nil, err
	}
	api := map[machine.ID]string{}
	for _, e := range alive {
		api[e.Value.ID] = e.Value.API
	}
	var out []string
	for _, e := range votes {
		if a := api[e.Value.Machine]; e.Value.Role == machine.Voter && a != "" {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out, nil
}
